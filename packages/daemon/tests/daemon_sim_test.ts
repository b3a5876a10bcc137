import assert from "node:assert/strict";
import { SERVER_PATHS } from "@jiji/core/cluster";
import { seededRandom } from "@jiji/core/runtime";
import { PEER_CACHE_FILE } from "../src/duties/topology.ts";
import { addressOf, keyOf } from "../sim/facts.ts";
import { momentProblems, settledProblems } from "../sim/invariants.ts";
import { NEW_PEER } from "../sim/sim_kernel.ts";
import { SimCluster } from "../sim/sim_cluster.ts";
import { simulate } from "../sim/simulate.ts";

/** Lets time pass; nothing that must never happen may happen. */
async function pass(cluster: SimCluster, durationMs: number): Promise<void> {
  await cluster.run(durationMs, () => assert.deepEqual(momentProblems(cluster), []));
}

for (const seed of [1, 2, 3, 4, 5, 6]) {
  Deno.test(`daemon simulation: six servers converge after every kind of fault (seed ${seed})`, async () => {
    const story: string[] = [];
    const report = await simulate({
      servers: 6,
      faultMs: 180_000,
      seed,
      onFault: (atMs, text) => story.push(`${atMs} ms: ${text}`),
    });
    assert.deepEqual(report.violations, [], `seed ${seed}:\n${story.join("\n")}`);
    assert.equal(report.faults, 30);
    assert(report.settledAfterMs !== undefined);
  });
}

/**
 * Other sizes. Seeds 13 of 5, 3 of 8, 21 of 6 and 12 of 5 once ended badly; the world has changed since
 * and they tell other stories now, what they found is held by tests of `planFarewells()` and others.
 */
for (const [servers, seed] of [[5, 13], [8, 3], [6, 21], [5, 12], [6, 1051], [15, 1112]] as const) {
  Deno.test(`daemon simulation: ${servers} servers converge (seed ${seed})`, async () => {
    const report = await simulate({ servers, faultMs: 180_000 + (seed % 3) * 60_000, seed });
    assert.deepEqual(report.violations, []);
  });
}

/** Here a farewell that failed half way left the rule in place that kept a re-added server out. */
for (const [servers, seed] of [[6, 2], [5, 1002], [16, 1047]] as const) {
  Deno.test(`daemon simulation: ${servers} servers with preshared keys converge (seed ${seed})`, async () => {
    const report = await simulate({ servers, faultMs: 180_000, seed, presharedKeys: true });
    assert.deepEqual(report.violations, []);
  });
}

Deno.test("daemon simulation: in a larger cluster not everyone probes everyone, and it converges", async () => {
  const report = await simulate({ servers: 40, faultMs: 30_000, seed: 7 });
  assert.deepEqual(report.violations, []);
  const perServerAndSecond = report.datagrams / 40 / (report.simulatedMs / 1_000);
  assert(perServerAndSecond < 45, `${perServerAndSecond} datagrams a server and second`);
});

Deno.test("daemon simulation: a killed server is silent to all others within 3 s, back within 2 s", async () => {
  const cluster = new SimCluster(4, seededRandom(7));
  await pass(cluster, 20_000);
  const [victim, ...others] = cluster.servers;
  assert.ok(victim);
  await victim.kill();
  await pass(cluster, 3_000);
  for (const other of others) assert.deepEqual([...other.context?.facts.silent ?? []], ["s1"]);
  const report = others[0]?.files.get(SERVER_PATHS.liveness) ?? "";
  assert.deepEqual(JSON.parse(report).silent, ["s1"], "jiji-dns reads the same");
  victim.boot();
  await pass(cluster, 2_100);
  for (const other of others) assert.deepEqual([...other.context?.facts.silent ?? []], []);
  await cluster.end();
});

Deno.test("daemon simulation: a server whose daemon is dead for a minute is silent to nobody; later it is", async () => {
  const cluster = new SimCluster(4, seededRandom(11));
  await pass(cluster, 20_000);
  const [one, ...others] = cluster.servers;
  assert.ok(one);
  const silent = () => others.map((other) => [...other.context?.facts.silent ?? []].join());
  await one.killDaemon();
  for (let second = 0; second < 60; second++) {
    await pass(cluster, 1_000);
    assert.deepEqual(silent(), ["", "", ""], `second ${second}`);
  }
  await pass(cluster, 40_000);
  assert.deepEqual(silent(), ["s1", "s1", "s1"], "nobody knows what its containers do");
  one.startDaemon();
  await pass(cluster, 2_100);
  assert.deepEqual(silent(), ["", "", ""]);
  await cluster.end();
});

Deno.test("daemon simulation: of 40 servers all know within 5 s that one is silent, and that it is back", async () => {
  const cluster = new SimCluster(40, seededRandom(9));
  await pass(cluster, 30_000);
  const [victim, ...others] = cluster.servers;
  assert.ok(victim);
  await victim.kill();
  await pass(cluster, 5_100);
  const silent = () => others.map((other) => [...other.context?.facts.silent ?? []].join());
  assert.deepEqual([...new Set(silent())], ["s1"]);
  victim.boot();
  await pass(cluster, 3_000);
  assert.deepEqual([...new Set(silent())], [""]);
  await cluster.end();
});

Deno.test("daemon simulation: a server cut off from all keeps its peers", async () => {
  const cluster = new SimCluster(4, seededRandom(8));
  await pass(cluster, 20_000);
  const [alone, ...others] = cluster.servers;
  assert.ok(alone);
  for (const other of others) cluster.cut(alone, other);
  alone.loseDatabase();
  await pass(cluster, 120_000);
  assert.equal(alone.kernel.peers.size, 3);
  await cluster.end();
});

const NEXT_KEY_INDEX = 40_000;

/** Problems that are left once the cluster had time. */
function problems(cluster: SimCluster): string[] {
  return settledProblems(cluster, { removed: new Set(), gone: new Set(), quietMs: 0 });
}

for (let step = 0; step < 5; step++) {
  Deno.test(`daemon simulation: a key change that loses power after ${step} steps is finished when it is back`, async () => {
    const cluster = new SimCluster(4, seededRandom(20 + step));
    await pass(cluster, 60_000);
    const [one] = cluster.servers;
    assert.ok(one);
    one.files.set(SERVER_PATHS.wireguardNextKey, `${keyOf(NEXT_KEY_INDEX)}\n`);
    one.host.stepsUntilPowerLoss = step;
    await pass(cluster, 20_000);
    assert.equal(one.isUp, false, "it lost power in the middle");
    one.boot();
    await pass(cluster, 120_000);
    assert.equal(one.key, keyOf(NEXT_KEY_INDEX));
    assert.deepEqual(problems(cluster), []);
    await cluster.end();
  });
}

Deno.test("daemon simulation: who lost all rows while cut off changes no key without the others' consent", async () => {
  const cluster = new SimCluster(4, seededRandom(31));
  await pass(cluster, 60_000);
  const [one, ...others] = cluster.servers;
  assert.ok(one);
  for (const other of others) cluster.cut(one, other);
  one.loseDatabase();
  one.files.set(SERVER_PATHS.wireguardNextKey, `${keyOf(NEXT_KEY_INDEX)}\n`);
  await pass(cluster, 60_000);
  assert.equal(one.key, keyOf(1), "nobody has agreed");
  cluster.heal();
  await pass(cluster, 120_000);
  assert.equal(one.key, keyOf(NEXT_KEY_INDEX));
  assert.deepEqual(problems(cluster), []);
  await cluster.end();
});

Deno.test("daemon simulation: a key changed unseen is found again after every database, cache and peer is lost", async () => {
  const cluster = new SimCluster(3, seededRandom(32));
  await pass(cluster, 60_000);
  const [one, ...others] = cluster.servers;
  assert.ok(one);
  one.files.set(SERVER_PATHS.wireguardNextKey, `${keyOf(NEXT_KEY_INDEX)}\n`);
  // It is agreed upon, and the power goes with the new key loaded and before any row tells of it.
  one.host.stepsUntilPowerLoss = 2;
  await pass(cluster, 20_000);
  for (const other of others) {
    await other.kill();
    other.loseDatabase();
    other.files.delete(PEER_CACHE_FILE);
  }
  for (const server of cluster.servers) server.boot();
  await pass(cluster, 120_000);
  assert.equal(one.key, keyOf(NEXT_KEY_INDEX));
  assert.deepEqual(problems(cluster), []);
  await cluster.end();
});

Deno.test("daemon simulation: what breaks the rules is found", async () => {
  const cluster = new SimCluster(3, seededRandom(1));
  await pass(cluster, 20_000);
  const [one, two] = cluster.servers;
  assert.ok(one && two);
  const allowed = ["10.128.0.0/10"];
  one.kernel.peers.set(keyOf(one.index), { ...NEW_PEER, allowed });
  one.kernel.isDirty = true;
  assert.deepEqual(momentProblems(cluster), [
    "s1: has itself as a peer",
    `s1: its own address ${addressOf(1)} leads to a peer`,
  ]);
  cluster.offend("s2 did what it must not");
  assert.match(momentProblems(cluster).join(), /s2 did what it must not \(at \d+ ms\)/);
  await cluster.end();
});
