/** Makes the commonest answers before anyone asks: after the start, and after each change. */
import type { Clock } from "@jiji/core/runtime";

/** Names warmed; a larger cluster's others are made when they are asked for. */
export const WARM_MAX = 100_000;
/** Names warmed in one go, so that queries are not kept waiting: about a millisecond. */
const SLICE = 64;
/** Pause between two goes while there is something to do, and while there is not, milliseconds. */
const BUSY_PAUSE_MS = 2;
const IDLE_PAUSE_MS = 100;

/** Names that wait for their answers to be made. */
export class Warmer {
  readonly #waiting = new Set<string>();

  /** A service's label whose answers are void now. */
  add(label: string): void {
    if (this.#waiting.size < WARM_MAX) this.#waiting.add(label);
  }

  /** Names waiting. */
  get size(): number {
    return this.#waiting.size;
  }

  /** Calls `prepare` for each waiting name, at its own pace, until the signal aborts. */
  async run(
    prepare: (label: string) => void,
    o: { readonly clock: Clock; readonly signal: AbortSignal },
  ): Promise<void> {
    while (!o.signal.aborted) {
      let left = SLICE;
      for (const label of this.#waiting) {
        if (left-- === 0) break;
        this.#waiting.delete(label);
        prepare(label);
      }
      const pauseMs = this.#waiting.size > 0 ? BUSY_PAUSE_MS : IDLE_PAUSE_MS;
      await o.clock.sleep(pauseMs, { signal: o.signal }).catch(() => undefined);
    }
  }
}
