import assert from "node:assert/strict";
import {
  corrosionHttpApi,
  type Statement,
  subscribe,
  upsertContainer,
  upsertServer,
} from "@jiji/core/corrosion";
import { seededRandom, silentLogger, systemClock, waitFor } from "@jiji/core/runtime";
import { FakeCorrosion } from "@jiji/core/testing";
import { ask } from "../src/commands/ask.ts";
import { awaitNames, judgeExpectation, parseExpectation } from "../src/commands/await_names.ts";
import { renderAnswer, reportAnswer } from "../src/commands/query.ts";
import { runSubscriber } from "../src/corrosion_subscriber.ts";
import { DnsCache } from "../src/dns_cache.ts";
import { answeredAddresses } from "../src/dns_message.ts";
import { TYPE } from "../src/dns_protocol.ts";
import { DnsServer } from "../src/dns_server.ts";
import { Forwarder } from "../src/forwarder.ts";
import { parseSnapshot, renderSnapshot, type Snapshot } from "../src/snapshot.ts";
import { readTcpMessage, writeTcpMessage } from "../src/tcp_framing.ts";
import { encodeQuery } from "../src/dns_encode.ts";

/** jiji-dns on a loopback port, fed by a fake Corrosion. */
class Running implements AsyncDisposable {
  readonly fake = new FakeCorrosion();
  readonly cache = new DnsCache();
  readonly at: { hostname: string; port: number };
  readonly snapshots: Snapshot[] = [];
  readonly #stop = new AbortController();
  readonly #done: Promise<unknown>;

  constructor() {
    const { signal } = this.#stop;
    const port = freePort();
    this.at = { hostname: "127.0.0.1", port };
    const clock = systemClock;
    const logger = silentLogger;
    const server = new DnsServer({
      zone: { domain: "jiji", clusterCidr: "10.210.0.0/16", serverId: "s1" },
      cache: this.cache,
      forwarder: new Forwarder({
        resolvers: () => Promise.resolve([]),
        upstream: { udp: () => Promise.reject(), tcp: () => Promise.reject() },
        clock,
        randomId: () => 1,
        logger,
      }),
      clock,
      logger,
      signal,
    });
    this.#done = Promise.all([
      server.listen(this.at),
      runSubscriber({
        cache: this.cache,
        api: corrosionHttpApi(this.fake.address),
        subscribe: (statement, o) => subscribe(this.fake.address, statement, o),
        clock,
        random: seededRandom(3),
        logger,
        signal,
        save: (snapshot) => {
          this.snapshots.push(snapshot);
          return Promise.resolve();
        },
      }),
    ]);
  }

  async write(...statements: Statement[]): Promise<void> {
    await corrosionHttpApi(this.fake.address).execute(statements);
  }

  async addresses(name: string): Promise<string[]> {
    const { packet, message } = await ask(this.at, { name, type: TYPE.A }, { timeoutMs: 2_000 });
    return answeredAddresses(packet, message).sort();
  }

  /** Waits until the tables have been read and the sockets answer. */
  async ready(): Promise<void> {
    const up = await waitFor(
      async () => {
        if (!this.cache.isFilled) return undefined;
        return await ask(this.at, { name: "jiji", type: TYPE.SOA }, { timeoutMs: 200 })
          .catch(() => undefined);
      },
      { clock: systemClock, timeoutMs: 5_000, everyMs: 10 },
    );
    assert.ok(up);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#done;
    await this.fake[Symbol.asyncDispose]();
  }
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

function put(index: number, facts: { health?: "healthy" | "starting" } = {}): Statement {
  return upsertContainer({
    id: index.toString(16).padStart(12, "0"),
    project: "casa",
    service: "api",
    serverId: `s${index}`,
    instance: `s${index}`,
    name: "casa-api",
    version: "1",
    ip: `10.210.${Math.floor(index / 250)}.${index % 250}`,
    ports: [],
    startedAtMs: index,
    health: facts.health ?? "healthy",
    unhealthySinceMs: null,
  });
}

Deno.test("DnsServer: answers what Corrosion says, over UDP and TCP", async () => {
  await using running = new Running();
  await running.ready();
  assert.deepEqual(await running.addresses("casa-api.jiji"), []);
  await running.write(put(1), put(2));
  const server = running.at;
  const report = await awaitNames([parseExpectation("casa-api.jiji=+10.210.0.1,+10.210.0.2")], {
    server,
    timeoutMs: 3_000,
    clock: systemClock,
  });
  assert.ok(report.converged);
  const tcp = await Deno.connect({ ...server });
  // Pipelined: both questions before the first answer is read (RFC 7766 section 6.2.1.1).
  await writeTcpMessage(tcp, encodeQuery(1, { name: "casa-api.jiji", type: TYPE.A }));
  await writeTcpMessage(tcp, encodeQuery(2, { name: "nope.jiji", type: TYPE.A }));
  const ids = [(await readTcpMessage(tcp))?.[1], (await readTcpMessage(tcp))?.[1]].sort();
  assert.deepEqual(ids, [1, 2]);
  tcp.close();
});

Deno.test("DnsServer: a long answer is cut over UDP and whole over TCP", async () => {
  await using running = new Running();
  await running.ready();
  await running.write(...Array.from({ length: 300 }, (_, index) => put(index + 1)));
  const all = await waitFor(async () => {
    const found = await running.addresses("casa-api.jiji");
    return found.length === 300 ? found : undefined;
  }, { clock: systemClock, timeoutMs: 3_000, everyMs: 20 });
  assert.ok(all);
});

Deno.test("DnsServer: names that nobody can forward end in SERVFAIL at once", async () => {
  await using running = new Running();
  await running.ready();
  const startMs = performance.now();
  const { message } = await ask(running.at, { name: "example.com", type: 1 }, { timeoutMs: 2_000 });
  assert.equal(message.rcode, 2);
  assert.ok(performance.now() - startMs < 1_000);
});

Deno.test("DnsServer: garbage is survived", async () => {
  await using running = new Running();
  await running.ready();
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  for (let index = 0; index < 200; index++) {
    await socket.send(crypto.getRandomValues(new Uint8Array(index)), {
      transport: "udp",
      ...running.at,
    });
  }
  socket.close();
  const tcp = await Deno.connect({ ...running.at });
  await tcp.write(new Uint8Array([0, 5, 1, 2, 3]));
  tcp.close();
  await running.write(put(1));
  const found = await waitFor(async () => {
    const addresses = await running.addresses("casa-api.jiji");
    return addresses.length === 1 ? addresses : undefined;
  }, { clock: systemClock, timeoutMs: 3_000, everyMs: 20 });
  assert.deepEqual(found, ["10.210.0.1"]);
});

function parsed(text: string): Snapshot | undefined {
  const read = parseSnapshot(new TextEncoder().encode(text));
  return read && { servers: read.servers, containers: [...read.containers] };
}

Deno.test("runSubscriber(): saves what is known, and the snapshot reads back equal", async () => {
  await using running = new Running();
  await running.ready();
  await running.write(
    put(1),
    upsertServer({
      id: "s1",
      hostname: "s1",
      subnet: "10.210.1.0/24",
      wireguardIp: "10.210.1.1",
      wireguardPubkey: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
      managementIp: "fdcc::1",
      endpoints: ["203.0.113.11:31820"],
      lastSeenMs: 1,
      doc: {},
    }),
  );
  const snapshot = await waitFor(
    () => running.snapshots.find((one) => one.containers.length === 1 && one.servers.length === 1),
    { clock: systemClock, timeoutMs: 5_000, everyMs: 20 },
  );
  assert.ok(snapshot);
  const text = [...renderSnapshot(snapshot)].join("");
  assert.deepEqual(parsed(text), snapshot);
  assert.equal(parsed(""), undefined);
  assert.equal(parsed(text.slice(0, -3)), undefined, "a cut file says nothing");
  const hostile = '{"format":2,"servers":1,"containers":1}\n["; rm"]\n{\n[1]\n"end"\n';
  assert.deepEqual(parsed(hostile), { servers: [], containers: [] });
});

Deno.test("awaitNames(): tells what a name still answers when the time is over", async () => {
  await using running = new Running();
  await running.ready();
  await running.write(put(1));
  const report = await awaitNames(
    [parseExpectation("casa-api.jiji=+10.210.0.9"), parseExpectation("nope.jiji=-10.210.0.1")],
    { server: running.at, timeoutMs: 300, clock: systemClock },
  );
  assert.equal(report.converged, false);
  assert.deepEqual(report.pending.map((one) => one.missing), [["10.210.0.9"]]);
});

Deno.test("judgeExpectation(): a failed question never counts as converged", () => {
  const expectation = parseExpectation("a.jiji=-10.0.0.1");
  assert.ok(judgeExpectation(expectation, { kind: "failed", error: "no answer" }));
  assert.equal(judgeExpectation(expectation, { kind: "addresses", addresses: [] }), undefined);
  assert.ok(judgeExpectation(expectation, { kind: "addresses", addresses: ["10.0.0.1"] }));
});

Deno.test("parseExpectation(): refuses what is not NAME=+IP,-IP", () => {
  for (
    const text of [
      "a.jiji",
      "a.jiji=",
      "a.jiji=10.0.0.1",
      "a.jiji=+x",
      "=+10.0.0.1",
      "a=+1.1.1.1=b",
    ]
  ) {
    assert.throws(() => parseExpectation(text), /not/);
  }
});

Deno.test("reportAnswer(): shows records and the negative answer's SOA", async () => {
  await using running = new Running();
  await running.ready();
  const asked = await ask(running.at, { name: "nope.jiji", type: TYPE.A }, { timeoutMs: 2_000 });
  const report = reportAnswer(asked);
  assert.equal(report.rcode, "NXDOMAIN");
  assert.match(renderAnswer(report), /^NXDOMAIN \(from jiji\)\njiji\. 5 SOA ns\.jiji\./);
});
