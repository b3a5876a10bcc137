/** When a service of this server that does not answer is restarted. Pure. */

/** Pauses between two restarts, milliseconds: each is twice the one before, up to the last. */
export const RESTART_PAUSE_MS = { first: 30_000, max: 600_000 } as const;

/** What is remembered between two looks. Monotonic milliseconds. */
export interface ServiceHealth {
  /** Since when it has not answered; undefined while it answers. */
  readonly silentSinceMs: number | undefined;
  readonly restarts: number;
  readonly restartedAtMs: number | undefined;
}

/** Before the first look. */
export const SERVICE_UNSEEN: ServiceHealth = {
  silentSinceMs: undefined,
  restarts: 0,
  restartedAtMs: undefined,
};

/** The state after a look, and whether to restart now; `silentMs` is how long it may be silent. */
export function judgeService(
  state: ServiceHealth,
  look: { readonly answers: boolean; readonly nowMs: number; readonly silentMs: number },
): { readonly state: ServiceHealth; readonly restart: boolean } {
  if (look.answers) return { state: SERVICE_UNSEEN, restart: false };
  const silentSinceMs = state.silentSinceMs ?? look.nowMs;
  const pauseMs = Math.min(
    RESTART_PAUSE_MS.first * 2 ** Math.max(0, state.restarts - 1),
    RESTART_PAUSE_MS.max,
  );
  const due = look.nowMs - silentSinceMs >= look.silentMs &&
    (state.restartedAtMs === undefined || look.nowMs - state.restartedAtMs >= pauseMs);
  return {
    state: {
      silentSinceMs,
      restarts: state.restarts + (due ? 1 : 0),
      restartedAtMs: due ? look.nowMs : state.restartedAtMs,
    },
    restart: due,
  };
}
