import assert from "node:assert/strict";
import { parseBarrierReport } from "@jiji/core/cluster";
import type { ContainerRow } from "@jiji/core/corrosion";
import { silentLogger, systemClock, waitFor } from "@jiji/core/runtime";
import { fetchNames, fetchResolvers, renderNames } from "../src/commands/names.ts";
import { DnsCache } from "../src/dns_cache.ts";
import { Metrics } from "../src/metrics.ts";
import { listNames, serveStatus } from "../src/status_server.ts";

function row(index: number, facts: Partial<ContainerRow> = {}): ContainerRow {
  return {
    id: `id${index}`,
    project: "casa",
    service: "api",
    serverId: `s${index}`,
    instance: `s${index}`,
    name: "casa-api",
    version: "7",
    ip: `10.210.${index}.4`,
    ports: [],
    startedAtMs: index,
    health: "healthy",
    unhealthySinceMs: null,
    ...facts,
  };
}

function cacheOf(...rows: ContainerRow[]): DnsCache {
  const cache = new DnsCache();
  cache.replaceServers([], 0);
  cache.replaceContainers(rows, 0);
  return cache;
}

Deno.test("DnsCache.explain(): every container has its reason", () => {
  const cache = cacheOf(
    row(1),
    row(2, { health: "unhealthy" }),
    row(3, { health: "degraded" }),
    row(4),
    row(5, { serverId: "s1", instance: "s1", startedAtMs: 0 }),
  );
  cache.setSilent(new Set(["s4"]));
  const why = (label: string) =>
    new Map(cache.explain(label).map((one) => [one.row.id, `${one.isAnswered} ${one.why}`]));
  const found = why("casa-api");
  assert.equal(found.get("id1"), "true healthy");
  assert.equal(found.get("id2"), "false it is unhealthy");
  assert.equal(found.get("id3"), "false degraded, and there are healthy ones");
  assert.equal(found.get("id4"), "false its server is silent");
  assert.equal(found.get("id5"), "false a newer container stands for the same instance");
  cache.setSilent(new Set(["s1", "s2", "s3", "s4"]));
  assert.match(why("casa-api").get("id4") ?? "", /^true its server is silent, but/);
  assert.equal(cache.explain("nope").length, 0);
});

Deno.test("listNames(): names of services, or the one asked for in any of its forms", () => {
  const cache = cacheOf(row(1), row(2, { service: "web" }));
  const names = (only?: string) =>
    listNames(cache, { domain: "jiji", heardMsAgo: 5, ...(only === undefined ? {} : { only }) })
      .names;
  assert.deepEqual(names().map((one) => one.name), ["casa-api.jiji", "casa-web.jiji"]);
  for (const only of ["casa-api.jiji", "CASA-API.jiji.", "_80._tcp.nearest.casa-api.jiji"]) {
    assert.equal(names(only)[0]?.containers[0]?.address, "10.210.1.4", only);
  }
});

Deno.test("serveStatus(): tells metrics and names to members, nothing to others", async () => {
  const stop = new AbortController();
  const port = freePort();
  let isMember = true;
  const metrics = new Metrics();
  metrics.count("answered", 0.2);
  metrics.count("forwarded", 7_000);
  metrics.countCache(true);
  const serving = serveStatus({
    address: { hostname: "127.0.0.1", port },
    // Nobody answers names there.
    dnsPort: freePort(),
    cache: cacheOf(row(1)),
    domain: "jiji",
    metrics: () =>
      metrics.render({
        containers: 1,
        isFilled: true,
        subscriptionAgeMs: 4_200,
        forwardEntries: 0,
        version: "1.2.3",
      }, { answered: 9, nxdomain: 4, overloaded: 0, foreign: 2, malformed: 0, batches: 3 }),
    heardMsAgo: () => undefined,
    resolvers: (name) => Promise.resolve([`192.0.2.${name.length}`]),
    isClient: () => isMember,
    clock: systemClock,
    logger: silentLogger,
    signal: stop.signal,
  });
  const get = async (path: string) => await fetch(`http://127.0.0.1:${port}${path}`);
  const up = await waitFor(() => get("/metrics").catch(() => undefined), {
    clock: systemClock,
    timeoutMs: 5_000,
    everyMs: 10,
  });
  const text = await up?.text() ?? "";
  assert.match(text, /queries_total\{result="answered"\} 10\n/);
  assert.match(text, /queries_total\{result="dropped"\} 2\n/);
  assert.match(text, /queries_total\{result="nxdomain"\} 4\n/);
  assert.match(text, /table_answers_total 13\n/);
  assert.match(text, /latency_seconds_bucket\{le="5"\} 1\n/);
  assert.match(text, /latency_seconds_bucket\{le="\+Inf"\} 2\n/);
  assert.match(text, /subscription_age_seconds 4\.2\n/);
  const names = await fetchNames({ hostname: "127.0.0.1", port });
  assert.match(renderNames(names), /casa-api\.jiji {2}1\/1 healthy\n {2}\+ 10\.210\.1\.4/);
  assert.match(renderNames(names), /^Corrosion was not heard since jiji-dns started/);
  const stale = renderNames({ ...names, heard_ms_ago: 93_000 });
  assert.match(stale, /^Corrosion was last heard 93 s ago/);
  assert.match(renderNames({ ...names, heard_ms_ago: 5_000 }), /^casa-api/);
  const place = { hostname: "127.0.0.1", port, name: "example.com" };
  assert.deepEqual(await fetchResolvers(place), ["192.0.2.11"]);
  const asked = await get("/await?timeout_ms=0&expect=casa-api.jiji%3D%2B10.210.1.4");
  const report = parseBarrierReport(await asked.text());
  assert.equal(report.converged, false);
  assert.deepEqual(report.pending.map((one) => one.name), ["casa-api.jiji"]);
  for (
    const bad of [
      "",
      "?timeout_ms=5",
      "?timeout_ms=99999999&expect=a%3D",
      "?timeout_ms=5&expect=%24(x)",
    ]
  ) {
    const refused = await get(`/await${bad}`);
    assert.equal(refused.status, 400, bad);
    await refused.body?.cancel();
  }
  isMember = false;
  await assert.rejects(fetchNames({ hostname: "127.0.0.1", port }), /HTTP 403/);
  stop.abort();
  await serving;
  await assert.rejects(fetchNames({ hostname: "127.0.0.1", port }));
});

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
