/** When Docker is restarted for its own firewall rules. Pure. */
import type { ObservedFirewall } from "./iptables_rules.ts";

/** Rules may be away this long: Docker puts them back itself when it is told of a reload, ms. */
export const RULES_GRACE_MS = 8_000;
/** Pause after the first restart of Docker for its rules, doubled after each other one, ms. */
export const RULES_RESTART_PAUSE_MS = 60_000;
/** Longest such pause, and the time after which restarts of before are forgotten, milliseconds. */
export const RULES_RESTART_PAUSE_MAX_MS = 600_000;

/** What is remembered between two looks. Monotonic milliseconds. */
export interface EngineRules {
  /** Whether Docker's rules were ever there: a Docker that manages no rules is left alone. */
  readonly seen: boolean;
  readonly missingSinceMs: number | undefined;
  readonly restartedAtMs: number;
  /** Until when Docker is not restarted again. */
  readonly restAtLeastMs: number;
}

/** Before the first look. */
export const RULES_UNSEEN: EngineRules = {
  seen: false,
  missingSinceMs: undefined,
  restartedAtMs: -Infinity,
  restAtLeastMs: 0,
};

/** What `iptables-save` tells of Docker's own rules. */
export interface EngineRulesLook {
  /** Both ways into its chains are there: for published ports, and for all that is forwarded. */
  readonly hasRules: boolean;
  /** Chains of its own are there: it manages rules, should these be gone or not. */
  readonly hasChains: boolean;
}

/**
 * Looks for Docker's rules in the tables `nat` and `filter`. Source: Docker 20.10, 28 (whose chain
 * is DOCKER-FORWARD).
 */
export function observeEngineRules(observed: ObservedFirewall): EngineRulesLook {
  const has = (table: "nat" | "filter", line: RegExp) =>
    (observed[table] ?? []).some((text) => line.test(text));
  return {
    hasRules: has("nat", /^-A PREROUTING .*-j DOCKER$/) &&
      has("filter", /^-A FORWARD .*-j DOCKER(-[A-Z0-9-]+)?$/),
    hasChains: has("nat", /^:DOCKER /) || has("filter", /^:DOCKER /),
  };
}

/**
 * The state after a look, and whether to restart Docker now: it writes its rules when it starts, and
 * what flushes them (`nft flush ruleset`, `iptables -F`, a firewall that is started after it) leaves
 * published ports and the ways of containers dead until then. `refused`: it could not make a network for
 * want of its chains. Source: seen with Docker 20.10 and firewalld 1.3.
 */
export function judgeEngineRules(
  state: EngineRules,
  look: EngineRulesLook & { readonly refused: boolean; readonly nowMs: number },
): { readonly state: EngineRules; readonly restart: boolean } {
  const { hasRules, refused, nowMs } = look;
  const seen = state.seen || hasRules || look.hasChains;
  const missingSinceMs = hasRules || !seen ? undefined : state.missingSinceMs ?? nowMs;
  const isGone = missingSinceMs !== undefined && nowMs - missingSinceMs >= RULES_GRACE_MS;
  const agoMs = nowMs - state.restartedAtMs;
  const restart = (isGone || (refused && !hasRules)) && agoMs >= state.restAtLeastMs;
  if (!restart) return { state: { ...state, seen, missingSinceMs }, restart };
  const isFirst = agoMs >= state.restAtLeastMs + RULES_RESTART_PAUSE_MAX_MS;
  const restAtLeastMs = isFirst
    ? RULES_RESTART_PAUSE_MS
    : Math.min(2 * state.restAtLeastMs, RULES_RESTART_PAUSE_MAX_MS);
  return {
    // Rules of a Docker that comes back without them are missing anew.
    state: { seen, missingSinceMs: undefined, restartedAtMs: nowMs, restAtLeastMs },
    restart,
  };
}
