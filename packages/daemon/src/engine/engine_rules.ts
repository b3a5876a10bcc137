/** When Docker is restarted for its own firewall rules. Pure. */

/** Rules may be away this long: Docker puts them back itself when it is told of a reload, ms. */
export const RULES_GRACE_MS = 8_000;
/** Docker is restarted for its rules at most this often, milliseconds. */
export const RULES_RESTART_EVERY_MS = 600_000;

/** What is remembered between two looks. Monotonic milliseconds. */
export interface EngineRules {
  /** Whether Docker's rules were ever there: a Docker that manages no rules is left alone. */
  readonly seen: boolean;
  readonly missingSinceMs: number | undefined;
  readonly restartedAtMs: number;
}

/** Before the first look. */
export const RULES_UNSEEN: EngineRules = {
  seen: false,
  missingSinceMs: undefined,
  restartedAtMs: -Infinity,
};

/**
 * The state after a look, and whether to restart Docker now: it writes its rules when it starts, and
 * what flushes them (`nft flush ruleset`, a firewall that is started after it) leaves published
 * ports and the way out of containers dead until then. `refused`: it could not make a network for
 * want of its chains. Source: seen with Docker 20.10 and firewalld 1.3.
 */
export function judgeEngineRules(
  state: EngineRules,
  look: { readonly hasRules: boolean; readonly refused: boolean; readonly nowMs: number },
): { readonly state: EngineRules; readonly restart: boolean } {
  const { hasRules, refused, nowMs } = look;
  const seen = state.seen || hasRules;
  const missingSinceMs = hasRules || !seen ? undefined : state.missingSinceMs ?? nowMs;
  const isGone = missingSinceMs !== undefined && nowMs - missingSinceMs >= RULES_GRACE_MS;
  const restart = (isGone || (refused && !hasRules)) &&
    nowMs - state.restartedAtMs >= RULES_RESTART_EVERY_MS;
  return {
    state: { seen, missingSinceMs, restartedAtMs: restart ? nowMs : state.restartedAtMs },
    restart,
  };
}
