/** The threads' answers: equal to the main thread's, whatever is asked and however it changes. */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { ContainerRow } from "@jiji/core/corrosion";
import { silentLogger, systemClock } from "@jiji/core/runtime";
import { differenceOf, ReaderProbe } from "../fuzz/thread.ts";
import { DnsCache } from "../src/dns_cache.ts";
import { encodeQuery } from "../src/dns_encode.ts";
import { parseMessage } from "../src/dns_message.ts";
import { TYPE } from "../src/dns_protocol.ts";
import { DnsServer } from "../src/dns_server.ts";
import { Forwarder } from "../src/forwarder.ts";
import {
  ADDRESSES_MAX,
  AnswerTable,
  ENTRIES_MAX,
  type TableEntry,
} from "../src/udp/answer_table.ts";

const ZONE = { domain: "jiji", clusterCidr: "10.210.0.0/16", serverId: "s1" };

function pair(): { cache: DnsCache; probe: ReaderProbe; main: DnsServer } {
  const cache = new DnsCache();
  const probe = new ReaderProbe({ cache, zone: ZONE });
  cache.onChange = (keys) => probe.table.update(keys);
  const main = new DnsServer({
    zone: ZONE,
    cache,
    forwarder: new Forwarder({
      resolvers: () => Promise.resolve([]),
      upstream: { udp: () => Promise.reject(), tcp: () => Promise.reject() },
      clock: systemClock,
      randomId: () => 1,
      logger: silentLogger,
    }),
    clock: systemClock,
    logger: silentLogger,
    signal: new AbortController().signal,
  });
  return { cache, probe, main };
}

function row(facts: Partial<ContainerRow>): ContainerRow {
  const project = facts.project ?? "casa";
  const service = facts.service ?? "api";
  return {
    id: "0",
    project,
    service,
    serverId: "s1",
    instance: "s1",
    name: `${project}-${service}`,
    version: "1",
    ip: "10.210.1.4",
    ports: [],
    startedAtMs: 1,
    health: "healthy",
    unhealthySinceMs: null,
    ...facts,
  };
}

/** Words that are easily taken for each other once joined with `-` or `.`. */
const WORD = fc.constantFrom("a", "b", "a-b", "b-a", "nearest", "a_b", "casa", "s1");
const NAME = fc.array(
  fc.constantFrom(
    "a",
    "b",
    "a-b",
    "b-a",
    "a-b-s1",
    "b-s1-2",
    "nearest",
    "_tcp",
    "casa",
    "A_b",
    "s1",
  ),
  { minLength: 1, maxLength: 4 },
);

Deno.test("TableReader.answer(): gives the main thread's octets, whatever is asked of whatever there is", () => {
  const { cache, probe, main } = pair();
  cache.replaceServers([], 0);
  cache.replaceContainers([], 0);
  let answered = 0;
  const change = fc.record({
    id: fc.nat(12).map(String),
    project: WORD,
    service: WORD,
    serverId: fc.constantFrom("s1", "s2", "s3"),
    nth: fc.constantFrom("", "-2"),
    health: fc.constantFrom("healthy", "degraded", "unhealthy" as const),
    octet: fc.nat(200),
    isGone: fc.boolean(),
    silent: fc.subarray(["s1", "s2"]),
  });
  const question = fc.record({
    labels: NAME,
    domain: fc.constantFrom("jiji", "jiji", "JiJi", "jiji", "jijo", "jiji.jiji"),
    type: fc.constantFrom(TYPE.A, TYPE.A, TYPE.AAAA, TYPE.TXT, TYPE.SRV),
    edns: fc.boolean(),
    tweak: fc.option(fc.tuple(fc.nat(60), fc.nat(255)), { freq: 4 }),
  });
  const step = fc.tuple(change, fc.array(question, { maxLength: 12 }));
  fc.assert(
    fc.property(fc.array(step, { minLength: 4, maxLength: 12 }), (steps) => {
      for (const [one, questions] of steps) {
        const { id, isGone, octet, nth, silent, ...facts } = one;
        const instance = `${facts.serverId}${nth}`;
        if (isGone) cache.removeContainer(id);
        else cache.putContainer(row({ ...facts, id, instance, ip: `10.210.1.${octet}` }));
        cache.setSilent(new Set(silent));
        for (const { labels, domain, type, edns, tweak } of questions) {
          const name = [...labels, domain].join(".");
          const packet = encodeQuery(7, { name, type, edns });
          if (tweak && tweak[0] >= 2 && tweak[0] < packet.length) packet[tweak[0]] = tweak[1];
          const thread = probe.answer(packet);
          if (!thread) continue;
          answered += 1;
          const expected = main.respond(packet, "udp");
          assert.ok(!(expected instanceof Promise), `${name} is for another resolver`);
          assert.equal(differenceOf(thread, expected), undefined, `${name} ${packet.toHex()}`);
        }
      }
    }),
    { numRuns: 400 },
  );
  assert.ok(answered > 1_500, `only ${answered} were answered by the thread`);
});

Deno.test("TableReader.answer(): every common question of a resolver is the thread's", () => {
  const { cache, probe } = pair();
  const ask = (name: string, type: number = TYPE.A) =>
    parseMessage(probe.answer(encodeQuery(1, { name, type })) ?? new Uint8Array());
  assert.equal(ask("casa-api.jiji"), undefined, "nothing is known yet");
  cache.replaceContainers([row({})], 0);
  assert.equal(ask("nope.jiji"), undefined, "half is known");
  cache.replaceServers([], 0);
  for (const name of ["casa-api", "api.casa", "nearest.casa-api", "nearest.api.casa"]) {
    assert.equal(ask(`${name}.jiji`)?.records[0]?.type, TYPE.A, name);
    assert.equal(ask(`${name}.jiji`, TYPE.AAAA)?.rcode, 0, name);
  }
  assert.equal(ask("casa.jiji")?.rcode, 0, "a project has names below it");
  for (const name of ["nope", "example.com.casa", "com", "casa.casa", "api.nope"]) {
    if (name.split(".").length < 3) assert.equal(ask(`${name}.jiji`)?.rcode, 3, name);
    else assert.equal(ask(`${name}.jiji`), undefined, name);
  }
});

Deno.test("TableReader.answer(): scaled instances all answer, nearest are this server's", () => {
  const { cache, probe, main } = pair();
  cache.replaceServers([], 0);
  const rows = ["s1", "s1-2", "s1-3", "s2", "s2-2"].map((instance, index) =>
    row({ id: `${index}`, instance, serverId: instance.slice(0, 2), ip: `10.210.1.${index + 2}` })
  );
  cache.replaceContainers(rows, 0);
  const count = (name: string) => {
    const packet = encodeQuery(1, { name, type: TYPE.A });
    const thread = probe.answer(packet);
    assert.equal(
      thread && differenceOf(thread, main.respond(packet, "udp") as Uint8Array),
      undefined,
    );
    return parseMessage(thread ?? new Uint8Array())?.records.filter((one) =>
      one.section === "answer"
    ).length;
  };
  assert.equal(count("casa-api.jiji"), 5);
  assert.equal(count("nearest.casa-api.jiji"), 3);
  assert.equal(count("casa-api-s1-2.jiji"), 1);
  assert.equal(count("api-s2-2.casa.jiji"), 1);
  cache.setSilent(new Set(["s2"]));
  assert.equal(count("casa-api.jiji"), 3, "a silent server takes all its instances along");
  cache.setSilent(new Set(["s1"]));
  assert.equal(count("nearest.casa-api.jiji"), 2, "without its own, the others");
});

Deno.test("TableReader.answer(): what does not fit is cut with TC, larger services are the main thread's", () => {
  const { cache, probe, main } = pair();
  cache.replaceServers([], 0);
  const rows = Array.from(
    { length: ADDRESSES_MAX + 1 },
    (_, index) =>
      row({
        id: `${index}`,
        instance: `s${index}`,
        serverId: `s${index}`,
        ip: `10.210.2.${index}`,
      }),
  );
  cache.replaceContainers(rows.slice(0, 100), 0);
  for (const edns of [true, false]) {
    const packet = encodeQuery(1, { name: "casa-api.jiji", type: TYPE.A, edns });
    const answer = probe.answer(packet);
    assert.ok(answer);
    assert.equal(parseMessage(answer)?.truncated, true);
    assert.equal(differenceOf(answer, main.respond(packet, "udp") as Uint8Array), undefined);
  }
  cache.replaceContainers(rows, 0);
  assert.equal(probe.answer(encodeQuery(1, { name: "casa-api.jiji", type: TYPE.A })), undefined);
});

Deno.test("AnswerTable: any changes in any order leave what was put last", () => {
  const table = new AnswerTable();
  table.open();
  const entry = (count: number): TableEntry => ({
    addresses: Array.from({ length: count }, (_, index) => index),
    near: 0,
    project: "p",
    isName: true,
    isProject: false,
  });
  const wanted = new Set<string>();
  const random = fc.sample(fc.tuple(fc.nat(400), fc.nat(90)), { numRuns: 20_000, seed: 7 });
  for (const [name, count] of random) {
    const key = `p-${name}`;
    table.put(key, count < 40 ? undefined : entry(count - 40));
    if (count < 40) wanted.delete(key);
    else wanted.add(key);
    assert.equal(table.size, wanted.size);
  }
  for (const key of wanted) table.put(key, undefined);
  assert.equal(table.size, 0);
  assert.ok(new Int32Array(table.shared.slots).every((slot) => slot === 0));
});

Deno.test("AnswerTable.put(): a table that is full says so, and takes no name for absent", () => {
  const { cache, probe } = pair();
  const entry = { addresses: [1], near: 0, project: "p", isName: true, isProject: false };
  cache.replaceServers([], 0);
  cache.replaceContainers([row({})], 0);
  const nope = encodeQuery(1, { name: "nope.jiji", type: TYPE.A });
  assert.ok(probe.answer(nope));
  for (let index = 0; index <= ENTRIES_MAX; index++) probe.table.answers.put(`p-${index}`, entry);
  assert.equal(probe.answer(nope), undefined);
  assert.ok(probe.answer(encodeQuery(1, { name: "casa-api.jiji", type: TYPE.A })));
});
