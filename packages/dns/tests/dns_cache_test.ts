import assert from "node:assert/strict";
import fc from "fast-check";
import { type ContainerRow, NEWS_HOLD_MS, type ServerRow } from "@jiji/core/corrosion";
import { DnsCache, HELD_MAX_MS, HELD_MIN_MS, REFILL_MS } from "../src/dns_cache.ts";

let counter = 0;

function container(facts: Partial<ContainerRow> = {}): ContainerRow {
  counter += 1;
  return {
    id: counter.toString(16).padStart(12, "0"),
    project: "casa",
    service: "api",
    serverId: "one",
    instance: "one",
    name: "casa-api",
    version: "1",
    ip: `10.210.1.${counter % 250}`,
    ports: ["3000/tcp"],
    startedAtMs: counter,
    health: "healthy",
    unhealthySinceMs: null,
    ...facts,
  };
}

function server(id: string, removedAtMs: number | null = null): ServerRow {
  return {
    id,
    hostname: id,
    subnet: "10.210.1.0/24",
    wireguardIp: "10.210.1.1",
    wireguardPubkey: "",
    managementIp: "",
    endpoints: [],
    lastSeenMs: 0,
    doc: {},
    removedAtMs,
  };
}

function filled(...rows: ContainerRow[]): DnsCache {
  const cache = new DnsCache();
  cache.replaceServers([], 0);
  cache.replaceContainers(rows, 0);
  return cache;
}

function ips(cache: DnsCache, label = "casa-api"): string[] | string {
  const found = cache.lookup(label);
  return found.kind === "known" ? found.containers.map((row) => row.ip).sort() : found.kind;
}

Deno.test("DnsCache.lookup(): says nothing before both tables were read", () => {
  const cache = new DnsCache();
  assert.equal(ips(cache), "unfilled");
  cache.replaceContainers([container()], 0);
  assert.equal(ips(cache), "unfilled");
  cache.replaceServers([], 0);
  assert.equal((ips(cache) as string[]).length, 1);
  assert.equal(ips(cache, "casa-nope"), "unknown");
});

Deno.test("DnsCache.lookup(): the newest healthy container of an instance wins", () => {
  const old = container({ ip: "10.210.1.1", startedAtMs: 1 });
  const young = container({ ip: "10.210.1.2", startedAtMs: 2, health: "starting" });
  const cache = filled(old, young);
  assert.deepEqual(ips(cache), ["10.210.1.1"]);
  cache.putContainer({ ...young, health: "healthy" });
  assert.deepEqual(ips(cache), ["10.210.1.2"]);
  cache.removeContainer(young.id);
  assert.deepEqual(ips(cache), ["10.210.1.1"]);
});

Deno.test("DnsCache.lookup(): degraded ones answer only when nothing healthy is left", () => {
  const sick = container({ ip: "10.210.1.1", health: "degraded", instance: "one" });
  const well = container({ ip: "10.210.2.1", serverId: "two", instance: "two" });
  const cache = filled(sick, well);
  assert.deepEqual(ips(cache), ["10.210.2.1"]);
  cache.putContainer({ ...well, health: "unhealthy" });
  assert.deepEqual(ips(cache), ["10.210.1.1"]);
  cache.putContainer({ ...sick, health: "unhealthy" });
  assert.deepEqual(ips(cache), []);
});

Deno.test("DnsCache.lookup(): an instance has a name of its own", () => {
  const cache = filled(
    container({ ip: "10.210.1.1", serverId: "one", instance: "one" }),
    container({ ip: "10.210.2.1", serverId: "two", instance: "two" }),
  );
  assert.deepEqual(ips(cache), ["10.210.1.1", "10.210.2.1"]);
  assert.deepEqual(ips(cache, "casa-api-two"), ["10.210.2.1"]);
});

Deno.test("DnsCache.lookup(): silent servers are left out while another one answers", () => {
  const cache = filled(
    container({ ip: "10.210.1.1", serverId: "one", instance: "one" }),
    container({ ip: "10.210.2.1", serverId: "two", instance: "two", health: "degraded" }),
  );
  cache.setSilent(new Set(["one"]));
  assert.deepEqual(ips(cache), ["10.210.2.1"]);
  cache.setSilent(new Set(["one", "two"]));
  assert.deepEqual(ips(cache), ["10.210.1.1"]);
  cache.setSilent(new Set());
  assert.deepEqual(ips(cache), ["10.210.1.1"]);
});

Deno.test("DnsCache.lookup(): containers of removed servers are left out for good", () => {
  const cache = filled(container({ ip: "10.210.1.1" }));
  cache.putServer(server("one", 5), 0);
  assert.deepEqual(ips(cache), []);
  cache.putServer(server("one"), 0);
  assert.deepEqual(ips(cache), ["10.210.1.1"]);
});

Deno.test("DnsCache.lookup(): a server without a row still answers: absence is no evidence", () => {
  const cache = filled(container({ ip: "10.210.9.1", serverId: "nine", instance: "nine" }));
  assert.deepEqual(ips(cache), ["10.210.9.1"]);
});

Deno.test("DnsCache: incremental changes lead to the same answers as reading all rows", () => {
  const health = fc.constantFrom("starting", "healthy", "degraded", "unhealthy" as const);
  const step = fc.record({
    slot: fc.nat(7),
    gone: fc.boolean(),
    health,
    startedAtMs: fc.nat(5),
    server: fc.constantFrom("one", "two"),
  });
  fc.assert(fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
    const cache = filled();
    const rows = new Map<string, ContainerRow>();
    for (const { slot, gone, server, ...facts } of steps) {
      const id = slot.toString(16).padStart(12, "0");
      const row = container({
        id,
        ip: `10.210.1.${slot}`,
        serverId: server,
        instance: server,
        ...facts as Partial<ContainerRow>,
      });
      if (gone) rows.delete(id);
      else rows.set(id, row);
      if (gone) cache.removeContainer(id);
      else cache.putContainer(row);
    }
    const fresh = filled(...rows.values());
    for (const label of ["casa-api", "casa-api-one", "casa-api-two"]) {
      assert.deepEqual(ips(cache, label), ips(fresh, label));
    }
  }));
});

Deno.test("DnsCache: ten thousand containers load in a second, one change in a millisecond", () => {
  const rows = Array.from(
    { length: 10_000 },
    (_, index) =>
      container({
        service: `api${index % 1_000}`,
        ip: `10.210.${index >> 8 & 255}.${index & 255}`,
      }),
  );
  const cache = new DnsCache();
  cache.replaceServers([], 0);
  const startMs = performance.now();
  cache.replaceContainers(rows, 0);
  const loadedMs = performance.now();
  for (const row of rows.slice(0, 100)) cache.putContainer({ ...row, health: "degraded" });
  const changedMs = (performance.now() - loadedMs) / 100;
  assert.ok(loadedMs - startMs < 1_000, `loading took ${loadedMs - startMs} ms`);
  assert.ok(changedMs < 1, `a change took ${changedMs} ms`);
});

Deno.test("DnsCache.sweep(): a delete that was missed goes soon after all rows were read anew", () => {
  const kept = container({ ip: "10.210.1.1", serverId: "one", instance: "one" });
  const gone = container({ ip: "10.210.2.1", serverId: "two", instance: "two" });
  const cache = new DnsCache();
  cache.replaceServers([server("one"), server("two")], 0);
  cache.replaceContainers([kept, gone], 0);
  cache.replaceContainers([kept], 100_000);
  assert.equal(cache.sweep(100_000 + HELD_MIN_MS), 1, "the servers' table was not heard since");
  cache.putServer(server("one"), 110_000);
  assert.equal(cache.sweep(110_000), 0);
  assert.deepEqual(ips(cache), ["10.210.1.1"]);
});

Deno.test("DnsCache.sweep(): a lost database is not taken for deletes, however late the servers' table is", () => {
  const cache = new DnsCache();
  cache.replaceServers([server("one")], 0);
  cache.replaceContainers([container({ ip: "10.210.1.1", serverId: "one" })], 0);
  cache.replaceContainers([], 100_000);
  cache.sweep(120_000);
  cache.replaceServers([], 130_000);
  cache.sweep(160_000);
  assert.deepEqual(ips(cache), ["10.210.1.1"]);
});

Deno.test("DnsCache.sweep(): a lost database empties no answer while it fills again", () => {
  const rows = [
    container({ ip: "10.210.1.1", serverId: "one", instance: "one" }),
    container({ ip: "10.210.2.1", serverId: "two", instance: "two" }),
  ];
  const cache = new DnsCache();
  cache.replaceServers([server("one"), server("two")], 0);
  cache.replaceContainers(rows, 0);
  cache.replaceContainers([], 100_000);
  cache.replaceServers([], 100_500);
  cache.sweep(140_000);
  assert.deepEqual(ips(cache), ["10.210.1.1", "10.210.2.1"]);
  cache.putServer(server("one"), 150_000);
  cache.putContainer(rows[0]!);
  cache.putServer(server("two"), 150_000);
  cache.sweep(150_000 + REFILL_MS - 1);
  assert.deepEqual(ips(cache), ["10.210.1.1", "10.210.2.1"]);
  assert.equal(cache.sweep(150_000 + REFILL_MS), 0, "two came back without its container");
  assert.deepEqual(ips(cache), ["10.210.1.1"]);
});

Deno.test("DnsCache.sweep(): nothing is answered for ever without a row", () => {
  const cache = filled(container());
  cache.replaceContainers([], 0);
  assert.equal(cache.sweep(HELD_MAX_MS - 1), 1);
  assert.equal(cache.sweep(HELD_MAX_MS), 0);
});

Deno.test("DnsCache.takeNews(): news answer at once, and older rows do not take them back", () => {
  const old = container({ name: "casa-api_old_1" });
  const fresh = container();
  const cache = filled(old);
  cache.takeNews({ rows: [fresh], gone: [] }, 0);
  assert.deepEqual(ips(cache), [fresh.ip]);
  cache.putContainer({ ...fresh, health: "starting" });
  assert.deepEqual(ips(cache), [fresh.ip], "a row from before the news");
  cache.putContainer(fresh);
  cache.putContainer({ ...fresh, health: "unhealthy", unhealthySinceMs: 5 });
  assert.deepEqual(ips(cache), [old.ip], "a row from after them");
});

Deno.test("DnsCache.takeNews(): what is gone does not come back with a late row", () => {
  const [one, two] = [container({ instance: "one" }), container({ instance: "two" })];
  const cache = filled(one, two);
  cache.takeNews({ rows: [], gone: [one.id] }, 0);
  cache.putContainer({ ...one, health: "degraded" });
  cache.replaceContainers([one, two], 1);
  assert.deepEqual(ips(cache), [two.ip]);
  cache.removeContainer(one.id);
  cache.sweep(NEWS_HOLD_MS);
  assert.deepEqual(ips(cache), [two.ip]);
});

Deno.test("DnsCache.takeNews(): news that Corrosion never confirms give way to its rows", () => {
  const [lost, wrong] = [container({ instance: "one" }), container({ instance: "two" })];
  const never = container({ instance: "three" });
  const cache = filled(lost, wrong);
  cache.takeNews({
    rows: [{ ...wrong, health: "unhealthy", unhealthySinceMs: 1 }, never],
    gone: [lost.id],
  }, 0);
  assert.deepEqual(ips(cache), [never.ip]);
  cache.sweep(NEWS_HOLD_MS - 1);
  assert.deepEqual(ips(cache), [never.ip]);
  cache.sweep(NEWS_HOLD_MS);
  assert.deepEqual(ips(cache), [lost.ip, wrong.ip, never.ip].sort());
  cache.sweep(NEWS_HOLD_MS + HELD_MAX_MS);
  assert.deepEqual(ips(cache), [lost.ip, wrong.ip].sort(), "no row ever came");
});

Deno.test("DnsCache.takeNews(): while Corrosion is away news stay, and after it until it has caught up", () => {
  const [one, two] = [container({ instance: "one" }), container({ instance: "two" })];
  const cache = filled(one, two);
  cache.takeNews({ rows: [], gone: [one.id] }, 10);
  cache.sweep(HELD_MAX_MS, 5);
  assert.deepEqual(ips(cache), [two.ip], "nothing was heard since");
  cache.replaceContainers([one, two], HELD_MAX_MS + 1);
  cache.sweep(HELD_MAX_MS + 2, HELD_MAX_MS + 1);
  assert.deepEqual(ips(cache), [two.ip], "the table may be behind");
  cache.sweep(HELD_MAX_MS + 1 + NEWS_HOLD_MS, HELD_MAX_MS + NEWS_HOLD_MS);
  assert.deepEqual(ips(cache), [one.ip, two.ip].sort());
});

Deno.test("DnsCache.lookup(): no name leads out of the cluster's network", () => {
  const cache = new DnsCache("10.210.0.0/16");
  const own = container();
  const strangers = ["8.8.8.8", "127.0.0.1", "10.211.0.1"].map((ip) =>
    container({ serverId: "ghost", instance: ip, ip })
  );
  const forged = container({ ip: "203.0.113.1", startedAtMs: 1e15 });
  cache.replaceContainers([own, ...strangers, forged], 0);
  cache.replaceServers([server("one")], 0);
  assert.deepEqual(ips(cache), [own.ip], "nor does one take the place of a container");
  assert.equal(cache.lookupAddress("8.8.8.8"), undefined);
  const why = cache.explain("casa-api").find(({ row }) => row.ip === "8.8.8.8")?.why;
  assert.equal(why, "its address is not of the cluster's network");
});
