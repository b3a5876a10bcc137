// deno-lint-ignore-file no-console -- a command line tool prints.
/**
 * Constant load on some URLs: asks each in turn with some requests in flight, until standard input
 * ends, a line arrives on it, or the time is over; then prints one JSON line with every request
 * accounted for. Every request is a new connection, as from a new visitor.
 *
 * Usage: deno run --allow-net tools/load.ts [--concurrency N] [--rate PER_SECOND] [--seconds S]
 *        [--expect TEXT] URL…
 */
import { parseArgs } from "node:util";

/** What a run of load counted. */
export interface LoadReport {
  readonly sent: number;
  readonly failed: number;
  /** Requests by what came back: `200`, `502`, or the error's text. */
  readonly outcomes: Readonly<Record<string, number>>;
  readonly durationMs: number;
  /** Slowest answer. */
  readonly slowestMs: number;
}

interface LoadOptions {
  readonly urls: readonly string[];
  readonly concurrency: number;
  /** Requests begun a second at most; without it, as many as get answered. */
  readonly ratePerSecond: number | undefined;
  /** Text that a good answer holds. */
  readonly expect: string | undefined;
  readonly stop: AbortSignal;
}

/** A request that takes longer counts as failed, milliseconds. */
const REQUEST_TIMEOUT_MS = 15_000;

async function askOnce(url: string, expect: string | undefined): Promise<string> {
  try {
    const response = await fetch(url, {
      headers: { connection: "close" },
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
    const text = await response.text();
    if (response.status === 200 && expect !== undefined && !text.includes(expect)) {
      return "wrong body";
    }
    return String(response.status);
  } catch (error) {
    return error instanceof Error ? `${error.name}: ${error.message}`.slice(0, 120) : "error";
  }
}

/** Sends requests until `stop` aborts; those in flight are waited for and counted. */
export async function load(options: LoadOptions): Promise<LoadReport> {
  const outcomes: Record<string, number> = {};
  const gapMs = options.ratePerSecond === undefined ? 0 : 1000 / options.ratePerSecond;
  const startedMs = performance.now();
  let sent = 0;
  let slowestMs = 0;
  const worker = async () => {
    while (!options.stop.aborted) {
      const dueMs = startedMs + sent * gapMs;
      const url = options.urls[sent++ % options.urls.length]!;
      const earlyMs = dueMs - performance.now();
      if (gapMs > 0 && earlyMs > 1) await new Promise((resolve) => setTimeout(resolve, earlyMs));
      const atMs = performance.now();
      const outcome = await askOnce(url, options.expect);
      slowestMs = Math.max(slowestMs, performance.now() - atMs);
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: options.concurrency }, worker));
  return {
    sent,
    failed: sent - (outcomes["200"] ?? 0),
    outcomes,
    durationMs: Math.round(performance.now() - startedMs),
    slowestMs: Math.round(slowestMs),
  };
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    args: Deno.args,
    allowPositionals: true,
    options: {
      concurrency: { type: "string", default: "8" },
      rate: { type: "string" },
      seconds: { type: "string", default: "600" },
      expect: { type: "string" },
    },
  });
  const over = new AbortController();
  const timer = setTimeout(() => over.abort(), Number(values.seconds) * 1000);
  Deno.stdin.read(new Uint8Array(1)).then(() => over.abort(), () => over.abort());
  const report = await load({
    urls: positionals,
    concurrency: Number(values.concurrency),
    ratePerSecond: values.rate === undefined ? undefined : Number(values.rate),
    expect: values.expect,
    stop: over.signal,
  });
  clearTimeout(timer);
  console.log(JSON.stringify(report));
  Deno.exit(0);
}
