/** `jiji-daemon probe`: the health gate of a deploy, with the very check the daemon runs later. */
import type { HealthCheck, ProbeReport } from "@jiji/core/cluster";
import { type Clock, isOk, JijiError, type Process } from "@jiji/core/runtime";
import { STARTING_PAUSE_MS } from "../container_health.ts";
import { type CheckNetwork, runCheck } from "../duties/checks.ts";
import { argvInspect, argvLogsTail, type Engine } from "../engine/argv.ts";
import { type ObservedContainer, parseInspected } from "../engine/containers.ts";

/** Ports and limits of {@link probeContainer}. */
export interface ProbeOptions {
  readonly engine: Engine;
  readonly process: Process;
  readonly network: CheckNetwork;
  readonly clock: Clock;
  readonly timeoutMs: number;
}

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
  const tries: { at_ms: number; outcome: string }[] = [];
  let pauseMs: number = STARTING_PAUSE_MS.first;
  while (true) {
    const container = await inspect(name, options);
    const atMs = Math.round(clock.monotonicMs() - startMs);
    const ended = hasEnded(container);
    const leftMs = timeoutMs - atMs;
    if (!ended && leftMs > 0) {
      const check = container.labels?.health ?? ENGINE_CHECK;
      const limited = { ...check, timeout_ms: Math.min(check.timeout_ms, Math.max(leftMs, 100)) };
      const outcome = await runCheck(container, limited, {
        ...options,
        nowMs: () => clock.nowMs(),
      });
      tries.push({ at_ms: atMs, outcome: outcome.text });
      if (outcome.ok) return await report(container, { options, healthy: true, tries });
    }
    if (ended || clock.monotonicMs() - startMs + pauseMs >= timeoutMs) {
      return await report(await inspect(name, options), { options, healthy: false, tries });
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

async function report(
  container: ObservedContainer,
  o: {
    readonly options: ProbeOptions;
    readonly healthy: boolean;
    readonly tries: { at_ms: number; outcome: string }[];
  },
): Promise<ProbeReport> {
  const argv = argvLogsTail(o.options.engine, { id: container.id, lines: LOG_LINES });
  const logs = o.healthy ? undefined : await o.options.process.run(argv, { timeoutMs: 10_000 });
  return {
    healthy: o.healthy,
    tries: o.tries.slice(-TRIES_MAX),
    state: {
      running: container.running,
      exit_code: container.running ? null : container.exitCode,
      oom_killed: container.oomKilled,
      restarts: container.restarts,
    },
    logs_tail: logs ? `${logs.stdout}${logs.stderr}`.slice(-8_000) : "",
  };
}
