import assert from "node:assert/strict";
import { type Clock, ConnectionError, messageOf, parseCidr, SERVER_PATHS } from "@jiji/core";
import type { Artifact } from "../src/lib/network/artifacts.ts";
import { sha256OfText } from "../src/lib/network/artifacts.ts";
import { bootstrapServers, openQuestions } from "../src/lib/network/server_bootstrap.ts";
import { renderServerStep } from "../src/lib/network/server_plan.ts";
import type { ProgressEvent } from "../src/lib/output/events.ts";
import { BareCluster, keyOf } from "./bare_server.ts";

/** Time that passes only while somebody sleeps. */
function sleepyClock(): Clock {
  let nowMs = 0;
  return {
    nowMs: () => 5_000 + nowMs,
    monotonicMs: () => nowMs,
    sleep(durationMs) {
      nowMs += durationMs;
      return Promise.resolve();
    },
  };
}

/** Runs `server init` on servers of a cluster, all of them by default. */
async function init(
  cluster: BareCluster,
  options: { names?: readonly string[]; signal?: AbortSignal; binaries?: string } = {},
) {
  const folder = await Deno.makeTempDir();
  try {
    const artifacts = await Promise.all(
      (["corrosion", "jiji-dns", "jiji-daemon"] as const).map(async (name): Promise<Artifact> => {
        const text = `${name} ${options.binaries ?? "1"}`;
        await Deno.writeTextFile(`${folder}/${name}`, text);
        return { name, path: `${folder}/${name}`, sha256: sha256OfText(text) };
      }),
    );
    const events: ProgressEvent[] = [];
    const names = options.names ?? [...cluster.servers.keys()];
    const outcomes = await bootstrapServers(
      names.map((name) => {
        const host = cluster.server(name);
        return { name, host, hostAddress: `203.0.113.${10 + host.keySeed}` };
      }),
      {
        settings: {
          engine: "docker",
          clusterCidr: parseCidr("10.210.0.0/16")!,
          blockPrefix: 24,
          wireguardPort: 31820,
          serviceDomain: "jiji",
        },
        artifacts,
        clock: sleepyClock(),
        signal: options.signal ?? new AbortController().signal,
        emit: (event) => events.push(event),
      },
    );
    return { outcomes, events };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const stepsOf = (outcomes: Awaited<ReturnType<typeof init>>["outcomes"]) =>
  outcomes.map((outcome) => [outcome.name, outcome.steps.map(renderServerStep)]);

Deno.test("bootstrapServers(): bare servers become members, a second run changes nothing", async (t) => {
  const cluster = new BareCluster(["s1", "s2", "s3"]);
  const first = await init(cluster);
  assert.deepEqual(first.outcomes.map((one) => [one.name, one.block, one.error]), [
    ["s1", "10.210.0.0/24", undefined],
    ["s2", "10.210.1.0/24", undefined],
    ["s3", "10.210.2.0/24", undefined],
  ]);
  await t.assertSnapshot(first.outcomes[0]!.steps.map(renderServerStep).join("\n"));
  const uploads = () =>
    [...cluster.servers.values()].flatMap((host) => host.commands).filter((text) =>
      text.startsWith("upload")
    ).length;
  const before = uploads();
  const second = await init(cluster);
  assert.deepEqual(stepsOf(second.outcomes), [["s1", []], ["s2", []], ["s3", []]]);
  assert.equal(uploads(), before);
  const ends = second.events.map((event) => event.kind === "done" ? event.summary : event.kind);
  assert.deepEqual(ends, ["as configured", "as configured", "as configured"]);
});

Deno.test("bootstrapServers(): a newcomer joins, and nothing but looking happens on members", async () => {
  const cluster = new BareCluster(["s1", "s2", "s3"]);
  await init(cluster, { names: ["s1", "s2"] });
  const { outcomes } = await init(cluster);
  assert.deepEqual(outcomes.map((one) => [one.error, one.steps.length > 0]), [
    [undefined, false],
    [undefined, false],
    [undefined, true],
  ]);
  assert.equal(outcomes[2]!.block, "10.210.2.0/24");
  const peers = cluster.server("s3").files.get(SERVER_PATHS.peerSeed)!.text;
  assert.deepEqual(JSON.parse(peers).peers.map((peer: { server_id: string }) => peer.server_id), [
    "s1",
    "s2",
  ]);
});

Deno.test("bootstrapServers(): a server that fails is named and leaves the others alone", async () => {
  for (
    const breaks of ["apt-get -q", "useradd", "wg genkey", "jiji-dns --version", "enable --quiet"]
  ) {
    const cluster = new BareCluster(["s1", "s2", "s3"]);
    cluster.server("s2").breaks = breaks;
    const { outcomes, events } = await init(cluster);
    const [s1, s2, s3] = outcomes;
    assert.equal(s1!.error, undefined, breaks);
    assert.equal(s3!.error, undefined, breaks);
    assert.match(messageOf(s2!.error), /on s2 .*it does not work today/s, breaks);
    assert(events.some((event) => event.kind === "failed" && event.lane === "s2"), breaks);
    // The next run goes on where this one stopped.
    cluster.server("s2").breaks = undefined;
    const again = await init(cluster);
    assert.deepEqual(again.outcomes.map((one) => one.error), [undefined, undefined, undefined]);
    assert.deepEqual(again.outcomes[0]!.steps, [], breaks);
    const blocks = again.outcomes.map((one) => one.block);
    assert.equal(new Set(blocks).size, 3, breaks);
  }
});

Deno.test("bootstrapServers(): a lost connection stops one server alone", async () => {
  const cluster = new BareCluster(["s1", "s2"]);
  cluster.server("s1").lost = true;
  const { outcomes } = await init(cluster);
  assert(outcomes[0]!.error instanceof ConnectionError);
  assert.equal(outcomes[1]!.error, undefined);
});

Deno.test("bootstrapServers(): a server that jiji cannot use is left untouched", async () => {
  const cluster = new BareCluster(["s1", "s2"]);
  cluster.server("s1").systemd = false;
  const { outcomes } = await init(cluster);
  assert.match(messageOf(outcomes[0]!.error), /s1: systemd does not run there/);
  assert.equal(cluster.server("s1").commands.length, 1);
  assert.equal(outcomes[1]!.error, undefined);
});

Deno.test("bootstrapServers(): waits for the mesh with a deadline and says for whom", async () => {
  const cluster = new BareCluster(["s1", "s2"]);
  cluster.server("s1").deaf = true;
  const { outcomes } = await init(cluster);
  assert.match(messageOf(outcomes[0]!.error), /s1 is not ready after 120 s: mesh: waiting for s2/);
  assert.equal(outcomes[1]!.error, undefined);
});

Deno.test("bootstrapServers(): a new build replaces executables and restarts only their units", async () => {
  const cluster = new BareCluster(["s1"]);
  await init(cluster);
  const { outcomes } = await init(cluster, { binaries: "2" });
  assert.deepEqual(outcomes[0]!.steps.map(renderServerStep), [
    "uploadBinary corrosion — other version there",
    "uploadBinary jiji-dns — other version there",
    "uploadBinary jiji-daemon — other version there",
    "restartUnits jiji-corrosion.service jiji-dns.service jiji-daemon.service — " +
    "older than its files",
  ]);
});

Deno.test("bootstrapServers(): copies of one server are refused before anything is configured", async () => {
  const cluster = new BareCluster(["s1", "s2"]);
  for (const host of cluster.servers.values()) host.publicKey = keyOf(9);
  await assert.rejects(init(cluster), /s1 and s2 have the same WireGuard key/);
  for (const host of cluster.servers.values()) assert.equal(host.config, undefined);
});

Deno.test("bootstrapServers(): a newcomer waits when no member can tell the blocks in use", async () => {
  const cluster = new BareCluster(["s1", "s2"]);
  await init(cluster, { names: ["s1"] });
  cluster.server("s1").breaks = "status --json";
  await assert.rejects(
    init(cluster),
    /no member of the cluster can tell which addresses are taken/,
  );
  assert.equal(cluster.server("s2").config, undefined);
});

Deno.test("bootstrapServers(): ends when told to, without steps", async () => {
  const cluster = new BareCluster(["s1"]);
  const { outcomes } = await init(cluster, { signal: AbortSignal.abort(new Error("interrupted")) });
  assert.deepEqual(outcomes.map((one) => [messageOf(one.error), one.steps]), [["interrupted", []]]);
});

Deno.test("bootstrapServers(): no secret in an argument list or an event", async () => {
  const cluster = new BareCluster(["s1"]);
  const { events } = await init(cluster);
  const token = cluster.server("s1").files.get(SERVER_PATHS.corrosionToken)!.text.trim();
  assert.match(token, /^[a-f0-9]{64}$/);
  assert(!JSON.stringify([cluster.server("s1").commands, events]).includes(token));
});

Deno.test("openQuestions(): names what a server waits for, nothing for a full member", async () => {
  const cluster = new BareCluster(["s1", "s2"]);
  await init(cluster);
  const status = cluster.server("s1").status();
  const expected = { members: ["s1", "s2"], reachable: ["s1", "s2"] };
  assert.deepEqual(openQuestions(status, expected), []);
  assert.deepEqual(openQuestions({ ...status, servers: null }, expected), [
    "state: waiting for corrosion",
  ]);
  assert.deepEqual(openQuestions({ ...status, servers: [] }, expected), ["state: syncing s1, s2"]);
  const silent = { ...status.liveness!, silent: ["s2"] };
  assert.deepEqual(openQuestions({ ...status, liveness: silent }, expected), [
    "mesh: waiting for s2",
  ]);
  assert.deepEqual(
    openQuestions({ ...status, liveness: silent }, { ...expected, reachable: ["s1"] }),
    [],
    "a member that is down must not keep the others from being ready",
  );
  assert.deepEqual(
    openQuestions(
      { ...status, units: { "jiji-dns.service": "failed" }, problems: ["disk full"] },
      expected,
    ),
    ["jiji-dns.service is failed", "disk full"],
  );
});
