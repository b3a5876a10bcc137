import assert from "node:assert/strict";
import { SERVER_PATHS } from "@jiji/core/cluster";
import { corrosionHttpApi } from "@jiji/core/corrosion";
import { systemClock } from "@jiji/core/runtime";
import { FakeCorrosion, FakeProcess } from "@jiji/core/testing";
import { addServer, listServers, removeServer } from "../src/commands/servers.ts";
import { FarewellDuty, MemoryDuty, StandDownDuty } from "../src/duties/removal.ts";
import {
  argvDropRule,
  believesFarewell,
  decodeFarewell,
  encodeFarewell,
  FAREWELL_KEY_FILE,
  FAREWELL_MS,
  isBack,
  parseDropRules,
  planFarewells,
} from "../src/farewell.ts";
import { parseWgDump } from "../src/mesh/wg_show.ts";
import {
  parseRemovedServers,
  parseRevivals,
  planMemory,
  REMOVED_FILE,
  REMOVED_MAX,
  renderRemovedServers,
  RESTORE_AFTER_MS,
  SELECT_REVIVALS,
  withRemembered,
} from "../src/state/removed_servers.ts";
import { container, FakeFiles, key, peerSeed, serverRow, setUp } from "./builders.ts";

const REMOVED = serverRow(3, { removedAtMs: 7_000 });
const SIGNAL = new AbortController().signal;

function memory(facts: Partial<Parameters<typeof planMemory>[0]> = {}) {
  return planMemory({
    self: "s1",
    removed: [REMOVED],
    rows: new Map([["s1", serverRow(1)]]),
    revived: new Map(),
    settled: true,
    ...facts,
  });
}

function rowsOf(...rows: ReturnType<typeof serverRow>[]) {
  return new Map(rows.map((row) => [row.id, row]));
}

Deno.test("parseRemovedServers(): round trip; other text gives none", () => {
  const again = parseRemovedServers(renderRemovedServers([REMOVED]));
  assert.deepEqual(again, [{ ...REMOVED, hostname: "", lastSeenMs: 0 }]);
  assert.deepEqual(parseRemovedServers("{"), []);
  assert.deepEqual(parseRemovedServers('{"format":1,"servers":[{"removed_at_ms":1}]}'), []);
});

Deno.test("planMemory(): learns from rows and writes again what the state lost", () => {
  const learned = memory({ removed: [], rows: rowsOf(serverRow(1), REMOVED) });
  assert.deepEqual(learned, { removed: [REMOVED], writes: [] });
  const lost = memory();
  assert.deepEqual(lost.removed, [REMOVED]);
  assert.equal(lost.writes.length, 2);
  assert.match(lost.writes[1]![0], /removed_at = \? WHERE id = \? AND removed_at IS NULL/);
  assert.deepEqual(memory({ settled: false }), { removed: [REMOVED], writes: [] });
  const wroteItself = memory({ rows: rowsOf(serverRow(1), serverRow(3)) });
  assert.equal(wroteItself.writes.length, 1);
});

Deno.test("planMemory(): a removed server marks its own row at once", () => {
  const own = memory({ self: "s3", rows: rowsOf(serverRow(3)), settled: false });
  assert.equal(own.writes.length, 1);
  assert.match(own.writes[0]![0], /^UPDATE servers SET removed_at/);
});

Deno.test("planMemory(): a server that was added again is forgotten, a doubtful one left alone", () => {
  const rows = rowsOf(serverRow(1), serverRow(3));
  assert.deepEqual(memory({ rows, revived: new Map([["s3", [7_000]]]) }), {
    removed: [],
    writes: [],
  });
  const other = memory({ rows, revived: new Map([["s3", [1]]]) });
  assert.deepEqual(other, { removed: [REMOVED], writes: [] });
  const newKey = rowsOf(serverRow(1), serverRow(3, { wireguardPubkey: key(9) }));
  assert.deepEqual(memory({ rows: newKey }), { removed: [], writes: [] });
  const many = Array.from(
    { length: REMOVED_MAX + 5 },
    (_, index) => serverRow(2, { id: `x${index}`, removedAtMs: index + 1 }),
  );
  assert.equal(memory({ removed: many, settled: false }).removed.length, REMOVED_MAX);
});

Deno.test("withRemembered(): a row wins over memory", () => {
  assert.deepEqual(withRemembered([serverRow(3)], [REMOVED]), [serverRow(3)]);
  assert.deepEqual(withRemembered([], [REMOVED]), [REMOVED]);
});

Deno.test("planFarewells(): of two that claim one address or one key the last removed is told", () => {
  const rows = [
    serverRow(3, { removedAtMs: 7_000 }),
    serverRow(4, { removedAtMs: 8_000, subnet: "10.210.3.0/24" }),
    serverRow(5, { removedAtMs: 9_000, wireguardPubkey: key(4) }),
  ];
  const o = { nowMs: 10_000, members: [], clusterCidr: "10.210.0.0/16" };
  assert.deepEqual(planFarewells(rows, o).map((one) => one.serverId), ["s5", "s3"]);
});

Deno.test("planFarewells(): for a while, and never for a key or block that a member has", () => {
  const plan = (nowMs: number, members = [peerSeed(2)]) =>
    planFarewells([serverRow(2), REMOVED], { nowMs, members, clusterCidr: "10.210.0.0/16" })
      .map((one) => one.address);
  assert.deepEqual(plan(8_000), ["10.210.3.1"]);
  assert.deepEqual(plan(7_001 + FAREWELL_MS), []);
  assert.deepEqual(plan(8_000, [peerSeed(4, { public_key: key(3) })]), []);
  assert.deepEqual(plan(8_000, [peerSeed(4, { block: "10.210.3.0/24" })]), []);
  const forged = serverRow(3, { removedAtMs: 7_000, subnet: "203.0.113.0/24" });
  const o = { nowMs: 8_000, members: [], clusterCidr: "10.210.0.0/16" };
  assert.deepEqual(planFarewells([forged], o), []);
});

Deno.test("believesFarewell(): a peer's word, to this server, when no member answers", () => {
  const bytes = encodeFarewell(
    planFarewells([REMOVED], {
      nowMs: 8_000,
      members: [],
      clusterCidr: "10.210.0.0/16",
    })[0]!,
  );
  const word = decodeFarewell(bytes);
  assert.ok(word);
  const o = {
    self: "s3",
    from: "10.210.1.1",
    peers: [peerSeed(1), peerSeed(2)],
    silent: new Set(["s1", "s2"]),
  };
  assert.equal(believesFarewell(word, o), true);
  assert.equal(believesFarewell(word, { ...o, self: "s2" }), false);
  assert.equal(believesFarewell(word, { ...o, from: "10.210.9.1" }), false);
  assert.equal(believesFarewell(word, { ...o, silent: new Set(["s1"]) }), false);
  for (const text of ["", "{}", '{"jiji":1,"kind":"removed","server":"; rm","removed_at_ms":1}']) {
    assert.equal(decodeFarewell(new TextEncoder().encode(text)), undefined);
  }
  assert.equal(decodeFarewell(new Uint8Array(100_000)), undefined);
});

Deno.test("parseDropRules(): our rules alone", () => {
  const rule = "-A PREROUTING -s 10.210.3.1/32 -i jiji0 -j DROP";
  assert.deepEqual(
    parseDropRules(`-P PREROUTING ACCEPT\n${rule}\n${rule.replace("jiji0", "eth0")}`),
    [
      "10.210.3.1",
    ],
  );
  assert.equal(
    argvDropRule("-I", "10.210.3.1").slice(5).join(" "),
    "-I PREROUTING -i jiji0 -s 10.210.3.1/32 -j DROP",
  );
});

function farewellProcess(rules = "") {
  const wg = `secret\t${key(1)}\t31820\toff\n` +
    `${key(3)}\t(none)\t203.0.113.13:31820\t10.210.3.0/24,fdcc::3/128\t1700001000\t1\t2\t25\n`;
  return new FakeProcess()
    .on("wg show jiji0 dump", wg)
    .on("wg set jiji0", "")
    .on("ip route", "")
    .on("iptables -w 5 -t raw -S PREROUTING", rules)
    .on("iptables -w 5 -t raw -I", "")
    .on("iptables -w 5 -t raw -D", "");
}

Deno.test("FarewellDuty: one address for the key, all from it dropped, and a word to it", async () => {
  const process = farewellProcess();
  const sent: [string, string][] = [];
  const { context } = setUp({ process });
  context.view.filled.servers = true;
  await context.files.replace(SERVER_PATHS.meshSecret, `${key(7)}\n`, { mode: 0o600 });
  context.facts.doc = { psk: "00112233aabbccdd" };
  const removedAtMs = context.clock.nowMs();
  context.view.servers.set("s3", serverRow(3, { removedAtMs, doc: context.facts.doc }));
  const duty = new FarewellDuty(context, () => ({
    send: (bytes, to) => {
      sent.push([to.hostname, new TextDecoder().decode(bytes)]);
      return Promise.resolve();
    },
    receive: () => new Promise(() => undefined),
    close: () => undefined,
  }));
  await duty.run(SIGNAL);
  assert.deepEqual(process.commands("iptables -w 5 -t raw -I").length, 1);
  assert.match(
    process.commands("wg set jiji0")[0]!,
    /farewell\.key allowed-ips 10\.210\.3\.1\/32$/,
  );
  assert.equal(await context.files.read(FAREWELL_KEY_FILE), "", "no key is left lying about");
  assert.deepEqual([...context.facts.told], [key(3)]);
  assert.equal(sent[0]?.[0], "10.210.3.1");
  assert.match(sent[0]?.[1] ?? "", /"server":"s3"/);
});

Deno.test("FarewellDuty: without the rule no key stays; rules of servers that are back go", async () => {
  const process = farewellProcess("-A PREROUTING -s 10.210.7.1/32 -i jiji0 -j DROP\n")
    .on("iptables -w 5 -t raw -I", () => ({ exitCode: 3, stderr: "no raw table" }));
  const { context } = setUp({ process });
  context.view.filled.servers = true;
  context.view.servers.set("s3", serverRow(3, { removedAtMs: context.clock.nowMs() }));
  const duty = new FarewellDuty(context, () => {
    throw new Error("no address");
  });
  await duty.run(SIGNAL);
  assert.equal(process.commands("wg set jiji0").length, 0);
  assert.equal(context.facts.told.size, 0);
  assert.equal(
    process.commands("iptables -w 5 -t raw -D")[0]!.includes("10.210.7.1"),
    true,
  );
});

Deno.test("FarewellDuty: one that failed half way leaves no rule against a server that is back", async () => {
  const process = farewellProcess("-A PREROUTING -s 10.210.3.1/32 -i jiji0 -j DROP\n")
    .on("wg set jiji0", () => ({ exitCode: 1, stderr: "no such device" }));
  const { context } = setUp({ process });
  context.view.filled.servers = true;
  const duty = new FarewellDuty(context, () => {
    throw new Error("no address");
  });
  // Before: nothing is to be told, and that is arranged.
  await duty.run(SIGNAL);
  context.view.servers.set("s3", serverRow(3, { removedAtMs: context.clock.nowMs() }));
  await assert.rejects(duty.run(SIGNAL), /no such device/);
  context.view.servers.set("s3", serverRow(3));
  const before = process.commands("iptables -w 5 -t raw -D").length;
  await duty.run(SIGNAL);
  assert.equal(process.commands("iptables -w 5 -t raw -D").length, before + 1);
});

/** WireGuard with what a farewell leaves of s3; its last handshake in Unix seconds. */
const narrowed = (handshakeAtSeconds = 0) =>
  parseWgDump(
    `secret\t${key(1)}\t31820\toff\n${key(3)}\t(none)\t203.0.113.13:31820\t10.210.3.1/32\t` +
      `${handshakeAtSeconds}\t1\t2\t25\n`,
  );

Deno.test("FarewellDuty: while all is in place a round starts no process, and tells who is back", async () => {
  const process = farewellProcess();
  const sent: string[] = [];
  const { context, clock } = setUp({ process });
  context.view.filled.servers = true;
  context.view.servers.set("s3", serverRow(3, { removedAtMs: clock.nowMs() }));
  const duty = new FarewellDuty(context, () => ({
    send: (_, to) => {
      sent.push(to.hostname);
      return Promise.resolve();
    },
    receive: () => new Promise(() => undefined),
    close: () => undefined,
  }));
  await duty.run(SIGNAL);
  context.facts.wireguard = narrowed();
  context.facts.dropRules = ["10.210.3.1"];
  const started = process.commands("").length;
  sent.length = 0;
  for (let round = 0; round < 100; round++) {
    await clock.advance(5_000);
    await duty.run(SIGNAL);
  }
  assert.equal(process.commands("").length, started);
  assert.deepEqual(sent, [], "it is not there");
  context.facts.wireguard = narrowed(Math.floor(clock.nowMs() / 1_000));
  await duty.run(SIGNAL);
  assert.deepEqual(sent, ["10.210.3.1"]);
  context.facts.dropRules = [];
  await clock.advance(5_000);
  await duty.run(SIGNAL);
  assert.equal(process.commands("iptables -w 5 -t raw -I").length, 2, "a lost rule is put back");
});

Deno.test("FarewellDuty: what cannot be mended is tried ever more rarely", async () => {
  const process = farewellProcess()
    .on("iptables -w 5 -t raw -I", () => ({ exitCode: 3, stderr: "no raw table" }));
  const { context, clock } = setUp({ process });
  context.view.filled.servers = true;
  context.view.servers.set("s3", serverRow(3, { removedAtMs: clock.nowMs() }));
  const duty = new FarewellDuty(context, () => {
    throw new Error("no address");
  });
  const tries = () => process.commands("iptables -w 5 -t raw -I").length;
  for (let round = 0; round < 720; round++) {
    await duty.run(SIGNAL);
    await clock.advance(5_000);
  }
  assert(tries() > 10 && tries() < 20, `${tries()} tries in an hour`);
  context.view.servers.set("s4", serverRow(4, { removedAtMs: clock.nowMs() }));
  const before = tries();
  await duty.run(SIGNAL);
  assert.equal(tries(), before + 2, "news is acted on at once");
});

Deno.test("isBack(): a new handshake of a key that is told, not one that was seen before", () => {
  const told = new Set([key(3)]);
  const now = narrowed(7);
  assert(isBack(told, { before: undefined, now }));
  assert(isBack(told, { before: narrowed(6), now }));
  assert(!isBack(told, { before: now, now }));
  assert(!isBack(new Set(), { before: undefined, now }));
  assert(!isBack(told, { before: undefined, now: narrowed() }));
});

Deno.test("MemoryDuty: remembers on disk, and restores after a minute of a whole state", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  const { context, clock } = setUp({ api });
  context.view.filled.servers = true;
  context.view.servers.set("s3", REMOVED);
  const duty = new MemoryDuty(context);
  await duty.run();
  assert.match(await context.files.read(REMOVED_FILE) ?? "", /"s3"/);
  context.view.servers.clear();
  await duty.run();
  assert.deepEqual(await listServers(api), []);
  await clock.advance(
    RESTORE_AFTER_MS,
  );
  await duty.run();
  const [row] = await listServers(api);
  assert.equal(row?.id, "s3");
  assert.equal(row?.removedAtMs, 7_000);
});

Deno.test("StandDownDuty: stops the containers once, after the others had time to drop them", async () => {
  const process = new FakeProcess().on("docker stop", "");
  const { context, clock } = setUp({ process });
  context.facts.standsDown = true;
  context.facts.containers = [container(1), container(2, { running: false })];
  const duty = new StandDownDuty(context);
  await duty.run(SIGNAL);
  assert.equal(process.commands("docker stop").length, 0);
  await clock.advance(60_000);
  await duty.run(SIGNAL);
  await duty.run(SIGNAL);
  assert.deepEqual(process.commands("docker stop").map((line) => line.split(" ").at(-1)), [
    container(1).id,
  ]);
});

Deno.test("addServer(): says that it took back a removal", async () => {
  await using fake = new FakeCorrosion();
  const ports = { api: corrosionHttpApi(fake.address), clock: systemClock };
  await addServer(serverRow(3), ports);
  assert.equal(parseRevivals(await ports.api.query(SELECT_REVIVALS)).size, 0);
  await removeServer({ id: "s3" }, { ...ports, files: new FakeFiles() });
  const removedAtMs = (await listServers(ports.api))[0]?.removedAtMs;
  await addServer(serverRow(3), ports);
  assert.deepEqual(parseRevivals(await ports.api.query(SELECT_REVIVALS)).get("s3"), [removedAtMs]);
});
