/** How quickly jiji-dns takes over what Corrosion says, without sockets in between. */
import { DnsCache } from "../../packages/dns/src/dns_cache.ts";
import { ZoneTable } from "../../packages/dns/src/udp/zone_table.ts";
import { benchNames } from "./contenders.ts";

/** Milliseconds that state needs to become answers. */
export interface StateFigures {
  readonly containers: number;
  /** All rows at once, from nothing to the last answer ready. */
  readonly appliedMs: number;
  /** One changed row: the median and the slowest of a thousand. */
  readonly changeMs: number;
  readonly slowestChangeMs: number;
  /** A server with half of all containers falls silent. */
  readonly silentMs: number;
}

/** Measures with `count` containers, two for each service. */
export function measureState(count: number): StateFigures {
  const rows = benchNames(count / 2).flatMap((name) => name.rows);
  const cache = new DnsCache();
  const zone = { domain: "jiji", clusterCidr: "10.0.0.0/8", serverId: "s0" };
  const table = new ZoneTable({ cache, zone });
  cache.onChange = (keys) => table.update(keys);
  const startMs = performance.now();
  cache.replaceServers([], 0);
  cache.replaceContainers(rows, 0);
  const appliedMs = performance.now() - startMs;
  const changes = rows.slice(0, 1_000).map((row) => {
    const atMs = performance.now();
    cache.putContainer({ ...row, health: "degraded" });
    return performance.now() - atMs;
  }).sort((a, b) => a - b);
  const silentAtMs = performance.now();
  cache.setSilent(new Set(["s1"]));
  return {
    containers: rows.length,
    appliedMs,
    changeMs: changes[changes.length >> 1] ?? NaN,
    slowestChangeMs: changes.at(-1) ?? NaN,
    silentMs: performance.now() - silentAtMs,
  };
}

/** One line. */
export function renderState(figures: StateFigures): string {
  const ms = (value: number) => `${value < 10 ? value.toFixed(3) : value.toFixed(0)} ms`;
  return `${figures.containers} containers: applied in ${ms(figures.appliedMs)}, one change ` +
    `${ms(figures.changeMs)} (slowest of 1,000: ${ms(figures.slowestChangeMs)}), half of them ` +
    `silent ${ms(figures.silentMs)}`;
}
