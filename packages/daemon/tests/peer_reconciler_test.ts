import assert from "node:assert/strict";
import {
  argvMeshStep,
  type MeshObserved,
  orderEndpoints,
  planMesh,
} from "../src/mesh/mesh_plan.ts";
import { allowedIps, type Membership, planTopology } from "../src/mesh/peer_reconciler.ts";
import { parseRoutes } from "../src/mesh/path_mtu.ts";
import { watchSessions } from "../src/mesh/sessions.ts";
import { argvEndpoints, ENDPOINT_TRY_MS, planRotations } from "../src/mesh/peer_monitor.ts";
import type { WireguardPeer } from "../src/mesh/wg_show.ts";
import { key, peerSeed, serverConfig, serverRow } from "./builders.ts";

const SELF = serverConfig(1);
const NOBODY: ReadonlySet<string> = new Set();

function known(facts: Partial<Membership>): Membership {
  return { rows: [], seeds: [], cache: [], ...facts };
}

function wgPeer(index: number, facts: Partial<WireguardPeer> = {}): WireguardPeer {
  return {
    publicKey: key(index),
    endpoint: `203.0.113.${10 + index}:31820`,
    allowedIps: allowedIps(peerSeed(index)),
    handshakeAtMs: 1_000,
    rxBytes: 0,
    txBytes: 0,
    keepaliveS: 25,
    ...facts,
  };
}

function observed(peers: WireguardPeer[], routes: string[] = []): MeshObserved {
  return {
    wireguard: { publicKey: key(1), listenPort: 31820, peers },
    routes: new Map(
      [...routes, ...peers.flatMap((peer) => peer.allowedIps)].map((one) => [one, 0]),
    ),
  };
}

function names(topology: { peers: readonly { server_id: string }[] }): string[] {
  return topology.peers.map((peer) => peer.server_id);
}

Deno.test("planTopology(): rows, seeds and cache together, never ourselves", () => {
  const topology = planTopology(
    SELF,
    known({ rows: [serverRow(1), serverRow(2)], seeds: [peerSeed(3)], cache: [peerSeed(4)] }),
    NOBODY,
  );
  assert.deepEqual(names(topology), ["s2", "s3", "s4"]);
});

Deno.test("planTopology(): after a loss of power forged rows and clones take nothing from old peers", () => {
  const rivals = [
    serverRow(7, { id: "evil", subnet: serverRow(2).subnet }),
    serverRow(7, { id: "a-clone", wireguardPubkey: key(2) }),
    // A known server whose row was garbled claims what another has.
    serverRow(3, { id: "b3", subnet: serverRow(2).subnet }),
  ];
  for (const rival of rivals) {
    for (const remembered of ["cache", "seeds"] as const) {
      const files = { [remembered]: [peerSeed(2), peerSeed(3, { server_id: "b3" })] };
      const topology = planTopology(SELF, known({ rows: [serverRow(2), rival], ...files }), NOBODY);
      assert.ok(names(topology).includes("s2"), `${rival.id}, ${remembered}`);
      assert.deepEqual(topology.conflicts.map((one) => one.serverId), [rival.id]);
    }
  }
});

Deno.test("planTopology(): a row wins over what files remember", () => {
  const row = serverRow(2, { endpoints: ["198.51.100.2:31820"] });
  const topology = planTopology(SELF, known({ rows: [row], seeds: [peerSeed(2)] }), NOBODY);
  assert.deepEqual(topology.peers[0]?.endpoints, ["198.51.100.2:31820"]);
});

Deno.test("planTopology(): only a tombstone removes, and it outweighs every file", () => {
  const removed = serverRow(2, { removedAtMs: 5 });
  const files = { seeds: [peerSeed(2)], cache: [peerSeed(2)] };
  const topology = planTopology(SELF, known({ rows: [removed], ...files }), NOBODY);
  assert.deepEqual(names(topology), []);
  assert.deepEqual(topology.gone.map((one) => one.publicKey), [key(2)]);
  const emptied = planTopology(SELF, known(files), NOBODY);
  assert.deepEqual(names(emptied), ["s2"], "an empty database removes nobody");
});

Deno.test("planTopology(): a server's new key in its own row retires the old one", () => {
  const row = serverRow(2, { wireguardPubkey: key(22) });
  const topology = planTopology(SELF, known({ rows: [row], cache: [peerSeed(2)] }), NOBODY);
  assert.deepEqual(topology.peers.map((peer) => peer.public_key), [key(22)]);
  assert.deepEqual(topology.gone.map((one) => one.publicKey), [key(2)]);
});

Deno.test("planTopology(): nobody takes key, identity or addresses of another", () => {
  const claims = [
    serverRow(3, { subnet: "10.210.2.0/25" }),
    serverRow(4, { wireguardPubkey: key(2) }),
    serverRow(5, { managementIp: serverRow(2).managementIp }),
    serverRow(6, { subnet: SELF.block }),
    serverRow(7, { wireguardPubkey: SELF.wireguard_public_key }),
  ];
  const topology = planTopology(SELF, known({ rows: [serverRow(2), ...claims] }), NOBODY);
  assert.deepEqual(names(topology), ["s2"]);
  assert.equal(topology.conflicts.length, 5);
});

Deno.test("planTopology(): of two claims the one that WireGuard has already stays", () => {
  const forged = serverRow(1, { id: "a", subnet: "10.210.2.0/24", wireguardPubkey: key(99) });
  const rows = [{ ...forged, managementIp: "fdcc::99" }, serverRow(2)];
  assert.deepEqual(names(planTopology(SELF, known({ rows }), new Set([key(2)]))), ["s2"]);
});

Deno.test("planMesh(): adds a missing peer with its routes", () => {
  const topology = planTopology(SELF, known({ rows: [serverRow(2)] }), NOBODY);
  const steps = planMesh(SELF, topology, observed([]));
  assert.deepEqual(steps.map((step) => argvMeshStep(step, "jiji0").join(" ")), [
    `wg set jiji0 peer ${key(2)} persistent-keepalive 25 endpoint 203.0.113.12:31820 ` +
    "allowed-ips 10.210.2.0/24,fdcc::2/128",
    "ip route replace 10.210.2.0/24 dev jiji0 src 10.210.1.1",
    "ip -6 route replace fdcc::2/128 dev jiji0",
  ]);
});

Deno.test("planMesh(): plans nothing once the mesh is as wanted", () => {
  const topology = planTopology(SELF, known({ rows: [serverRow(2), serverRow(3)] }), NOBODY);
  assert.deepEqual(planMesh(SELF, topology, observed([wgPeer(2), wgPeer(3)])), []);
});

Deno.test("planMesh(): keeps the endpoint that works and peers it knows nothing of", () => {
  const topology = planTopology(SELF, known({ rows: [serverRow(2)] }), NOBODY);
  const roamed = wgPeer(2, { endpoint: "198.51.100.9:4500" });
  assert.deepEqual(planMesh(SELF, topology, observed([roamed, wgPeer(9)])), []);
  const narrowed = { ...roamed, allowedIps: ["10.210.2.0/24"] };
  const steps = planMesh(SELF, topology, observed([narrowed], ["fdcc::2/128"]));
  assert.ok(steps[0]?.kind === "setPeer" && steps[0].endpoint === undefined);
});

Deno.test("planMesh(): a removed server loses peer and routes", () => {
  const removed = serverRow(2, { removedAtMs: 5 });
  const topology = planTopology(SELF, known({ rows: [removed] }), NOBODY);
  const steps = planMesh(SELF, topology, observed([wgPeer(2)]));
  assert.deepEqual(steps.map((step) => argvMeshStep(step, "jiji0").join(" ")), [
    `wg set jiji0 peer ${key(2)} remove`,
    "ip route del 10.210.2.0/24 dev jiji0",
    "ip -6 route del fdcc::2/128 dev jiji0",
  ]);
});

Deno.test("planMesh(): a block that was given to another server keeps its route", () => {
  const removed = serverRow(2, { removedAtMs: 5 });
  const heir = serverRow(3, { subnet: "10.210.2.0/24" });
  const topology = planTopology(SELF, known({ rows: [removed, heir] }), NOBODY);
  const steps = planMesh(SELF, topology, observed([], ["10.210.2.0/24", "fdcc::2/128"]));
  const removals = steps.filter((step) => step.kind === "removeRoute");
  assert.deepEqual(removals.map((step) => step.prefix), ["fdcc::2/128"]);
});

Deno.test("orderEndpoints(): the same private network comes first, malformed ones go", () => {
  const theirs = ["203.0.113.5:31820", "10.0.7.5:31820", "x", "10.0.8.5:31820", "; rm -rf /"];
  assert.deepEqual(orderEndpoints(theirs, ["198.51.100.1:31820", "10.0.8.1:31820"]), [
    "10.0.8.5:31820",
    "203.0.113.5:31820",
    "10.0.7.5:31820",
  ]);
});

Deno.test("parseRoutes(): reads both families", () => {
  const four = "10.210.2.0/24 scope link src 10.210.1.1 \n10.210.3.7 scope link\n";
  assert.deepEqual([...parseRoutes(four)], [["10.210.2.0/24", 0], ["10.210.3.7/32", 0]]);
  assert.deepEqual([...parseRoutes("fdcc::2 metric 1024 pref medium\ndefault via x\n")], [
    ["fdcc::2/128", 0],
  ]);
  const narrow = "10.210.2.0/24 scope link mtu lock 1328";
  assert.deepEqual([...parseRoutes(narrow)], [["10.210.2.0/24", 1328]]);
});

const CALM = {
  silent: new Set<string>(),
  ownEndpoints: [],
  sessions: new Map(),
  answered: new Map<string, string>(),
};

/** Sessions in which each peer shook hands last at `atMs`. */
function sessions(...handshakes: [index: number, atMs: number][]) {
  return new Map(
    handshakes.map(([index, atMs]) =>
      [key(index), { handshakeAtMs: atMs, sinceMs: atMs }] as const
    ),
  );
}

Deno.test("planRotations(): a silent peer is tried at its next endpoint, in turn", () => {
  const endpoints = ["203.0.113.12:31820", "10.0.0.2:31820"];
  const peers = [peerSeed(2, { endpoints })];
  const wireguard = observed([wgPeer(2, { handshakeAtMs: undefined })]).wireguard;
  const first = planRotations(peers, wireguard, { ...CALM, nowMs: 0, trials: new Map() });
  assert.deepEqual(first.rotations, [], "it gets its time where it is first");
  const later = planRotations(peers, wireguard, {
    ...CALM,
    nowMs: ENDPOINT_TRY_MS,
    trials: first.trials,
  });
  assert.deepEqual(later.rotations.map((one) => argvEndpoints("jiji0", [one]).join(" ")), [
    `wg set jiji0 peer ${key(2)} endpoint 10.0.0.2:31820`,
  ]);
});

Deno.test("planRotations(): a peer that answers, or has one endpoint, is left alone", () => {
  const trials = new Map([["s2", 0], ["s3", 0]]);
  const peers = [peerSeed(2, { endpoints: ["10.0.0.2:1", "10.0.0.3:1"] }), peerSeed(3)];
  const wireguard = observed([wgPeer(2), wgPeer(3, { handshakeAtMs: undefined })]).wireguard;
  const plan = planRotations(peers, wireguard, {
    ...CALM,
    nowMs: 400_000,
    trials,
    sessions: sessions([2, 300_000]),
  });
  assert.deepEqual(plan.rotations, []);
});

Deno.test("planRotations(): one that does not answer probes is tried elsewhere before its session is old", () => {
  const peers = [peerSeed(2, { endpoints: ["198.51.100.2:31820"] })];
  const wireguard = observed([wgPeer(2)]).wireguard;
  const silent = new Set(["s2"]);
  const trials = new Map([["s2", 400_000 - ENDPOINT_TRY_MS]]);
  const now = { ...CALM, nowMs: 400_000, trials, sessions: sessions([2, 390_000]) };
  const plan = planRotations(peers, wireguard, { ...now, silent });
  assert.deepEqual(plan.rotations.map((one) => one.endpoint), ["198.51.100.2:31820"]);
  assert.deepEqual(planRotations(peers, wireguard, now).rotations, []);
});

Deno.test("planRotations(): an endpoint that only a handshake told is kept, and tried again later", () => {
  const nat = "198.51.100.9:40001";
  const peers = [peerSeed(2)];
  const wireguard = observed([wgPeer(2, { endpoint: nat })]).wireguard;
  const good = planRotations(peers, wireguard, {
    ...CALM,
    nowMs: 100_000,
    trials: new Map(),
    sessions: sessions([2, 90_000]),
  });
  assert.deepEqual(good.rotations, []);
  let { answered } = good;
  let trials = good.trials;
  let endpoint = nat;
  const tried: string[] = [];
  for (let round = 0; round < 4; round++) {
    const plan = planRotations(peers, observed([wgPeer(2, { endpoint })]).wireguard, {
      ...CALM,
      nowMs: 100_000 + round * ENDPOINT_TRY_MS,
      trials,
      answered,
      sessions: sessions([2, 90_000]),
      silent: new Set(["s2"]),
    });
    ({ trials, answered } = plan);
    endpoint = plan.rotations[0]?.endpoint ?? endpoint;
    tried.push(endpoint);
  }
  assert.deepEqual(tried, [nat, "203.0.113.12:31820", nat, "203.0.113.12:31820"]);
});

Deno.test("planRotations(): a clock that jumps makes no living peer look dead", () => {
  const peers = [peerSeed(2, { endpoints: ["10.0.0.2:1", "10.0.0.3:1"] })];
  const wireguard = observed([wgPeer(2, { handshakeAtMs: 1 })]).wireguard;
  const trials = new Map([["s2", 0]]);
  const seen = watchSessions(new Map(), wireguard, 900_000);
  const plan = planRotations(peers, wireguard, { ...CALM, nowMs: 901_000, trials, sessions: seen });
  assert.deepEqual(plan.rotations, [], "ten minutes by the wall clock, one second by ours");
});
