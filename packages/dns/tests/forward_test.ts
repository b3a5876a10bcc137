import assert from "node:assert/strict";
import { silentLogger, systemClock } from "@jiji/core/runtime";
import { SimClock } from "@jiji/core/testing";
import { encodeQuery, encodeResponse } from "../src/dns_encode.ts";
import { parseMessage } from "../src/dns_message.ts";
import { type DnsQuery, type DnsRecord, parseQuery, plainAnswer } from "../src/dns_protocol.ts";
import {
  type Exchange,
  Forwarder,
  FORWARDS_MAX,
  SHUNNED_MS,
  type Upstream,
} from "../src/forwarder.ts";
import {
  FORWARD_ENTRIES_MAX,
  ForwardCache,
  forwardKey,
  keepSeconds,
} from "../src/forward_cache.ts";
import { parseResolvConf, splitResolvers } from "../src/resolv_conf.ts";

function query(name: string, id = 7): DnsQuery {
  const parsed = parseQuery(encodeQuery(id, { name, type: 1 }));
  assert.ok(parsed.kind === "query");
  return parsed;
}

const ANSWER: DnsRecord = { ttlS: 30, data: { type: "A", address: "192.0.2.1" } };

/** A resolver that answers what it is told to. */
class FakeUpstream implements Upstream {
  asked = 0;
  overTcp = 0;
  hold: Promise<void> = Promise.resolve();
  failing = new Set<string>();
  truncates = false;
  rcode = 0;

  async udp(address: string, exchange: Exchange): Promise<Uint8Array<ArrayBuffer>> {
    this.asked += 1;
    await this.hold;
    if (this.failing.has(address)) throw new Error("no answer");
    const sent = parseQuery(exchange.packet);
    assert.ok(sent.kind === "query");
    const packet = this.#answer(sent);
    if (this.truncates) packet[2] = (packet[2] ?? 0) | 0x02;
    assert.ok(exchange.accepts(packet), "an answer to the question is accepted");
    const forged = packet.slice();
    forged[0] = (forged[0] ?? 0) ^ 0xff;
    assert.ok(!exchange.accepts(forged), "another id is not");
    return packet;
  }

  tcp(_address: string, exchange: Exchange): Promise<Uint8Array<ArrayBuffer>> {
    this.overTcp += 1;
    const sent = parseQuery(exchange.packet);
    assert.ok(sent.kind === "query");
    return Promise.resolve(this.#answer(sent));
  }

  #answer(sent: DnsQuery): Uint8Array<ArrayBuffer> {
    const answers = this.rcode === 0 ? [ANSWER] : [];
    return encodeResponse(sent, { ...plainAnswer(this.rcode), answers }, { bytesMax: 65_535 });
  }
}

function forwarder(upstream: Upstream, clock = new SimClock(), resolvers = ["192.0.2.53"]) {
  let id = 100;
  return new Forwarder({
    resolvers: () => Promise.resolve(resolvers),
    upstream,
    clock,
    randomId: () => id++,
    logger: silentLogger,
  });
}

Deno.test("Forwarder: gives the client its own id and spelling back", async () => {
  const answer = await forwarder(new FakeUpstream()).forward(query("ExAmple.com", 4242));
  assert.ok(answer);
  const message = parseMessage(answer);
  assert.equal(message?.id, 4242);
  assert.equal(message?.records[0]?.ttlS, 30);
  assert.match(new TextDecoder("latin1").decode(answer), /ExAmple/);
});

Deno.test("Forwarder: keeps an answer as long as its TTL and counts it down", async () => {
  const upstream = new FakeUpstream();
  const clock = new SimClock();
  const forward = forwarder(upstream, clock);
  await forward.forward(query("example.com"));
  await clock.advance(10_000);
  const kept = await forward.forward(query("EXAMPLE.com", 9));
  assert.equal(upstream.asked, 1);
  assert.equal(kept && parseMessage(kept)?.records[0]?.ttlS, 20);
  await clock.advance(20_000);
  await forward.forward(query("example.com"));
  assert.equal(upstream.asked, 2);
});

Deno.test("Forwarder: equal questions in flight become one", async () => {
  const upstream = new FakeUpstream();
  const gate = Promise.withResolvers<void>();
  upstream.hold = gate.promise;
  const forward = forwarder(upstream);
  const both = [forward.forward(query("example.com", 1)), forward.forward(query("example.com", 2))];
  gate.resolve();
  const ids = (await Promise.all(both)).map((answer) => answer && parseMessage(answer)?.id);
  assert.deepEqual(ids, [1, 2]);
  assert.equal(upstream.asked, 1);
});

Deno.test("Forwarder: refuses at once when too many are in flight", async () => {
  const upstream = new FakeUpstream();
  const gate = Promise.withResolvers<void>();
  upstream.hold = gate.promise;
  const forward = forwarder(upstream);
  const running = Array.from(
    { length: FORWARDS_MAX },
    (_, index) => forward.forward(query(`n${index}.example.com`)),
  );
  assert.equal(await forward.forward(query("one-more.example.com")), undefined);
  gate.resolve();
  await Promise.all(running);
});

Deno.test("Forwarder: asks the next resolver when one fails or says SERVFAIL", async () => {
  const upstream = new FakeUpstream();
  upstream.failing.add("192.0.2.1");
  const forward = forwarder(upstream, new SimClock(), ["192.0.2.1", "192.0.2.2"]);
  assert.ok(await forward.forward(query("example.com")));
  assert.equal(upstream.asked, 2);
  upstream.rcode = 2;
  assert.equal(await forward.forward(query("other.example.com")), undefined);
});

Deno.test("Forwarder: without resolvers there is no answer, at once", async () => {
  const forward = forwarder(new FakeUpstream(), new SimClock(), []);
  assert.equal(await forward.forward(query("example.com")), undefined);
});

Deno.test("Forwarder: a cut answer is asked for again over TCP", async () => {
  const upstream = new FakeUpstream();
  upstream.truncates = true;
  const answer = await forwarder(upstream).forward(query("example.com"));
  assert.equal(upstream.overTcp, 1);
  assert.equal(answer && parseMessage(answer)?.truncated, false);
});

Deno.test("ForwardCache: holds no more than its bound, oldest out first", () => {
  const cache = new ForwardCache();
  for (let index = 0; index <= FORWARD_ENTRIES_MAX; index++) {
    const asked = query(`n${index}.example.com`);
    const packet = encodeResponse(asked, { ...plainAnswer(0), answers: [ANSWER] }, {
      bytesMax: 512,
    });
    const message = parseMessage(packet);
    assert.ok(message);
    cache.put(forwardKey(asked), { packet, message }, 0);
  }
  assert.equal(cache.size, FORWARD_ENTRIES_MAX);
  assert.equal(cache.get(forwardKey(query("n0.example.com")), 0), undefined);
});

Deno.test("ForwardCache: negative answers without SOA and failures are not kept", () => {
  const cache = new ForwardCache();
  for (const rcode of [0, 2, 3, 5]) {
    const asked = query("example.com");
    const packet = encodeResponse(asked, plainAnswer(rcode), { bytesMax: 512 });
    const message = parseMessage(packet);
    assert.ok(message);
    cache.put(forwardKey(asked), { packet, message }, 0);
  }
  assert.equal(cache.size, 0);
});

Deno.test("keepSeconds(): the least of all TTLs, of negative answers the SOA's last field too", () => {
  const keep = (answers: readonly DnsRecord[], authority: readonly DnsRecord[] = []) => {
    const packet = encodeResponse(query("example.com"), {
      ...plainAnswer(authority.length > 0 ? 3 : 0),
      answers,
      authority,
    }, { bytesMax: 512 });
    const message = parseMessage(packet);
    assert.ok(message);
    return keepSeconds(message, packet);
  };
  const soa = (ttlS: number, minimumS: number): DnsRecord => ({
    name: "example.com",
    ttlS,
    data: {
      type: "SOA",
      ...{ primary: "a", mailbox: "b", serial: 1, refreshS: 1, retryS: 1, expireS: 1, minimumS },
    },
  });
  assert.equal(keep([ANSWER, { ...ANSWER, ttlS: 7 }]), 7);
  assert.equal(keep([{ ...ANSWER, ttlS: 86_400 }]), 3_600);
  assert.equal(keep([{ ...ANSWER, ttlS: 0x8000_0000 }]), 0, "RFC 2181 section 8");
  assert.equal(keep([], [soa(50, 9)]), 9, "RFC 2308 section 5");
  assert.equal(keep([], [soa(8, 50)]), 8);
  assert.equal(keep([], [soa(900, 900)]), 60);
});

Deno.test("parseResolvConf(): takes resolvers in order, never ourselves", () => {
  const text = "# nameserver 9.9.9.9\nsearch x\nnameserver 10.210.1.1\nnameserver 192.0.2.53\n" +
    "nameserver fe80::1%eth0\nnameserver 2001:db8:0::53\nnameserver 192.0.2.53\nnameserver x\n";
  assert.deepEqual(parseResolvConf(text, new Set(["10.210.1.1"])), ["192.0.2.53", "2001:db8::53"]);
});

Deno.test("Forwarder: real sockets against a real resolver on loopback", async () => {
  const { networkUpstream } = await import("../src/upstream.ts");
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const { port } = socket.addr as Deno.NetAddr;
  const serving = (async () => {
    const [packet, from] = await socket.receive();
    const asked = parseQuery(packet);
    assert.ok(asked.kind === "query");
    await socket.send(
      encodeResponse(asked, { ...plainAnswer(0), answers: [ANSWER] }, { bytesMax: 512 }),
      from,
    );
  })();
  const forward = new Forwarder({
    resolvers: () => Promise.resolve(["127.0.0.1"]),
    upstream: networkUpstream(port),
    clock: systemClock,
    randomId: () => 5,
    logger: silentLogger,
  });
  const answer = await forward.forward(query("example.com"));
  await serving;
  socket.close();
  assert.equal(answer && parseMessage(answer)?.records.length, 2);
});

Deno.test("splitResolvers(): the longest domain that holds the name decides", () => {
  const zones = { "corp.example": ["10.0.0.53"], "eu.corp.example": ["10.1.0.53"] };
  assert.deepEqual(splitResolvers("db.corp.example", zones), ["10.0.0.53"]);
  assert.deepEqual(splitResolvers("corp.example", zones), ["10.0.0.53"]);
  assert.deepEqual(splitResolvers("db.eu.corp.example", zones), ["10.1.0.53"]);
  for (const name of ["notcorp.example", "example", "", "tostring", "__proto__"]) {
    assert.equal(splitResolvers(name, zones), undefined, name);
  }
});

Deno.test("Forwarder: a resolver that is silent is asked last for a while", async () => {
  const upstream = new FakeUpstream();
  upstream.failing.add("192.0.2.1");
  const clock = new SimClock();
  const forward = forwarder(upstream, clock, ["192.0.2.1", "192.0.2.2"]);
  assert.ok(await forward.forward(query("a.example")));
  assert.equal(upstream.asked, 2);
  assert.ok(await forward.forward(query("b.example")));
  assert.equal(upstream.asked, 3, "the silent one was not waited for again");
  await clock.advance(SHUNNED_MS + 1);
  upstream.failing.clear();
  assert.ok(await forward.forward(query("c.example")));
  assert.equal(upstream.asked, 4);
});
