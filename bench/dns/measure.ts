/** One measurement: a server's process under dnsperf, and what it cost. */
import { runCommand, tryCommand } from "../../tools/prepare/command.ts";
import type { Contender } from "./contenders.ts";

/** Kernel clock ticks a second. Source: getconf CLK_TCK, 100 on every Linux of today. */
const TICKS_PER_SECOND = 100;

/** A server has this long to read its names, milliseconds: also on a busy machine. */
const START_MS = 90_000;

/** Figures of one run. */
export interface Throughput {
  readonly queriesPerSecond: number;
  readonly lostPercent: number;
  /** Processor time of the server for one query, microseconds. */
  readonly cpuMicroseconds: number;
}

/** Latencies at a fixed rate, microseconds. */
export interface Latency {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
}

/** A server that runs until disposed. */
export class RunningServer implements AsyncDisposable {
  readonly contender: Contender;
  readonly #child: Deno.ChildProcess;

  private constructor(contender: Contender, child: Deno.ChildProcess) {
    this.contender = contender;
    this.#child = child;
  }

  /** Starts a server and waits until it answers `name`. @throws {Error} when it does not in {@link START_MS}. */
  static async start(contender: Contender, name: string): Promise<RunningServer> {
    const [program, ...args] = contender.argv;
    const child = new Deno.Command(program, {
      args,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    const server = new RunningServer(contender, child);
    const deadlineMs = performance.now() + START_MS;
    const ask = ["dig", "@127.0.0.1", "-p", String(contender.port), name, "+short", "+tries=1"];
    while (performance.now() < deadlineMs) {
      const { stdout } = await tryCommand([...ask, "+timeout=1"], { timeoutMs: 5_000 });
      if (/^\d+\.\d+\.\d+\.\d+$/m.test(stdout)) return server;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await server[Symbol.asyncDispose]();
    throw new Error(`${contender.name} did not answer ${name} within ${START_MS} ms`);
  }

  /** Processor time used so far, seconds. */
  async cpuSeconds(): Promise<number> {
    const stat = await Deno.readTextFile(`/proc/${this.#child.pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  }

  /** Resident memory, megabytes. */
  async memoryMegabytes(): Promise<number> {
    const status = await Deno.readTextFile(`/proc/${this.#child.pid}/status`);
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1000;
  }

  /** Ends the server. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
    await this.#child.status;
  }
}

/** What dnsperf is started with. */
export interface Load {
  readonly dnsperf: string;
  /** File of queries. */
  readonly queries: string;
  readonly seconds: number;
  /** Sockets that ask, of the 100 queries in flight. */
  readonly clients: number;
}

/** Full speed for `seconds`, 100 queries in flight. */
export async function measureThroughput(server: RunningServer, o: Load): Promise<Throughput> {
  return await fullSpeed(server, { ...o, until: ["-l", String(o.seconds)] });
}

/** Full speed once through all names: with a server just started, each is asked the first time. */
export async function measureFirstPass(server: RunningServer, o: Load): Promise<Throughput> {
  return await fullSpeed(server, { ...o, until: ["-n", "1"] });
}

async function fullSpeed(
  server: RunningServer,
  o: Load & { readonly until: readonly string[] },
): Promise<Throughput> {
  const before = await server.cpuSeconds();
  const text = await runCommand([
    ...[o.dnsperf, "-s", "127.0.0.1", "-p", String(server.contender.port), "-d", o.queries],
    ...[...o.until, "-q", "100", "-c", String(o.clients)],
  ], { timeoutMs: (o.seconds + 60) * 1000 });
  const after = await server.cpuSeconds();
  return parseThroughput(text, after - before);
}

/** Figures in dnsperf's summary. @throws {Error} when there are none. */
export function parseThroughput(text: string, cpuSeconds: number): Throughput {
  const completed = Number(/Queries completed:\s+(\d+)/.exec(text)?.[1]);
  const sent = Number(/Queries sent:\s+(\d+)/.exec(text)?.[1]);
  const rate = Number(/Queries per second:\s+([\d.]+)/.exec(text)?.[1]);
  if (!completed || !sent || !rate) throw new Error(`dnsperf counted nothing:\n${text}`);
  return {
    queriesPerSecond: rate,
    lostPercent: 100 * (sent - completed) / sent,
    cpuMicroseconds: cpuSeconds * 1e6 / completed,
  };
}

/**
 * Latencies at `rate` queries a second, each query looked at. dnsperf writes to a file of memory: a
 * reader of its output beside it would take the processor that is measured.
 */
export async function measureLatency(
  server: RunningServer,
  o: Load & { readonly rate: number },
): Promise<Latency> {
  const path = await Deno.makeTempFile({ dir: "/dev/shm", prefix: "jiji-bench-" });
  const script = 'out=$1; shift; exec "$@" > "$out"';
  try {
    await runCommand([
      ...["sh", "-c", script, "sh", path, o.dnsperf, "-s", "127.0.0.1"],
      ...["-p", String(server.contender.port), "-d", o.queries, "-l", String(o.seconds)],
      ...["-q", "1000", "-Q", String(o.rate), "-v"],
    ], { timeoutMs: (o.seconds + 30) * 1000 });
    return percentiles(parseLatencies(await Deno.readTextFile(path)));
  } finally {
    await Deno.remove(path);
  }
}

/** Microseconds of each answered query in dnsperf's verbose output. */
export function parseLatencies(text: string): Float64Array {
  const matches = text.matchAll(/^> [A-Z]+ \S+ \S+ (\d+\.\d+)$/gm);
  return Float64Array.from(matches, (match) => Number(match[1]) * 1e6).sort();
}

/** Percentiles of sorted values. */
export function percentiles(sorted: Float64Array): Latency {
  const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)] ?? NaN;
  return { p50: at(0.5), p99: at(0.99), p999: at(0.999) };
}
