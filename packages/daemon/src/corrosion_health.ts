/** When Corrosion is restarted. Pure. */

/** Corrosion may be silent this long before it is restarted, milliseconds. */
export const CORROSION_SILENT_MS = 30_000;
/** Pauses between two restarts, milliseconds: each is twice the one before, up to the last. */
export const RESTART_PAUSE_MS = { first: 30_000, max: 600_000 } as const;

/** What is remembered between two looks. Monotonic milliseconds. */
export interface CorrosionHealth {
  /** Since when it has not answered; undefined while it answers. */
  readonly silentSinceMs: number | undefined;
  readonly restarts: number;
  readonly restartedAtMs: number | undefined;
}

/** Before the first look. */
export const CORROSION_UNSEEN: CorrosionHealth = {
  silentSinceMs: undefined,
  restarts: 0,
  restartedAtMs: undefined,
};

/** The state after a look, and whether to restart now. */
export function judgeCorrosion(
  state: CorrosionHealth,
  look: { readonly answers: boolean; readonly nowMs: number },
): { readonly state: CorrosionHealth; readonly restart: boolean } {
  if (look.answers) return { state: CORROSION_UNSEEN, restart: false };
  const silentSinceMs = state.silentSinceMs ?? look.nowMs;
  const pauseMs = Math.min(
    RESTART_PAUSE_MS.first * 2 ** Math.max(0, state.restarts - 1),
    RESTART_PAUSE_MS.max,
  );
  const due = look.nowMs - silentSinceMs >= CORROSION_SILENT_MS &&
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
