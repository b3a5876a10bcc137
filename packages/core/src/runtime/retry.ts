import type { Clock } from "./clock.ts";
import type { Random } from "./random.ts";

/** Shape of an exponential back-off with full upper jitter. */
export interface Backoff {
  /** First pause, milliseconds. */
  readonly firstMs: number;
  /** No pause is longer than this before jitter, milliseconds. */
  readonly maxMs: number;
  /** Up to this much is added at random, milliseconds. */
  readonly jitterMs: number;
}

/** The pause before try number `attempt` (1 = first retry). Pure but for the random draw. */
export function backoffMs(backoff: Backoff, attempt: number, random: Random): number {
  const exponent = Math.min(Math.max(attempt, 1) - 1, 30);
  const base = Math.min(backoff.firstMs * 2 ** exponent, backoff.maxMs);
  return base + Math.floor(random.next() * backoff.jitterMs);
}

/** How {@link waitFor} waits. */
export interface WaitForOptions {
  readonly clock: Clock;
  /** Give up after this long, milliseconds. */
  readonly timeoutMs: number;
  /** Pause between two looks, milliseconds. */
  readonly everyMs: number;
  readonly signal?: AbortSignal;
}

/**
 * Looks until `look` gives something other than `undefined`, or the deadline passes (then
 * `undefined`). It always looks at least once, and once more at the deadline.
 */
export async function waitFor<T>(
  look: () => Promise<T | undefined> | T | undefined,
  options: WaitForOptions,
): Promise<T | undefined> {
  const { clock, timeoutMs, everyMs, signal } = options;
  const deadlineMs = clock.monotonicMs() + timeoutMs;
  while (true) {
    signal?.throwIfAborted();
    const seen = await look();
    if (seen !== undefined) return seen;
    const leftMs = deadlineMs - clock.monotonicMs();
    if (leftMs <= 0) return undefined;
    await clock.sleep(Math.min(everyMs, leftMs), signal ? { signal } : {});
  }
}
