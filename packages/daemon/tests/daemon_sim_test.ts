import assert from "node:assert/strict";
import { SERVER_PATHS } from "@jiji/core/cluster";
import { seededRandom } from "@jiji/core/runtime";
import { PEER_CACHE_FILE } from "../src/duties/topology.ts";
import { key } from "./builders.ts";
import { SimCluster, type SimServer } from "./sim_cluster.ts";

const SERVERS = 6;
const FAULT_MS = 120_000;
const QUIET_MS = 60_000;

/** What must hold at every moment, whatever happens. */
function checkInvariants(cluster: SimCluster): void {
  for (const server of cluster.servers) {
    const where = `${server.id} at ${cluster.clock.monotonicMs()} ms`;
    assert.ok(!server.peers.has(key(server.index)), `${where}: has itself as a peer`);
    const owned = [...server.peers.values()].flatMap((peer) => peer.allowed);
    assert.equal(new Set(owned).size, owned.length, `${where}: an address has two owners`);
    assert.ok(server.removals.every((one) => one.evident), `${where}: removed a peer by absence`);
    assert.equal(server.writesWhileRemoved, 0, `${where}: wrote its row after its removal`);
  }
}

/** What must hold once faults have stopped for a while. */
function checkConverged(cluster: SimCluster, removed: ReadonlySet<string>): void {
  const members = cluster.servers.filter((server) => !removed.has(server.id));
  const quietSinceMs = cluster.clock.monotonicMs() - 20_000;
  for (const server of members) {
    const others = members.filter((other) => other !== server).map((other) => key(other.index));
    assert.deepEqual([...server.peers.keys()].sort(), others.sort(), `${server.id}: its peers`);
    assert.equal(server.routes.size, others.length * 2, `${server.id}: its routes`);
    const silent = [...server.context?.facts.silent ?? []];
    const down = members.filter((other) => !other.isUp).map((other) => other.id);
    assert.deepEqual(silent.sort(), down.sort(), `${server.id}: whom it counts as silent`);
    const late = server.changes.filter((change) => change.atMs > quietSinceMs);
    assert.deepEqual(late, [], `${server.id}: still changes things`);
  }
}

function remove(server: SimServer, cluster: SimCluster): void {
  for (const other of cluster.servers) {
    const known = other.rows.get(server.id);
    if (other === server || !known || !other.isUp) continue;
    other.rows.set(server.id, {
      row: { ...known.row, removedAtMs: cluster.clock.nowMs() },
      version: known.version,
    });
    other.refreshView();
    return;
  }
}

/** One random fault. */
async function fault(cluster: SimCluster, removed: Set<string>): Promise<string> {
  const pick = () => {
    const server = cluster.servers[Math.floor(cluster.random.next() * cluster.servers.length)];
    assert.ok(server);
    return server;
  };
  const [one, two] = [pick(), pick()];
  switch (Math.floor(cluster.random.next() * 8)) {
    case 0:
      cluster.loss = cluster.random.next() * 0.6;
      return `loss ${cluster.loss.toFixed(2)}`;
    case 1:
    case 2:
      if (one !== two) cluster.cut(one, two);
      return `cut ${one.id} ${two.id}`;
    case 3:
      if (one.isUp) await one.kill();
      else one.boot();
      return `${one.id} ${one.isUp ? "on" : "off"}`;
    case 4:
      one.rows.clear();
      one.refreshView();
      return `${one.id} loses its database`;
    case 5:
      one.peers.clear();
      one.routes.clear();
      return `${one.id} loses its peers`;
    case 6:
      one.files.delete(PEER_CACHE_FILE);
      return `${one.id} loses its cache`;
    default:
      if (removed.size > 0) return "nothing";
      removed.add(one.id);
      remove(one, cluster);
      return `${one.id} is removed`;
  }
}

for (const seed of [1, 2, 3, 4, 5, 6]) {
  Deno.test(`daemon simulation: converges after loss, partitions, crashes (seed ${seed})`, async () => {
    const cluster = new SimCluster(SERVERS, seededRandom(seed));
    const removed = new Set<string>();
    const story: string[] = [];
    try {
      await cluster.run(40_000, () => checkInvariants(cluster));
      checkConverged(cluster, removed);
      for (let passedMs = 0; passedMs < FAULT_MS; passedMs += 6_000) {
        story.push(`${cluster.clock.monotonicMs()}: ${await fault(cluster, removed)}`);
        await cluster.run(6_000, () => checkInvariants(cluster));
      }
      cluster.heal();
      for (const server of cluster.servers) if (!server.isUp) server.boot();
      await cluster.run(QUIET_MS, () => checkInvariants(cluster));
      checkConverged(cluster, removed);
    } catch (error) {
      throw new Error(`seed ${seed}:\n${story.join("\n")}`, { cause: error });
    } finally {
      for (const server of cluster.servers) await server.kill();
    }
  });
}

Deno.test("daemon simulation: a killed server is silent to all others within 4 s, back within 2 s", async () => {
  const cluster = new SimCluster(4, seededRandom(7));
  await cluster.run(20_000, () => checkInvariants(cluster));
  const [victim, ...others] = cluster.servers;
  assert.ok(victim);
  await victim.kill();
  await cluster.run(4_200, () => checkInvariants(cluster));
  for (const other of others) assert.deepEqual([...other.context?.facts.silent ?? []], ["s1"]);
  const report = others[0]?.files.get(SERVER_PATHS.liveness) ?? "";
  assert.deepEqual(JSON.parse(report).silent, ["s1"], "jiji-dns reads the same");
  victim.boot();
  await cluster.run(2_100, () => checkInvariants(cluster));
  for (const other of others) assert.deepEqual([...other.context?.facts.silent ?? []], []);
  for (const server of cluster.servers) await server.kill();
});

Deno.test("daemon simulation: a server cut off from all keeps its peers", async () => {
  const cluster = new SimCluster(4, seededRandom(8));
  await cluster.run(20_000, () => checkInvariants(cluster));
  const [alone, ...others] = cluster.servers;
  assert.ok(alone);
  for (const other of others) cluster.cut(alone, other);
  alone.rows.clear();
  alone.refreshView();
  await cluster.run(120_000, () => checkInvariants(cluster));
  assert.equal(alone.peers.size, 3);
  assert.deepEqual(alone.removals, []);
  for (const server of cluster.servers) await server.kill();
});
