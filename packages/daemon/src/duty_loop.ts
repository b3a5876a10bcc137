/** Runs duties side by side, each at its own pace, none able to stop another. */
import { type Clock, type Logger, messageOf } from "@jiji/core/runtime";

/** One of the daemon's duties. */
export interface Duty {
  readonly name: string;
  /** Pause between two runs, milliseconds; a wake-up or `run`'s own result may shorten it. */
  readonly everyMs: number;
  /** A run that takes longer is given up, milliseconds; its signal aborts. */
  readonly timeoutMs: number;
  /** One run. A number is the pause before the next, milliseconds. */
  readonly run: (signal: AbortSignal) => Promise<number | void>;
}

/** Runs of one duty start at least this far apart, however often it is woken, milliseconds. */
export const DUTY_GAP_MS = 100;

/** A duty that failed is tried again after this long at the latest, milliseconds. */
export const DUTY_RETRY_MS = 5_000;

/** How a duty's runs went. */
export interface DutyStats {
  readonly runs: number;
  readonly failures: number;
  readonly totalMs: number;
  readonly lastMs: number;
  /** Why the last run failed; undefined when it did not. */
  readonly error: string | undefined;
}

/** Why a timer is not needed any more; as a constant it costs no stack trace each time. */
const OVER = new Error("over");

/** Ports of the loop. */
export interface DutyLoopOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** A running set of duties. */
export class DutyLoop {
  readonly #options: DutyLoopOptions;
  readonly #duties: readonly Duty[];
  readonly #wakes = new Map<string, PromiseWithResolvers<void>>();

  /** How each duty's runs went, by name. */
  readonly stats = new Map<string, DutyStats>();

  constructor(duties: readonly Duty[], options: DutyLoopOptions) {
    this.#duties = duties;
    this.#options = options;
    for (const duty of duties) this.#wakes.set(duty.name, Promise.withResolvers());
  }

  /** Asks for a run of a duty soon: at once when it rests, after its present run otherwise. */
  wake(name: string): void {
    this.#wakes.get(name)?.resolve();
  }

  /** Until the signal aborts and every duty has ended its present run. */
  async run(): Promise<void> {
    await Promise.all(this.#duties.map((duty) => this.#repeat(duty)));
  }

  async #repeat(duty: Duty): Promise<void> {
    const { clock, signal } = this.#options;
    let lastError = "";
    while (!signal.aborted) {
      this.#wakes.set(duty.name, Promise.withResolvers());
      const startMs = clock.monotonicMs();
      let pauseMs = duty.everyMs;
      try {
        pauseMs = await this.#runOnce(duty) ?? duty.everyMs;
        if (lastError) this.#options.logger.info("duty works again", { duty: duty.name });
        lastError = "";
        this.#count(duty, { startMs, error: undefined });
      } catch (error) {
        if (signal.aborted) return;
        pauseMs = Math.min(duty.everyMs, DUTY_RETRY_MS);
        const reason = messageOf(error);
        // The same failure tick after tick is said once.
        if (reason !== lastError) {
          this.#options.logger.warn("duty failed", { duty: duty.name, error: reason });
        }
        lastError = reason;
        this.#count(duty, { startMs, error: reason });
      }
      await this.#rest(duty, { startMs, pauseMs });
    }
  }

  #count(
    duty: Duty,
    run: { readonly startMs: number; readonly error: string | undefined },
  ): void {
    const before = this.stats.get(duty.name);
    const lastMs = this.#options.clock.monotonicMs() - run.startMs;
    this.stats.set(duty.name, {
      runs: (before?.runs ?? 0) + 1,
      failures: (before?.failures ?? 0) + (run.error === undefined ? 0 : 1),
      totalMs: (before?.totalMs ?? 0) + lastMs,
      lastMs,
      error: run.error,
    });
  }

  async #runOnce(duty: Duty): Promise<number | void> {
    const { clock, signal } = this.#options;
    const limit = new AbortController();
    const timer = new AbortController();
    const given = Promise.withResolvers<never>();
    const giveUp = (reason: unknown) => {
      limit.abort(reason);
      given.reject(reason);
    };
    const onStop = () => giveUp(signal.reason);
    signal.addEventListener("abort", onStop);
    clock.sleep(duty.timeoutMs, { signal: timer.signal }).then(
      () => giveUp(new Error(`${duty.name} took longer than ${duty.timeoutMs} ms`)),
      () => undefined,
    );
    given.promise.catch(() => undefined);
    const work = duty.run(limit.signal);
    work.catch(() => undefined);
    try {
      return await Promise.race([work, given.promise]);
    } catch (error) {
      // Never two runs of one duty: an overdue one has been told to stop and is waited for.
      if (!signal.aborted) await work.catch(() => undefined);
      throw error;
    } finally {
      signal.removeEventListener("abort", onStop);
      timer.abort(OVER);
    }
  }

  /** Until the pause is over, or a wake-up after the least gap between two runs. */
  async #rest(
    duty: Duty,
    o: { readonly startMs: number; readonly pauseMs: number },
  ): Promise<void> {
    const { clock, signal } = this.#options;
    const over = new AbortController();
    const stop = () => over.abort(OVER);
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
    const sleep = (ms: number) => clock.sleep(ms, { signal: over.signal }).catch(() => undefined);
    const wake = this.#wakes.get(duty.name)?.promise;
    await Promise.race([sleep(Math.max(o.pauseMs, 1)), wake]);
    const sinceMs = clock.monotonicMs() - o.startMs;
    const gapMs = Math.min(DUTY_GAP_MS, o.pauseMs) - sinceMs;
    if (gapMs > 0) await sleep(gapMs);
    signal.removeEventListener("abort", stop);
    stop();
  }
}
