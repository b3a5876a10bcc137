import assert from "node:assert/strict";
import fc from "fast-check";
import { MESH_MTU_MAX, MESH_MTU_MIN } from "@jiji/core/cluster";
import type { BindDatagram } from "../src/duties/liveness.ts";
import { PathMtuDuty } from "../src/duties/path_mtu.ts";
import {
  decodeSize,
  encodeSize,
  meshMtuOf,
  parseRouteGet,
  parseRoutes,
  sizesAbove,
} from "../src/mesh/path_mtu.ts";
import { planMesh } from "../src/mesh/mesh_plan.ts";
import { planTopology } from "../src/mesh/peer_reconciler.ts";
import { key, peerSeed, serverConfig, serverRow, setUp } from "./builders.ts";

Deno.test("meshMtuOf(): room for WireGuard over either family, whole paddings, within limits", () => {
  assert.equal(meshMtuOf(1500, "203.0.113.1:31820"), 1440);
  assert.equal(meshMtuOf(1500, "[2001:db8::1]:31820"), 1408);
  assert.equal(meshMtuOf(1492, "203.0.113.1:31820"), 1424, "PPPoE");
  assert.equal(meshMtuOf(9000, "203.0.113.1:31820"), MESH_MTU_MAX);
  assert.equal(meshMtuOf(576, "203.0.113.1:31820"), MESH_MTU_MIN);
  assert.deepEqual(sizesAbove(1280, 1320), [1296, 1312]);
  assert.deepEqual(sizesAbove(1280, 1280), []);
});

Deno.test("size probes: as large as they say, and nothing else is one", () => {
  for (const bytes of [MESH_MTU_MIN, 1440, MESH_MTU_MAX]) {
    const probe = encodeSize({ kind: "size", from: "s1", seq: 7, bytes });
    assert.equal(probe.length, bytes - 48);
    assert.deepEqual(decodeSize(probe), { kind: "size", from: "s1", seq: 7, bytes });
    assert.equal(decodeSize(probe.subarray(0, probe.length - 1)), undefined);
    const answer = encodeSize({ kind: "sized", from: "s1", seq: 7, bytes });
    assert.ok(answer.length < 100);
    assert.deepEqual(decodeSize(answer)?.bytes, bytes);
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 2_000 }), (bytes) => {
    decodeSize(bytes);
  }));
});

Deno.test("parseRouteGet(): interface, and what a router said of the way", () => {
  const cached = "203.0.113.9 via 10.0.0.1 dev eth0 src 10.0.0.5 uid 0 \n" +
    "    cache expires 590sec mtu 1400 \n";
  assert.deepEqual(parseRouteGet(cached), { device: "eth0", mtu: 1400 });
  const plain = "203.0.113.9 dev host0 src 203.0.113.11 uid 0 \n    cache \n";
  assert.deepEqual(parseRouteGet(plain), { device: "host0", mtu: undefined });
  assert.equal(parseRouteGet(""), undefined);
});

Deno.test("planMesh(): a block's route has the MTU of its way, an identity's the interface's", () => {
  const self = serverConfig(1);
  const topology = planTopology(self, { rows: [serverRow(2)], seeds: [], cache: [] }, new Set());
  const peer = { publicKey: key(2), endpoint: "203.0.113.12:31820", handshakeAtMs: 1, rxBytes: 0 };
  const wireguard = {
    publicKey: key(1),
    listenPort: 31820,
    peers: [{
      ...peer,
      txBytes: 0,
      keepaliveS: 25,
      allowedIps: ["10.210.2.0/24", "fdcc::2/128"],
    }],
  };
  const plan = (routes: string, mtu: Map<string, number>) =>
    planMesh(self, topology, { wireguard, routes: parseRoutes(routes), mtu })
      .map((step) => step.kind === "replaceRoute" ? `${step.prefix} ${step.mtu}` : step.kind);
  assert.deepEqual(plan("", new Map()), ["10.210.2.0/24 1280", "fdcc::2/128 undefined"]);
  const there = "10.210.2.0/24 scope link src 10.210.1.1 mtu 1440\nfdcc::2 metric 1024\n";
  assert.deepEqual(plan(there, new Map()), [], "before this daemon has looked, it stays");
  assert.deepEqual(plan(there, new Map([["s2", 1440]])), []);
  assert.deepEqual(plan(there, new Map([["s2", 1328]])), ["10.210.2.0/24 1328"]);
});

const SIGNAL = new AbortController().signal;

/** Two daemons and the way between them, which swallows outer packets that are too large. */
function twoDuties(options: { readonly interfaceMtu?: number } = {}) {
  const path = { carries: 1500, isDown: false };
  const inboxes = new Map<string, (message: { bytes: Uint8Array; hostname: string }) => void>();
  const waiting = new Map<string, { bytes: Uint8Array; hostname: string }[]>();
  const sent: number[] = [];
  const duties = [1, 2].map((index) => {
    const made = setUp({ config: serverConfig(index) });
    const other = 3 - index;
    made.context.facts.peers = [peerSeed(other)];
    made.context.facts.endpointsInUse = new Map([[`s${other}`, `203.0.113.${10 + other}:31820`]]);
    made.context.facts.interfaces = [
      { name: "eth0", mtu: options.interfaceMtu ?? 1500, addresses: [] },
      { name: "jiji0", mtu: 1280, addresses: [] },
    ];
    made.process.on("ip route get", `203.0.113.${10 + other} dev eth0 src 203.0.113.1 uid 0\n`)
      .on("ip link set", "");
    const bind: BindDatagram = ({ hostname }) => ({
      send: (bytes, to) => {
        sent.push(bytes.length + 48);
        if (path.isDown || bytes.length + 48 + 60 > path.carries) return Promise.resolve();
        const message = { bytes, hostname };
        const inbox = inboxes.get(to.hostname);
        inboxes.delete(to.hostname);
        if (inbox) inbox(message);
        else waiting.set(to.hostname, [...waiting.get(to.hostname) ?? [], message]);
        return Promise.resolve();
      },
      receive: () => {
        const next = waiting.get(hostname)?.shift();
        if (next) return Promise.resolve(next);
        return new Promise((resolve) => inboxes.set(hostname, resolve));
      },
      close: () => undefined,
    });
    return { ...made, duty: new PathMtuDuty(made.context, bind) };
  });
  const [one, two] = [duties[0]!, duties[1]!];
  const look = async () => {
    let isOver = false;
    await two.duty.run(AbortSignal.abort()).catch(() => undefined);
    const over = one.duty.run(SIGNAL).finally(() => isOver = true);
    for (let times = 0; times < 200 && !isOver; times++) await one.clock.advance(50);
    await over;
    return one.context.facts.mtu?.get("s2");
  };
  return { ...one, path, sent, look };
}

Deno.test("PathMtuDuty: the first look finds what the interface allows and what gets through", async () => {
  const { look, process, path } = twoDuties();
  assert.equal(await look(), 1440);
  assert.deepEqual(process.commands("ip link set"), ["ip link set dev jiji0 mtu 1440"]);
  path.carries = 1420;
  assert.equal(await look(), 1360, "a way that swallows what is too large, without a word");
  assert.equal(await look(), 1360);
});

Deno.test("PathMtuDuty: a smaller interface lowers the mesh's own", async () => {
  const { look, process } = twoDuties({ interfaceMtu: 1400 });
  assert.equal(await look(), 1328);
  assert.deepEqual(process.commands("ip link set"), ["ip link set dev jiji0 mtu 1328"]);
});

Deno.test("PathMtuDuty: a way that is down says nothing about its size", async () => {
  const { look, path } = twoDuties();
  assert.equal(await look(), 1440);
  path.isDown = true;
  assert.equal(await look(), 1440);
});

Deno.test("PathMtuDuty: a way that has become wider is found by and by, with few packets until then", async () => {
  const { look, path, clock, sent } = twoDuties();
  path.carries = 1420;
  assert.equal(await look(), 1360);
  path.carries = 1500;
  sent.length = 0;
  assert.equal(await look(), 1360);
  assert.ok(sent.length <= 2, `${sent.length} packets in a quiet look`);
  await clock.advance(31_000);
  assert.equal(await look(), 1440);
});
