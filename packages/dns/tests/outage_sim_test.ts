/** An hour without Corrosion, simulated: the same code as on a server, with another clock. */
import assert from "node:assert/strict";
import {
  containerCells,
  type ContainerRow,
  CorrosionError,
  serverCells,
  type ServerRow,
  type Statement,
  type SubscriptionEvent,
  type SubscriptionOptions,
} from "@jiji/core/corrosion";
import { seededRandom, silentLogger } from "@jiji/core/runtime";
import { settle, SimClock } from "@jiji/core/testing";
import { runSubscriber } from "../src/corrosion_subscriber.ts";
import { DnsCache, REFILL_MS } from "../src/dns_cache.ts";
import { parseSnapshot, renderSnapshot, restoreSnapshot, type Snapshot } from "../src/snapshot.ts";
import { ZoneTable } from "../src/udp/zone_table.ts";

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;
/** A server's row changes this often while nothing happens. */
const HEARTBEAT_MS = 10_000;

/** A Corrosion that can be stopped; its rows can be changed meanwhile. */
class SimCorrosion {
  readonly servers: ServerRow[] = ["s1", "s2"].map((id) => ({
    id,
    hostname: id,
    subnet: "10.210.1.0/24",
    wireguardIp: "10.210.1.1",
    wireguardPubkey: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    managementIp: "fdcc::1",
    endpoints: [],
    lastSeenMs: 1,
    doc: {},
    removedAtMs: null,
  }));
  containers: ContainerRow[] = [1, 2].map((index) => ({
    id: index.toString(16).padStart(12, "0"),
    project: "casa",
    service: "api",
    serverId: `s${index}`,
    instance: `s${index}`,
    name: "casa-api",
    version: "1",
    ip: `10.210.1.${index}`,
    ports: [],
    startedAtMs: index,
    health: "healthy",
    unhealthySinceMs: null,
  }));
  readonly #clock: SimClock;
  #isUp = true;
  #down = Promise.withResolvers<never>();
  /** Tries to subscribe while it was down. */
  refused = 0;

  constructor(clock: SimClock) {
    this.#clock = clock;
  }

  stop(): void {
    this.#isUp = false;
    this.#down.promise.catch(() => undefined);
    this.#down.reject(new CorrosionError("connection lost", { isCut: true }));
  }

  start(): void {
    this.#isUp = true;
    this.#down = Promise.withResolvers();
  }

  #cells(statement: Statement): (readonly unknown[])[] {
    return statement[0].includes("FROM servers")
      ? this.servers.map((row) => [...serverCells(row), row.removedAtMs])
      : this.containers.map(containerCells);
  }

  async *subscribe(
    statement: Statement,
    o: SubscriptionOptions,
  ): AsyncGenerator<SubscriptionEvent> {
    if (!this.#isUp) {
      this.refused += 1;
      throw new CorrosionError("corrosion does not answer", { isCut: true });
    }
    yield { kind: "opened", queryId: "one" };
    let rowId = 0;
    if (o.resume === undefined) {
      for (const cells of this.#cells(statement)) yield { kind: "row", rowId: ++rowId, cells };
      yield { kind: "ready", changeId: 1 };
    }
    const ended = Promise.withResolvers<never>();
    o.signal.addEventListener("abort", () => ended.reject(o.signal.reason), { once: true });
    for (let changeId = 2;; changeId++) {
      const beat = this.#clock.sleep(HEARTBEAT_MS, { signal: o.signal });
      await Promise.race([beat, this.#down.promise, ended.promise]);
      const [cells] = statement[0].includes("FROM servers") ? this.#cells(statement) : [];
      if (cells) yield { kind: "change", type: "update", rowId: 1, cells, changeId };
    }
  }

  query(statement: Statement): Promise<unknown[][]> {
    if (!this.#isUp) return Promise.reject(new CorrosionError("down", { isCut: true }));
    return Promise.resolve(this.#cells(statement).map((cells) => [...cells]));
  }
}

/** jiji-dns without its sockets. */
class SimDns {
  readonly cache = new DnsCache();
  readonly table: ZoneTable;
  readonly saved: Snapshot[] = [];
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;

  constructor(corrosion: SimCorrosion, clock: SimClock, snapshot?: Snapshot) {
    const zone = { domain: "jiji", clusterCidr: "10.210.0.0/16", serverId: "s1" };
    this.table = new ZoneTable({ cache: this.cache, zone });
    this.cache.onChange = (keys) => this.table.update(keys);
    if (snapshot) {
      const read = parseSnapshot(new TextEncoder().encode([...renderSnapshot(snapshot)].join("")));
      assert.ok(read);
      restoreSnapshot(this.cache, read, clock.monotonicMs());
    }
    this.#done = runSubscriber({
      cache: this.cache,
      api: {
        query: (statement) => corrosion.query(statement),
        execute: () => Promise.reject(new Error("jiji-dns writes nothing")),
      },
      subscribe: (statement, o) => corrosion.subscribe(statement, o),
      clock,
      random: seededRandom(1),
      logger: silentLogger,
      signal: this.#stop.signal,
      save: (one) => {
        this.saved.push(one);
        return Promise.resolve();
      },
    });
  }

  addresses(): string[] | string {
    const found = this.cache.lookup("casa-api");
    return found.kind === "known" ? found.containers.map((row) => row.ip).sort() : found.kind;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }
}

Deno.test("runSubscriber(): an hour without Corrosion changes no answer, then what went goes", async () => {
  const clock = new SimClock(1_000_000);
  const corrosion = new SimCorrosion(clock);
  const dns = new SimDns(corrosion, clock);
  await clock.advance(20_000);
  assert.deepEqual(dns.addresses(), ["10.210.1.1", "10.210.1.2"]);
  const entries = dns.table.answers.size;
  const saves = dns.saved.length;
  corrosion.stop();
  for (let passedMs = 0; passedMs < HOUR_MS; passedMs += MINUTE_MS) {
    await clock.advance(MINUTE_MS);
    assert.deepEqual(dns.addresses(), ["10.210.1.1", "10.210.1.2"], `after ${passedMs} ms`);
  }
  // Two tables, a try each ten seconds at most: nothing piles up and nothing is hammered.
  assert.ok(corrosion.refused > 300 && corrosion.refused < 1_000, `${corrosion.refused} tries`);
  assert.equal(dns.saved.length, saves, "what is not heard is not written either");
  assert.equal(dns.table.answers.size, entries);
  assert.ok(clock.pending < 10, `${clock.pending} timers`);
  corrosion.containers = corrosion.containers.slice(0, 1);
  corrosion.start();
  await clock.advance(10_500 + REFILL_MS + 61_000);
  assert.deepEqual(dns.addresses(), ["10.210.1.1"]);
  await dns.stop();
});

Deno.test("runSubscriber(): a restart in the midst of the hour answers from the snapshot", async () => {
  const clock = new SimClock(1_000_000);
  const corrosion = new SimCorrosion(clock);
  const first = new SimDns(corrosion, clock);
  await clock.advance(20_000);
  await first.stop();
  corrosion.stop();
  const second = new SimDns(corrosion, clock, first.saved.at(-1));
  await settle();
  assert.deepEqual(second.addresses(), ["10.210.1.1", "10.210.1.2"]);
  await clock.advance(HOUR_MS);
  assert.deepEqual(second.addresses(), ["10.210.1.1", "10.210.1.2"]);
  corrosion.containers = corrosion.containers.slice(1);
  corrosion.start();
  await clock.advance(10_500 + REFILL_MS);
  assert.deepEqual(second.addresses(), ["10.210.1.2"]);
  await second.stop();
});

Deno.test("runSubscriber(): a database that comes back empty empties no answer until it is sure", async () => {
  const clock = new SimClock(1_000_000);
  const corrosion = new SimCorrosion(clock);
  const dns = new SimDns(corrosion, clock);
  await clock.advance(20_000);
  corrosion.stop();
  await clock.advance(MINUTE_MS);
  const rows = corrosion.containers;
  const servers = corrosion.servers.splice(0);
  corrosion.containers = [];
  corrosion.start();
  await clock.advance(5 * MINUTE_MS);
  assert.deepEqual(dns.addresses(), ["10.210.1.1", "10.210.1.2"]);
  corrosion.servers.push(...servers);
  corrosion.containers = rows;
  await clock.advance(2 * MINUTE_MS);
  assert.deepEqual(dns.addresses(), ["10.210.1.1", "10.210.1.2"]);
  await dns.stop();
});
