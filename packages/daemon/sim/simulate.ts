/** A whole run: calm, faults, calm again; the invariants are looked at in every step. */
import { seededRandom } from "@jiji/core/runtime";
import { keyOf } from "./facts.ts";
import { FaultMaker } from "./faults.ts";
import { momentProblems, settledProblems } from "./invariants.ts";
import { SimCluster } from "./sim_cluster.ts";

/** How large, how long, and which of all possible stories. */
export interface SimulationOptions {
  readonly servers: number;
  /** Simulated time with faults, milliseconds. */
  readonly faultMs: number;
  readonly seed: number;
  /** Whether links have preshared keys. Default: no. */
  readonly presharedKeys?: boolean;
  /** Told of each fault, with the simulated time. */
  readonly onFault?: (atMs: number, text: string) => void;
}

/** How it went. */
export interface SimulationReport {
  readonly faults: number;
  readonly datagrams: number;
  /** Everything that happened at an instant: arrivals, runs of duties, ends of waits. */
  readonly events: number;
  /** Simulated milliseconds, calm included. */
  readonly simulatedMs: number;
  /** Simulated milliseconds from the end of faults until everything was as it should be. */
  readonly settledAfterMs: number | undefined;
  readonly violations: readonly string[];
}

/** One fault after the other, this far apart, milliseconds. */
const FAULT_EVERY_MS = 6_000;
/** Before and after faults a cluster gets this long, and more the larger it is, milliseconds. */
const CALM_MS = 180_000;
const CALM_PER_SERVER_MS = 400;
/** A calm cluster changes nothing for this long, milliseconds. */
const QUIET_MS = 15_000;
const STEP_MS = 3_000;
/** The secret looks like a key; no server has this one. */
const SECRET_INDEX = (1 << 20) - 1;
/** A run ends after this many violations: the first ones tell. */
const VIOLATIONS_MAX = 20;

/** Runs a story; what it finds is in the report, never thrown. */
export async function simulate(options: SimulationOptions): Promise<SimulationReport> {
  const random = seededRandom(options.seed);
  const cluster = new SimCluster(options.servers, random, {
    secret: options.presharedKeys ? keyOf(SECRET_INDEX) : undefined,
  });
  const faults = new FaultMaker(cluster, random);
  const violations: string[] = [];
  const check = () => violations.push(...momentProblems(cluster));
  const calmMs = CALM_MS + CALM_PER_SERVER_MS * options.servers;
  let count = 0;
  const settle = async () => {
    const startedMs = cluster.clock.monotonicMs();
    let problems: string[] = [];
    while (cluster.clock.monotonicMs() - startedMs < calmMs + QUIET_MS) {
      await cluster.run(STEP_MS, check);
      // An operator does it again: a lost database forgot it, or the member asked was behind.
      if (faults.isUntidy) await faults.tidyUp();
      problems = settledProblems(cluster, {
        removed: faults.removed,
        gone: faults.goneAddresses,
        quietMs: QUIET_MS,
      });
      if (problems.length === 0) {
        return Math.max(0, cluster.clock.monotonicMs() - startedMs - QUIET_MS);
      }
    }
    violations.push(...problems.slice(0, VIOLATIONS_MAX));
    return undefined;
  };
  let settledAfterMs = await settle();
  for (let passedMs = 0; passedMs < options.faultMs; passedMs += FAULT_EVERY_MS) {
    if (violations.length > 0) break;
    const text = await faults.next();
    count += 1;
    options.onFault?.(cluster.clock.monotonicMs(), text);
    await cluster.run(FAULT_EVERY_MS, check);
  }
  if (violations.length === 0) {
    cluster.heal();
    await faults.tidyUp();
    for (const server of cluster.servers) {
      server.host.stepsUntilPowerLoss = undefined;
      if (!server.isUp) server.boot();
      server.skewMs = 0;
    }
    settledAfterMs = await settle();
  }
  await cluster.end();
  return {
    faults: count,
    datagrams: cluster.datagrams,
    events: cluster.clock.fired,
    simulatedMs: cluster.clock.monotonicMs(),
    settledAfterMs,
    violations: violations.slice(0, VIOLATIONS_MAX),
  };
}
