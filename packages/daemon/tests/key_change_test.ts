import assert from "node:assert/strict";
import {
  makeMeshSecret,
  meshSecretId,
  pairKey,
  parseMeshSecret,
  parsePeerSeeds,
} from "@jiji/core/cluster";
import { parseServerRow, serverCells } from "@jiji/core/corrosion";
import { managementIp } from "@jiji/core/net";
import { Secret } from "@jiji/core/runtime";
import { tellDoc } from "../src/daemon_context.ts";
import { HeartbeatDuty } from "../src/duties/heartbeat.ts";
import { ownRow } from "../src/state/corrosion_client.ts";
import { KeyChangeDuty } from "../src/duties/key_change.ts";
import {
  changingBefore,
  isChangeDue,
  missingAccepts,
  movedPeers,
  planFollow,
  withIdentities,
  withKey,
} from "../src/mesh/key_change.ts";
import { argvMeshStep, type MeshObserved, planMesh } from "../src/mesh/mesh_plan.ts";
import {
  deadForMs,
  keysOf,
  type PskFacts,
  wantedPsk,
  watchSessions,
} from "../src/mesh/sessions.ts";
import { allowedIps, planTopology } from "../src/mesh/peer_reconciler.ts";
import type { WireguardPeer } from "../src/mesh/wg_show.ts";
import { key, peerSeed, serverConfig, serverRow, setUp } from "./builders.ts";

const SECRET = makeMeshSecret(new Uint8Array(32).fill(7));
const SECRET_ID = await meshSecretId(SECRET);

function wgPeer(publicKey: string, facts: Partial<WireguardPeer> = {}): WireguardPeer {
  return {
    publicKey,
    endpoint: "203.0.113.12:31820",
    allowedIps: allowedIps(peerSeed(2)),
    handshakeAtMs: 1_000,
    rxBytes: 0,
    txBytes: 0,
    keepaliveS: 25,
    ...facts,
  };
}

Deno.test("mesh secret: one key a pair, whoever asks; its name tells nothing", async () => {
  assert.equal(parseMeshSecret(`${SECRET.reveal()}\n`)?.reveal(), SECRET.reveal());
  for (const text of ["", "secret", "; reboot", SECRET.reveal().slice(1)]) {
    assert.equal(parseMeshSecret(text), undefined);
  }
  const [one, other, third] = await Promise.all([
    pairKey(SECRET, "s1", "s2"),
    pairKey(SECRET, "s2", "s1"),
    pairKey(SECRET, "s1", "s3"),
  ]);
  assert.equal(one.reveal(), other.reveal());
  assert.notEqual(one.reveal(), third.reveal());
  assert.match(SECRET_ID, /^[a-f0-9]{16}$/);
  assert.notEqual(SECRET_ID, await meshSecretId(makeMeshSecret(new Uint8Array(32).fill(8))));
});

/** A server's view of one other, for {@link wantedPsk}. */
function pskFacts(facts: Partial<PskFacts> & { readonly deadMs?: number | undefined }): PskFacts {
  const { deadMs, ...rest } = facts;
  const nowMs = 1_000_000;
  const session = deadMs === undefined
    ? { handshakeAtMs: 1, sinceMs: nowMs - 1_000 }
    : { handshakeAtMs: undefined, sinceMs: nowMs - deadMs };
  return {
    self: "s1",
    secretId: SECRET_ID,
    pairKeys: new Map([["s2", new Secret("pair")], ["s1", new Secret("pair")]]),
    sessions: new Map([[key(2), session], [key(1), session]]),
    nowMs,
    ...rest,
  };
}

Deno.test("wantedPsk(): only with a secret that both are known to have", () => {
  const knows = peerSeed(2, { psk: SECRET_ID });
  assert.equal(wantedPsk(knows, pskFacts({}))?.reveal(), "pair");
  assert.equal(wantedPsk(peerSeed(2), pskFacts({})), undefined);
  assert.equal(wantedPsk(peerSeed(2, { psk: "0".repeat(16) }), pskFacts({})), undefined);
  assert.equal(wantedPsk(knows, pskFacts({ secretId: undefined })), undefined);
});

Deno.test("wantedPsk(): whatever each side believes and whenever it began, a dead pair meets within 100 s", () => {
  for (const believes of [[true, false], [false, true], [true, true], [false, false]]) {
    for (let offsetMs = 0; offsetMs < 160_000; offsetMs += 3_700) {
      const seeds = [2, 1].map((index, side) =>
        peerSeed(index, believes[side] ? { psk: SECRET_ID } : {})
      );
      let agreedMs = 0;
      let metAfterMs: number | undefined;
      for (let ms = 0; ms < 200_000 && metAfterMs === undefined; ms += 500) {
        const one = wantedPsk(seeds[0]!, pskFacts({ deadMs: ms }));
        const two = wantedPsk(seeds[1]!, pskFacts({ self: "s2", deadMs: ms + offsetMs }));
        agreedMs = (one === undefined) === (two === undefined) ? agreedMs + 500 : 0;
        // WireGuard tries a handshake every 5 s.
        if (agreedMs >= 6_000) metAfterMs = ms;
      }
      assert.ok((metAfterMs ?? Infinity) <= 100_000, `${believes} ${offsetMs}: ${metAfterMs}`);
    }
  }
});

Deno.test("deadForMs(): by our own clock; a clock that jumps kills no session", () => {
  const state = (handshakeAtMs: number | undefined) => ({
    publicKey: key(1),
    listenPort: 1,
    peers: [wgPeer(key(2), { handshakeAtMs })],
  });
  let sessions = watchSessions(new Map(), state(1), 900_000);
  assert.equal(deadForMs(sessions.get(key(2)), 901_000), undefined, "an old stamp, seen just now");
  sessions = watchSessions(sessions, state(1), 1_000_000);
  assert.equal(deadForMs(sessions.get(key(2)), 1_090_000), 10_000);
  sessions = watchSessions(sessions, state(2), 1_090_000);
  assert.equal(deadForMs(sessions.get(key(2)), 1_091_000), undefined);
  const never = watchSessions(new Map(), state(undefined), 0);
  assert.equal(deadForMs(never.get(key(2)), 7_000), 7_000);
});

const SELF = serverConfig(1);
const CHANGING = serverRow(2, { doc: { next_key: key(22) } });
const IDENTITIES = new Map([[key(22), "fdcc::22"]]);

function plan(peers: readonly WireguardPeer[], routes: Map<string, number> = new Map()) {
  const topology = planTopology(SELF, { rows: [CHANGING], seeds: [], cache: [] }, new Set());
  const observed: MeshObserved = {
    wireguard: { publicKey: key(1), listenPort: 31820, peers },
    routes: routes.size > 0
      ? routes
      : new Map([["10.210.2.0/24", 0], ["fdcc::2/128", 0], ["fdcc::22/128", 0]]),
    identities: IDENTITIES,
  };
  return planMesh(SELF, topology, observed).map((step) => argvMeshStep(step, "jiji0").join(" "));
}

Deno.test("planMesh(): a next key becomes a peer beside the present one, for its identity alone", () => {
  assert.deepEqual(plan([wgPeer(key(2))]), [
    `wg set jiji0 peer ${key(22)} persistent-keepalive 5 endpoint 203.0.113.12:31820 ` +
    "allowed-ips fdcc::22/128",
  ]);
  const routes = new Map([["10.210.2.0/24", 0], ["fdcc::2/128", 0]]);
  assert.ok(plan([wgPeer(key(2))], routes).includes("ip -6 route replace fdcc::22/128 dev jiji0"));
});

Deno.test("planMesh(): the block moves to the key that shook hands last, and back", () => {
  const present = wgPeer(key(2));
  const next = wgPeer(key(22), {
    handshakeAtMs: undefined,
    allowedIps: ["fdcc::22/128"],
    keepaliveS: 5,
  });
  assert.deepEqual(plan([present, next]), []);
  assert.deepEqual(plan([present, { ...next, handshakeAtMs: 2_000 }]), [
    `wg set jiji0 peer ${key(22)} persistent-keepalive 5 allowed-ips 10.210.2.0/24,fdcc::22/128`,
    `wg set jiji0 peer ${key(2)} persistent-keepalive 25 allowed-ips fdcc::2/128`,
  ]);
  const moved = [
    { ...present, allowedIps: ["fdcc::2/128"] },
    { ...next, handshakeAtMs: 2_000, allowedIps: ["10.210.2.0/24", "fdcc::22/128"] },
  ];
  assert.deepEqual(plan(moved), []);
  const back = [{ ...moved[0]!, handshakeAtMs: 3_000 }, moved[1]!];
  assert.match(plan(back)[0]!, new RegExp(`peer ${key(2).slice(0, 8)}.* allowed-ips 10.210.2.0`));
});

Deno.test("planTopology(): a changed key ends the former one and its identity; a withdrawn one goes", () => {
  const former = peerSeed(2, { next_key: key(22) });
  const changed = serverRow(2, { wireguardPubkey: key(22), managementIp: "fdcc::22" });
  const after = planTopology(SELF, { rows: [changed], seeds: [], cache: [former] }, new Set());
  assert.deepEqual(after.gone.map((one) => one.publicKey), [key(2)]);
  assert.deepEqual(after.gonePrefixes, ["fdcc::2/128"]);
  const withdrawn = { rows: [serverRow(2)], seeds: [], cache: [former] };
  assert.deepEqual(planTopology(SELF, withdrawn, new Set()).gone.map((one) => one.publicKey), [
    key(22),
  ]);
  const offline = planTopology(SELF, { rows: [], seeds: [], cache: [former] }, new Set());
  assert.equal(offline.peers[0]?.next_key, key(22), "it is known also without Corrosion");
});

Deno.test("planTopology(): nobody's key becomes another's next key", () => {
  const thief = serverRow(3, { doc: { next_key: key(2) } });
  const own = serverRow(4, { doc: { next_key: SELF.wireguard_public_key } });
  const known = { rows: [serverRow(2), thief, own], seeds: [], cache: [] };
  assert.deepEqual(planTopology(SELF, known, new Set()).peers.map((peer) => peer.next_key), [
    undefined,
    undefined,
    undefined,
  ]);
});

Deno.test("keysOf(): a key that never shook hands holds nothing", () => {
  const wireguard = { publicKey: key(1), listenPort: 1, peers: [wgPeer(key(2))] };
  const peer = peerSeed(2, { next_key: key(22) });
  assert.deepEqual(keysOf(peer, wireguard), { keys: [key(2), key(22)], active: key(2) });
});

Deno.test("missingAccepts(): every member but the server itself and removed ones", () => {
  const accepts = { accepts: [key(22)] };
  const rows = [
    serverRow(1, { doc: accepts }),
    CHANGING,
    serverRow(3),
    serverRow(4, { removedAtMs: 5 }),
  ];
  const wish = { self: "s2", nextKey: key(22), peers: [peerSeed(1), peerSeed(3)] };
  assert.deepEqual(missingAccepts(rows, wish), ["s3"]);
  assert.deepEqual(missingAccepts([CHANGING], wish), ["s1", "s3"], "a lost row is no consent");
  assert.equal(isChangeDue(rows, [peerSeed(2, { next_key: key(22) })]), false);
  rows[2] = serverRow(3, { doc: accepts });
  assert.equal(isChangeDue(rows, [peerSeed(2, { next_key: key(22) })]), true);
});

Deno.test("changingBefore(): of servers that want to change, the first by name goes first", () => {
  const wants = (index: number) => serverRow(index, { doc: { next_key: key(20 + index) } });
  const rows = [wants(1), wants(2), serverRow(3), wants(4)];
  assert.deepEqual(changingBefore(rows, "s1"), []);
  assert.deepEqual(changingBefore(rows, "s4"), ["s1", "s2"]);
});

Deno.test("files: another key changes its two fields, and identities nothing but themselves", () => {
  const text = JSON.stringify(SELF, null, 2) + "\n";
  const changed = withKey(text, { publicKey: key(9), managementIp: "fdcc::9" });
  assert.equal(
    changed,
    text.replace(key(1), key(9)).replace(
      '"management_ip": "fdcc::1"',
      '"management_ip": "fdcc::9"',
    ),
  );
  const toml = 'bootstrap = ["[fdcc::1]:31280","[fdcc::12]:31280","[fdcc::1:2]:1"]';
  assert.equal(
    withIdentities(toml, new Map([["fdcc::1", "fdcc::9"]])),
    toml.replace("[fdcc::1]", "[fdcc::9]"),
  );
});

Deno.test("planFollow(): seeds take over keys of rows, once", () => {
  const seeds = [peerSeed(2), peerSeed(3)];
  const row = serverRow(2, { wireguardPubkey: key(22), managementIp: "fdcc::22" });
  const plan = planFollow(seeds, [row, serverRow(3)], []);
  assert.deepEqual([...plan.identities], [["fdcc::2", "fdcc::22"]]);
  assert.equal(
    planFollow(parsePeerSeeds(plan.seeds ?? ""), [row, serverRow(3)], []).seeds,
    undefined,
  );
  assert.equal(planFollow(seeds, [], []).seeds, undefined, "absence is no evidence");
});

Deno.test("movedPeers(): who was heard with its next key is followed before its row comes", () => {
  const peer = peerSeed(2, { next_key: key(22) });
  const heard = wgPeer(key(22), { handshakeAtMs: 2_000 });
  const moved = (peers: WireguardPeer[]) =>
    movedPeers([peer], { publicKey: key(1), listenPort: 1, peers }, IDENTITIES);
  assert.deepEqual(moved([wgPeer(key(2))]), []);
  assert.deepEqual(moved([wgPeer(key(2)), heard]), [
    { serverId: "s2", former: "fdcc::2", present: "fdcc::22" },
  ]);
  const plan = planFollow([], [CHANGING], moved([wgPeer(key(2)), heard]));
  assert.deepEqual([...plan.identities], [["fdcc::2", "fdcc::22"]]);
});

Deno.test("parseServerRow(): a key that came before its column counts, with its identity", () => {
  const cells = [...serverCells(serverRow(2)), null];
  cells[8] = JSON.stringify({ key: key(22), identity: "fdcc::22" });
  const row = parseServerRow(cells);
  assert.ok(!("refused" in row));
  assert.deepEqual([row.wireguardPubkey, row.managementIp], [key(22), "fdcc::22"]);
});

const SIGNAL = new AbortController().signal;
const NEXT = "/etc/jiji/wireguard.key.next";

async function changing(addresses = "") {
  const made = setUp();
  const { process, files, context } = made;
  const place = JSON.stringify(context.config, null, 2) + "\n";
  files.texts.set("/etc/jiji/server.json", place);
  files.texts.set("/etc/jiji/corrosion.toml", 'addr = "[fdcc::1]:31280"\n');
  files.texts.set("/etc/wireguard/jiji0.conf", "Address = 10.210.1.1/32, fdcc::1/128\n");
  files.texts.set(NEXT, "private\n");
  const present = await managementIp(key(11));
  process
    .on("wg pubkey", (_, options) => options.stdin === "private\n" ? `${key(11)}\n` : "")
    .on("ip -o -6 addr show", () => addresses)
    .on("ip -6 addr replace", "")
    .on("ip -6 addr del", "")
    .on("wg set jiji0 private-key", "")
    .on("systemctl restart jiji-corrosion.service", "")
    .on("mv -f", () => {
      files.texts.delete(NEXT);
      return "";
    });
  context.view.filled.servers = true;
  context.facts.isMeshKnown = true;
  return { ...made, present, duty: new KeyChangeDuty(context) };
}

Deno.test("KeyChangeDuty: announces, waits for every member, changes over once", async () => {
  const former = "4: jiji0 inet6 fdcc::1/128 scope global \\n";
  const { duty, context, process, files, present } = await changing(former);
  await duty.run(SIGNAL);
  assert.equal(context.facts.doc?.next_key, key(11));
  const own = serverRow(1, { doc: { next_key: key(11) } });
  context.view.servers.set("s1", own);
  context.view.servers.set("s2", serverRow(2));
  await duty.run(SIGNAL);
  assert.deepEqual(process.commands("wg set"), [], "s2 does not know the key yet");
  context.view.servers.set("s2", serverRow(2, { doc: { accepts: [key(11)] } }));
  await duty.run(SIGNAL);
  assert.deepEqual(process.commands("wg set"), [`wg set jiji0 private-key ${NEXT}`]);
  assert.deepEqual(process.commands("mv"), [`mv -f ${NEXT} /etc/jiji/wireguard.key`]);
  assert.equal(context.config.wireguard_public_key, key(11));
  assert.equal(context.config.management_ip, present);
  assert.equal(context.facts.doc?.next_key, undefined);
  for (const path of ["/etc/jiji/corrosion.toml", "/etc/wireguard/jiji0.conf"]) {
    assert.ok(files.texts.get(path)?.includes(present), path);
  }
  assert.deepEqual(process.commands("ip -6 addr del"), ["ip -6 addr del fdcc::1/128 dev jiji0"]);
  assert.equal(process.commands("systemctl restart").length, 1);
  await duty.run(SIGNAL);
  assert.equal(process.commands("systemctl restart").length, 1);
});

Deno.test("KeyChangeDuty: a change that was cut off after its files is finished without asking", async () => {
  const { duty, context, process, present } = await changing();
  context.config = serverConfig(1, { wireguard_public_key: key(11), management_ip: present });
  context.view.filled.servers = false;
  await duty.run(SIGNAL);
  assert.equal(process.commands("wg set").length, 1);
  assert.equal(process.commands("mv").length, 1);
});

Deno.test("KeyChangeDuty: a file that holds no key is named, and nothing is changed", async () => {
  const { duty, files, process } = await changing();
  files.texts.set(NEXT, "rubbish\n");
  process.on("wg pubkey", () => ({ exitCode: 1, stderr: "Key is not the correct length" }));
  await assert.rejects(duty.run(SIGNAL), /wireguard.key.next holds no WireGuard key/);
  assert.equal(process.commands("wg set").length, 0);
});

Deno.test("HeartbeatDuty: rows of others make nobody write; a beat that is due and a wrong row do", async () => {
  const written: string[] = [];
  const { context, clock } = setUp({
    api: {
      execute: (statements) => {
        written.push(statements[0]?.[0].slice(0, 6) ?? "");
        return Promise.resolve();
      },
      query: () => Promise.resolve([]),
    },
  });
  const { view, config } = context;
  view.filled.servers = true;
  const duty = new HeartbeatDuty(context, "host1");
  await duty.run();
  const own = ownRow(config, { hostname: "host1", nowMs: clock.nowMs() });
  view.servers.set(own.id, { ...own, removedAtMs: null });
  view.servers.set("s2", serverRow(2));
  assert.equal(await duty.run(), 10_000, "so long until the next beat");
  assert.deepEqual(written, ["INSERT"]);
  view.servers.set(own.id, { ...own, endpoints: [], removedAtMs: null });
  await duty.run();
  view.servers.set(own.id, { ...own, removedAtMs: null });
  await clock.advance(10_000);
  await duty.run();
  assert.deepEqual(written, ["INSERT", "INSERT", "UPDATE"]);
});

Deno.test("HeartbeatDuty: a restarted daemon keeps in its row what no duty has looked at yet", async () => {
  const written: string[] = [];
  const { context } = setUp({
    api: {
      execute: (statements) => {
        written.push(JSON.stringify(statements[0]?.[1]));
        return Promise.resolve();
      },
      query: () => Promise.resolve([]),
    },
  });
  context.view.filled.servers = true;
  const doc = { psk: SECRET_ID, next_key: key(11), version: "0.0.1", key: key(99) };
  context.view.servers.set("s1", serverRow(1, { doc }));
  await new HeartbeatDuty(context, "host1").run();
  assert.ok(written[0]?.includes(SECRET_ID) && written[0].includes(key(11)), written[0]);
  assert.ok(!written[0]?.includes(key(99)), "but its key is that of its configuration");
  tellDoc(context.facts, { psk: undefined, next_key: undefined });
  await new HeartbeatDuty(context, "host1").run();
  assert.ok(!written[1]?.includes(SECRET_ID) && !written[1]?.includes(key(11)), written[1]);
});
