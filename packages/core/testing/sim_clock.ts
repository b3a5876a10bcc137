import type { Clock, SleepOptions } from "../src/runtime/clock.ts";

interface Timer {
  readonly atMs: number;
  readonly order: number;
  readonly fire: () => void;
}

/** A clock that stands still until told to go on. Timers fire in order of time, then of asking. */
export class SimClock implements Clock {
  #nowMs: number;
  readonly #offsetMs: number;
  #order = 0;
  readonly #timers = new Set<Timer>();

  /** @param startMs monotonic origin; `wallOffsetMs` is what the wall clock shows beyond it. */
  constructor(startMs = 0, options: { readonly wallOffsetMs?: number } = {}) {
    this.#nowMs = startMs;
    this.#offsetMs = options.wallOffsetMs ?? 1_700_000_000_000;
  }

  /** Wall time: the monotonic time and a fixed offset. */
  nowMs(): number {
    return this.#nowMs + this.#offsetMs;
  }

  /** Simulated milliseconds since the start. */
  monotonicMs(): number {
    return this.#nowMs;
  }

  /** Resolves when the simulation has come that far. */
  sleep(durationMs: number, options: SleepOptions = {}): Promise<void> {
    const { signal } = options;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = () => {
        this.#timers.delete(timer);
        reject(signal?.reason);
      };
      const timer: Timer = {
        atMs: this.#nowMs + Math.max(0, durationMs),
        order: this.#order++,
        fire: () => {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      this.#timers.add(timer);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Lets `durationMs` pass, giving every timer's consequences room before the next one fires. */
  async advance(durationMs: number): Promise<void> {
    const untilMs = this.#nowMs + durationMs;
    await settle();
    for (let next = this.#next(untilMs); next; next = this.#next(untilMs)) {
      this.#timers.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.fire();
      await settle();
    }
    this.#nowMs = untilMs;
  }

  /** Timers that have not fired. */
  get pending(): number {
    return this.#timers.size;
  }

  #next(untilMs: number): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.#timers) {
      if (timer.atMs > untilMs) continue;
      if (
        !first || timer.atMs < first.atMs ||
        (timer.atMs === first.atMs && timer.order < first.order)
      ) first = timer;
    }
    return first;
  }
}

/** Lets promises that can settle do so. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
