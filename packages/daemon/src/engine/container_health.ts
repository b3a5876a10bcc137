/** From the outcomes of checks to a container's health. Pure. */
import type { HealthCheck } from "@jiji/core/cluster";
import type { ContainerRow, HealthStatus } from "@jiji/core/corrosion";

/** Failures in a row that make a container unhealthy; fewer make it degraded. */
export const FAILURES_UNHEALTHY = 3;
/** While starting, the pause between checks grows between these, milliseconds. */
export const STARTING_PAUSE_MS = { first: 200, max: 1_000 } as const;

/** How one check ended. */
export interface CheckOutcome {
  readonly ok: boolean;
  /** One line for people: `GET :3000/up → 503`. */
  readonly text: string;
  /** What a check by HTTP got. */
  readonly answer?: HttpAnswer;
}

/** Head of an HTTP answer. */
export interface HttpAnswer {
  readonly status: number;
  /** Lower-case names; only {@link TELLING_HEADERS}. */
  readonly headers: Readonly<Record<string, string>>;
  /** Beginning of the body. */
  readonly body: string;
}

/** Headers that tell why a check failed. */
export const TELLING_HEADERS: readonly string[] = [
  "content-type",
  "location",
  "retry-after",
  "server",
  "www-authenticate",
];

/** What is remembered of a container between checks. */
export interface HealthState {
  readonly status: HealthStatus;
  readonly failures: number;
  readonly checks: number;
  /** Unix ms; null unless unhealthy. */
  readonly unhealthySinceMs: number | null;
  /** Monotonic milliseconds. */
  readonly nextCheckAtMs: number;
  readonly lastOutcome: string;
  /** Seen in the daemon's first look: it may have run for long. */
  readonly wasThere: boolean;
}

/**
 * A container seen for the first time.
 *
 * @param o `wasThere`: the daemon has just started, and may find a row about it ({@link believeRow}).
 */
export function initialHealth(
  nowMs: number,
  o: { readonly wasThere?: boolean } = {},
): HealthState {
  return {
    status: "starting",
    failures: 0,
    checks: 0,
    unhealthySinceMs: null,
    nextCheckAtMs: nowMs,
    lastOutcome: "",
    wasThere: o.wasThere ?? false,
  };
}

/**
 * What a row says of a container that was there before the daemon stays true until a check says
 * otherwise: a restarted daemon must not empty the answers. Once a check passed, it knows better.
 */
export function believeRow(
  state: HealthState,
  row: Pick<ContainerRow, "health" | "unhealthySinceMs"> | undefined,
): HealthState {
  if (!row || !state.wasThere || state.status !== "starting") return state;
  const failures = row.health === "unhealthy" ? FAILURES_UNHEALTHY : state.failures;
  return { ...state, status: row.health, failures, unhealthySinceMs: row.unhealthySinceMs };
}

/**
 * The state after a check. Starting stays starting until the first success, however many checks
 * fail; later one failure degrades, {@link FAILURES_UNHEALTHY} in a row make unhealthy, and one
 * success heals.
 */
export function advanceHealth(
  state: HealthState,
  outcome: CheckOutcome,
  o: { readonly nowMs: number; readonly wallMs: number; readonly check: HealthCheck },
): HealthState {
  const failures = outcome.ok ? 0 : state.failures + 1;
  const status = nextStatus(state.status, failures);
  const checks = state.checks + 1;
  return {
    status,
    failures,
    checks,
    unhealthySinceMs: status === "unhealthy" ? state.unhealthySinceMs ?? o.wallMs : null,
    nextCheckAtMs: o.nowMs + pauseMs(status, { checks, check: o.check }),
    lastOutcome: outcome.text,
    wasThere: state.wasThere,
  };
}

function nextStatus(status: HealthStatus, failures: number): HealthStatus {
  if (failures === 0) return "healthy";
  if (status === "starting") return "starting";
  return failures >= FAILURES_UNHEALTHY ? "unhealthy" : "degraded";
}

function pauseMs(
  status: HealthStatus,
  o: { readonly checks: number; readonly check: HealthCheck },
): number {
  if (status !== "starting") return o.check.interval_ms;
  const grown = STARTING_PAUSE_MS.first * 2 ** Math.min(o.checks - 1, 10);
  return Math.min(grown, STARTING_PAUSE_MS.max);
}
