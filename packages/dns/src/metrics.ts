/** What jiji-dns counts, and the text that tells it. */
import { type MetricFamily, type MetricSample, renderMetric } from "@jiji/core/runtime";

/** Upper bounds of the latency buckets, seconds. */
export const LATENCY_BOUNDS_S: readonly number[] = [
  0.000_1,
  0.000_5,
  0.001,
  0.005,
  0.01,
  0.05,
  0.1,
  0.5,
  1,
  5,
];

/** How a query ended. */
export type QueryResult =
  | "answered"
  | "nxdomain"
  | "forwarded"
  | "failed"
  | "refused"
  | "malformed"
  | "dropped";

/** State of the moment, told beside the counters. */
export interface Gauges {
  readonly containers: number;
  readonly isFilled: boolean;
  /** Since anything was heard from Corrosion, milliseconds; undefined when never. */
  readonly subscriptionAgeMs: number | undefined;
  readonly forwardEntries: number;
  readonly version: string;
}

/** Counts of the threads that answer out of the table. */
export interface ThreadCounts {
  readonly answered: number;
  readonly nxdomain: number;
  readonly overloaded: number;
  readonly foreign: number;
  readonly malformed: number;
  /** Batches of queries taken with one system call. */
  readonly batches: number;
}

/** Counters since the start. */
export class Metrics {
  readonly #results = new Map<QueryResult, number>();
  readonly #buckets = new Float64Array(LATENCY_BOUNDS_S.length + 1);
  #latencySumS = 0;
  #cacheHits = 0;
  #cacheMisses = 0;

  /** A query that this thread dealt with, and how long that took. */
  count(result: QueryResult, latencyMs: number): void {
    this.#results.set(result, (this.#results.get(result) ?? 0) + 1);
    const seconds = latencyMs / 1_000;
    const found = LATENCY_BOUNDS_S.findIndex((bound) => seconds <= bound);
    const bucket = found < 0 ? LATENCY_BOUNDS_S.length : found;
    this.#buckets[bucket] = (this.#buckets[bucket] ?? 0) + 1;
    this.#latencySumS += seconds;
  }

  /** A forwarded query was or was not in the cache. */
  countCache(hit: boolean): void {
    if (hit) this.#cacheHits += 1;
    else this.#cacheMisses += 1;
  }

  /** The whole as text. */
  render(gauges: Gauges, threads: ThreadCounts): string {
    const results: [QueryResult, number][] = [...this.#results];
    const of = (result: QueryResult) => this.#results.get(result) ?? 0;
    const totals = new Map<string, number>([
      ...results,
      ["answered", of("answered") + threads.answered],
      ["nxdomain", of("nxdomain") + threads.nxdomain],
      ["malformed", of("malformed") + threads.malformed],
      ["dropped", of("dropped") + threads.overloaded + threads.foreign],
    ]);
    const lines = [
      ...counter(
        "queries_total",
        "Queries by result.",
        [...totals].sort().map(([result, value]) => [{ result }, value]),
      ),
      ...counter("table_answers_total", "Answers that threads gave by themselves.", [
        [{}, threads.answered + threads.nxdomain],
      ]),
      ...counter("batches_total", "Batches of packets that threads received.", [
        [{}, threads.batches],
      ]),
      ...this.#latency(),
      ...counter("forward_cache_total", "Forwarded queries by cache use.", [
        [{ use: "hit" }, this.#cacheHits],
        [{ use: "miss" }, this.#cacheMisses],
      ]),
      ...gauge("forward_cache_entries", "Answers kept.", gauges.forwardEntries),
      ...gauge("containers", "Containers known.", gauges.containers),
      ...gauge("filled", "1 once the cluster's state is known.", Number(gauges.isFilled)),
      ...gauge(
        "subscription_age_seconds",
        "Since Corrosion was last heard.",
        (gauges.subscriptionAgeMs ?? NaN) / 1_000,
      ),
      ...metric("info", "gauge", "Version.", [[{ version: gauges.version }, 1]]),
    ];
    return `${lines.join("\n")}\n`;
  }

  #latency(): string[] {
    let sum = 0;
    const buckets = [...LATENCY_BOUNDS_S, Infinity].map((bound, index): MetricSample => {
      sum += this.#buckets[index] ?? 0;
      return [{ le: bound === Infinity ? "+Inf" : `${bound}` }, sum, "_bucket"];
    });
    return metric("latency_seconds", "histogram", "Time to an answer of the main thread.", [
      ...buckets,
      [{}, this.#latencySumS, "_sum"],
      [{}, sum, "_count"],
    ]);
  }
}

function metric(
  name: string,
  type: MetricFamily["type"],
  help: string,
  samples: readonly MetricSample[],
): string[] {
  return renderMetric({ name: `jiji_dns_${name}`, type, help }, samples);
}

function counter(name: string, help: string, samples: readonly MetricSample[]): string[] {
  return metric(name, "counter", help, samples);
}

function gauge(name: string, help: string, value: number): string[] {
  return metric(name, "gauge", help, [[{}, value]]);
}
