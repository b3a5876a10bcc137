/** Options of a wait. */
export interface SleepOptions {
  /** Ends the wait early; the promise then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Time as a port, so that the same code runs against the wall and against a simulation. */
export interface Clock {
  /** Wall clock, Unix milliseconds, UTC. May jump. */
  nowMs(): number;
  /** Milliseconds from an arbitrary origin; never goes back. For measuring and deadlines. */
  monotonicMs(): number;
  /** Resolves after `durationMs`, or rejects when the signal aborts. */
  sleep(durationMs: number, options?: SleepOptions): Promise<void>;
}

/** A clock whose wall time is ahead of another's, or behind it when negative. */
export function shiftedClock(clock: Clock, offsetMs: number): Clock {
  return {
    nowMs: () => clock.nowMs() + offsetMs,
    monotonicMs: () => clock.monotonicMs(),
    sleep: (durationMs, options) => clock.sleep(durationMs, options),
  };
}

/** The machine's own clock. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (durationMs, { signal } = {}) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = () => {
        clearTimeout(timer);
        reject(signal?.reason);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      }, Math.max(0, durationMs));
      signal?.addEventListener("abort", onAbort, { once: true });
    }),
};
