import type { Clock, SleepOptions } from "../src/runtime/clock.ts";

interface Timer {
  readonly atMs: number;
  readonly order: number;
  readonly fire: () => void;
  cancelled: boolean;
}

function isBefore(a: Timer, b: Timer): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** Fewer timers are not worth a look for cancelled ones. */
const TIDY_MIN = 1_024;

/** Timers by time, then by order of asking: a binary heap. */
class TimerHeap {
  #timers: Timer[] = [];
  #cancelled = 0;

  /** A timer will not fire. Most limits are never reached: when half are such, they are let go. */
  cancel(timer: Timer): void {
    if (timer.cancelled) return;
    timer.cancelled = true;
    this.#cancelled += 1;
    if (this.#timers.length < TIDY_MIN || this.#cancelled * 2 < this.#timers.length) return;
    // A sorted list is a heap.
    this.#timers = this.#timers.filter((one) => !one.cancelled)
      .sort((a, b) => isBefore(a, b) ? -1 : 1);
    this.#cancelled = 0;
  }

  get first(): Timer | undefined {
    while (this.#timers[0]?.cancelled) this.#pop();
    return this.#timers[0];
  }

  get pending(): number {
    return this.#timers.filter((timer) => !timer.cancelled).length;
  }

  push(timer: Timer): void {
    const timers = this.#timers;
    let at = timers.push(timer) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(timer, timers[parent]!)) break;
      timers[at] = timers[parent]!;
      at = parent;
    }
    timers[at] = timer;
  }

  take(): Timer | undefined {
    return this.first && this.#pop();
  }

  #pop(): Timer | undefined {
    const timers = this.#timers;
    const top = timers[0];
    if (top?.cancelled) this.#cancelled -= 1;
    const last = timers.pop();
    if (last === undefined || last === top) return top;
    let at = 0;
    for (let child = 1; child < timers.length; child = 2 * at + 1) {
      if (child + 1 < timers.length && isBefore(timers[child + 1]!, timers[child]!)) child += 1;
      if (!isBefore(timers[child]!, last)) break;
      timers[at] = timers[child]!;
      at = child;
    }
    timers[at] = last;
    return top;
  }
}

/** A clock that stands still until told to go on. Timers fire in order of time, then of asking. */
export class SimClock implements Clock {
  #nowMs: number;
  readonly #offsetMs: number;
  #order = 0;
  #fired = 0;
  readonly #timers = new TimerHeap();

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
        this.#timers.cancel(timer);
        reject(signal?.reason);
      };
      const timer: Timer = {
        atMs: this.#nowMs + Math.max(0, durationMs),
        order: this.#order++,
        cancelled: false,
        fire: () => {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      this.#timers.push(timer);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Calls back when the simulation has come that far: a timer that costs no promise. */
  after(durationMs: number, call: () => void): void {
    const atMs = this.#nowMs + Math.max(0, durationMs);
    this.#timers.push({ atMs, order: this.#order++, cancelled: false, fire: call });
  }

  /**
   * Lets `durationMs` pass, giving every timer's consequences room before the next one fires; with
   * `together`, before those of the next instant, which is quicker in large simulations.
   */
  async advance(
    durationMs: number,
    options: { readonly together?: boolean } = {},
  ): Promise<void> {
    const untilMs = this.#nowMs + durationMs;
    await settle();
    for (let next = this.#next(untilMs); next; next = this.#next(untilMs)) {
      const { atMs } = next;
      this.#nowMs = Math.max(this.#nowMs, atMs);
      this.#fire();
      while (options.together && this.#timers.first?.atMs === atMs) this.#fire();
      await settle();
    }
    this.#nowMs = untilMs;
  }

  #fire(): void {
    this.#fired += 1;
    this.#timers.take()?.fire();
  }

  /** Timers that have fired. */
  get fired(): number {
    return this.#fired;
  }

  /** Timers that have not fired. */
  get pending(): number {
    return this.#timers.pending;
  }

  #next(untilMs: number): Timer | undefined {
    const { first } = this.#timers;
    return first && first.atMs <= untilMs ? first : undefined;
  }
}

/** Lets promises that can settle do so. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
