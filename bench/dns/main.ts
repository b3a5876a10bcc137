// deno-lint-ignore-file no-console -- a command line tool prints.
/**
 * jiji-dns (the built executable), dnsmasq and CoreDNS with the same names under the same load, in
 * turns, in one run, on loopback. A ratio is the median of those of each round, so that other work
 * on the machine meets all of them; each round begins with another server.
 *
 * Usage: deno task bench:dns [--names 500] [--rounds 7] [--seconds 2] [--clients 1] [--scale]
 *        [--only NAME]
 * `--scale` compares 100, 1,000, 10,000 and 100,000 names instead, and measures how quickly state
 * becomes answers.
 */
import { parseArgs } from "node:util";
import { benchNames, type Contender, writeContenders } from "./contenders.ts";
import { type Latency, measureFirstPass, measureLatency, measureThroughput } from "./measure.ts";
import { RunningServer, type Throughput } from "./measure.ts";
import { type Peers, preparePeers } from "./peers.ts";
import { measureState, renderState } from "./state.ts";

/** First of the loopback ports used. */
const PORT = 31_900;
/** Rate of the latency measurement, queries a second: a quarter of what the slowest manages. */
const LATENCY_RATE = 10_000;
const CHECKOUT = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");

interface Figures {
  /** The first time that each name is asked. */
  readonly cold: Throughput;
  readonly throughputs: Throughput[];
  readonly latencies: Latency[];
  memoryMegabytes: number;
}

interface Plan {
  readonly names: number;
  readonly rounds: number;
  readonly seconds: number;
  readonly clients: number;
  readonly peers: Peers;
  readonly only: string | undefined;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}

/** Queries for A records of every name, in a fixed shuffled order. */
function queryFile(labels: readonly string[]): string {
  const step = 7_919; // Prime: visits every name for any count that it does not divide.
  return labels.map((_, index) => `${labels[(index * step) % labels.length]}.jiji A\n`).join("");
}

async function measure(plan: Plan): Promise<Map<string, Figures>> {
  // Under /run/jiji, since that is all that the built executable may read.
  await Deno.mkdir("/run/jiji", { recursive: true });
  const folder = await Deno.makeTempDir({ dir: "/run/jiji", prefix: "bench-" });
  await using stack = new AsyncDisposableStack();
  // Ctrl-C reaches the servers as well; the folder is ours to remove.
  const interrupted = () => {
    Deno.removeSync(folder, { recursive: true });
    Deno.exit(130);
  };
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(name, interrupted);
    stack.defer(() => Deno.removeSignalListener(name, interrupted));
  }
  stack.defer(() => Deno.remove(folder, { recursive: true }));
  const names = benchNames(plan.names);
  const queries = `${folder}/queries`;
  await Deno.writeTextFile(queries, queryFile(names.map((name) => name.label)));
  const contenders = await writeContenders(names, {
    folder,
    peers: plan.peers,
    jijiDns: `${CHECKOUT}/build/jiji-dns`,
    port: PORT,
  });
  const { seconds, clients } = plan;
  const load = { dnsperf: plan.peers.dnsperf, queries, seconds, clients };
  const running: RunningServer[] = [];
  const figures = new Map<string, Figures>();
  for (const contender of wanted(contenders, plan)) {
    const server = await RunningServer.start(contender, `${names[0]!.label}.jiji`);
    running.push(stack.use(server));
    const cold = await measureFirstPass(server, load);
    figures.set(contender.name, { cold, throughputs: [], latencies: [], memoryMegabytes: 0 });
  }
  for (let round = 0; round < plan.rounds; round++) {
    for (const index of running.keys()) {
      const server = running[(index + round) % running.length]!;
      const own = figures.get(server.contender.name)!;
      own.throughputs.push(await measureThroughput(server, load));
      own.latencies.push(await measureLatency(server, { ...load, seconds: 1, rate: LATENCY_RATE }));
      own.memoryMegabytes = Math.max(own.memoryMegabytes, await server.memoryMegabytes());
    }
  }
  return figures;
}

function wanted(contenders: readonly Contender[], plan: Plan): readonly Contender[] {
  return contenders.filter((one) => plan.only === undefined || one.name === plan.only);
}

/** The table of one comparison. */
function renderFigures(figures: ReadonlyMap<string, Figures>): string {
  const own = figures.get("jiji-dns");
  const lines = [...figures].map(([name, one]) => {
    const rates = one.throughputs.map((run) => run.queriesPerSecond);
    const latency = (pick: (run: Latency) => number) => Math.round(median(one.latencies.map(pick)));
    const cells = [
      name.padEnd(9),
      `first ${thousands(one.cold.queriesPerSecond)}`.padStart(11),
      `then ${thousands(median(rates))} q/s`.padStart(14),
      `(${rates.map((value) => Math.round(value / 1000)).join(" ")})`.padEnd(28),
      `cpu ${median(one.throughputs.map((run) => run.cpuMicroseconds)).toFixed(1)} us/q`.padStart(
        13,
      ),
      `lost ${Math.max(...one.throughputs.map((run) => run.lostPercent)).toFixed(2)} %`,
      `p50 ${latency((run) => run.p50)}`,
      `p99 ${latency((run) => run.p99)}`,
      `p99.9 ${latency((run) => run.p999)} us`,
      `${one.memoryMegabytes.toFixed(0)} MB`.padStart(7),
    ];
    return cells.join("  ") + (own && one !== own ? renderRatios(own, one) : "");
  });
  return lines.join("\n");
}

function thousands(queries: number): string {
  return `${(queries / 1000).toFixed(1)} k`;
}

/** Medians of the ratios of each round. */
function renderRatios(own: Figures, other: Figures): string {
  const ratio = (pick: (figures: Figures) => readonly number[]) => {
    const others = pick(other);
    return median(pick(own).map((value, round) => value / (others[round] ?? NaN))).toFixed(2);
  };
  const rate = ratio((one) => one.throughputs.map((run) => run.queriesPerSecond));
  const cold = (own.cold.queriesPerSecond / other.cold.queriesPerSecond).toFixed(2);
  const p99 = ratio((one) => one.latencies.map((run) => run.p99));
  return `\n          jiji-dns: ${rate} x the queries (first time ${cold} x), ${p99} x the p99`;
}

function loadLine(): string {
  return `load of the machine ${Deno.loadavg().map((value) => value.toFixed(1)).join(" ")}`;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      names: { type: "string", default: "500" },
      rounds: { type: "string", default: "7" },
      seconds: { type: "string", default: "2" },
      clients: { type: "string", default: "1" },
      scale: { type: "boolean", default: false },
      only: { type: "string" },
    },
  });
  const peers = await preparePeers((line) => console.error(line));
  const counts = values.scale ? [100, 1_000, 10_000, 100_000] : [Number(values.names)];
  if (values.scale) {
    for (const count of [10_000, 200_000]) console.log(renderState(measureState(count)));
  }
  for (const names of counts) {
    const plan = {
      names,
      rounds: Number(values.rounds),
      seconds: Number(values.seconds),
      clients: Number(values.clients),
      peers,
      only: values.only,
    };
    console.log(
      `${names} names, two addresses each; latency at ${LATENCY_RATE} q/s; ${loadLine()}`,
    );
    console.log(renderFigures(await measure(plan)));
  }
  console.log(loadLine());
}
