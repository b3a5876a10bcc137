/** `jiji-daemon probe`: the health gate of a deploy, with the very check the daemon runs later. */
import type { HealthCheck, ProbeReport } from "@jiji/core/cluster";
import { type Clock, isOk, JijiError, type Process } from "@jiji/core/runtime";
import { type HttpAnswer, STARTING_PAUSE_MS } from "../engine/container_health.ts";
import { type CheckNetwork, runCheck } from "../duties/checks.ts";
import { argvInspect, argvLogsTail, type Engine } from "../engine/argv.ts";
import { type ObservedContainer, parseInspected } from "../engine/containers.ts";
import { listeningPorts } from "../engine/listening_ports.ts";

/** Ports and limits of {@link probeContainer}. */
export interface ProbeOptions {
  readonly engine: Engine;
  readonly process: Process;
  readonly network: CheckNetwork;
  readonly clock: Clock;
  readonly timeoutMs: number;
}

/**
 * Limit of the first try; each later one gets twice as long, up to the check's own limit. A try that
 * hangs because the program was not ready for it must not use up the time of a short gate.
 */
const FIRST_TRY_MS = 1_000;
/** Tries kept in the report. */
const TRIES_MAX = 10;
/** Lines of the container's output in the report. */
const LOG_LINES = 30;
/** A container that exits and is restarted this often will not get healthy. */
const RESTARTS_MAX = 3;

const ENGINE_CHECK: HealthCheck = { kind: "engine", interval_ms: 5_000, timeout_ms: 5_000 };

/**
 * Runs the container's labelled check until it succeeds, the time is over, or the container has
 * ended.
 *
 * @throws {JijiError} when the engine knows no such container.
 */
export async function probeContainer(name: string, options: ProbeOptions): Promise<ProbeReport> {
  const { clock, timeoutMs } = options;
  const startMs = clock.monotonicMs();
  const tries: Try[] = [];
  let answer: HttpAnswer | null = null;
  let pauseMs: number = STARTING_PAUSE_MS.first;
  let limitMs = FIRST_TRY_MS;
  while (true) {
    const container = await inspect(name, options);
    const atMs = Math.round(clock.monotonicMs() - startMs);
    const ended = hasEnded(container);
    const leftMs = timeoutMs - atMs;
    if (!ended && leftMs > 0) {
      const check = container.labels?.health ?? ENGINE_CHECK;
      const ownMs = Math.min(check.timeout_ms, limitMs, Math.max(leftMs, 100));
      const limited = { ...check, timeout_ms: ownMs };
      limitMs *= 2;
      const outcome = await runCheck(container, limited, {
        ...options,
        nowMs: () => clock.nowMs(),
      });
      tries.push({ at_ms: atMs, outcome: outcome.text });
      answer = outcome.answer ?? null;
      if (outcome.ok) return healthyReport(container, tries);
    }
    if (ended || clock.monotonicMs() - startMs + pauseMs >= timeoutMs) {
      return await failureReport(await inspect(name, options), { options, tries, answer });
    }
    await clock.sleep(pauseMs);
    pauseMs = Math.min(pauseMs * 1.5, STARTING_PAUSE_MS.max);
  }
}

/** Not running now, or restarted by the engine again and again. */
function hasEnded(container: ObservedContainer): boolean {
  const waiting = !container.running && container.startedAtMs === 0;
  return (!container.running && !waiting && container.restarts === 0) ||
    container.restarts >= RESTARTS_MAX;
}

async function inspect(name: string, options: ProbeOptions): Promise<ObservedContainer> {
  const result = await options.process.run(argvInspect(options.engine, [name]), {
    timeoutMs: 10_000,
  });
  const container = isOk(result) ? parseInspected(result.stdout)[0] : undefined;
  if (container) return container;
  throw new JijiError(`${options.engine} does not show a container ${name}`, {
    hint: result.stderr.trim().slice(-300),
  });
}

interface Try {
  readonly at_ms: number;
  readonly outcome: string;
}

function stateOf(container: ObservedContainer): ProbeReport["state"] {
  return {
    running: container.running,
    // While the engine waits to start it again it counts as running, with the code of its last end.
    exit_code: container.running && container.exitCode === 0 ? null : container.exitCode,
    oom_killed: container.oomKilled,
    restarts: container.restarts,
    error: container.error ?? "",
  };
}

function healthyReport(container: ObservedContainer, tries: readonly Try[]): ProbeReport {
  return {
    healthy: true,
    tries: tries.slice(-TRIES_MAX),
    state: stateOf(container),
    logs_tail: "",
  };
}

/** Everything that may tell why the container did not get healthy. */
async function failureReport(
  container: ObservedContainer,
  o: {
    readonly options: ProbeOptions;
    readonly tries: readonly Try[];
    readonly answer: HttpAnswer | null;
  },
): Promise<ProbeReport> {
  const { engine, process } = o.options;
  const argv = argvLogsTail(engine, { id: container.id, lines: LOG_LINES });
  const check = container.labels?.health ?? ENGINE_CHECK;
  const isOurs = container.ip !== undefined;
  const [logs, listening, paths] = await Promise.all([
    process.run(argv, { timeoutMs: 10_000 }),
    // A container in the server's own network would show what is the server's.
    isOurs ? listeningPorts(container.pid, process) : null,
    o.answer?.status === 404 ? goodPaths(container, check, o.options) : [],
  ]);
  const { interval_ms: _, timeout_ms: __, ...shown } = check;
  return {
    healthy: false,
    tries: o.tries.slice(-TRIES_MAX),
    state: stateOf(container),
    logs_tail: `${logs.stdout}${logs.stderr}`.slice(-8_000),
    check: shown,
    answer: o.answer,
    good_paths: paths,
    listening,
  };
}

/** Where health checks often are; tried when nothing is at the path that was asked for. */
const COMMON_PATHS = ["/up", "/health", "/healthz", "/status", "/ping", "/"] as const;
/** Limit of each of those tries, milliseconds. */
const COMMON_PATH_TIMEOUT_MS = 1_000;

async function goodPaths(
  container: ObservedContainer,
  check: HealthCheck,
  options: ProbeOptions,
): Promise<string[]> {
  if (check.kind !== "http") return [];
  const others = COMMON_PATHS.filter((path) => path !== check.path);
  const outcomes = await Promise.all(others.map((path) => {
    const other = { ...check, path, timeout_ms: COMMON_PATH_TIMEOUT_MS };
    return runCheck(container, other, { ...options, nowMs: () => options.clock.nowMs() });
  }));
  return others.filter((_, index) => outcomes[index]?.ok);
}
