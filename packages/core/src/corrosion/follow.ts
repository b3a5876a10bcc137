import { backoffMs } from "../runtime/retry.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Logger } from "../runtime/logging.ts";
import type { Random } from "../runtime/random.ts";
import { messageOf } from "../runtime/errors.ts";
import { type CorrosionApi, CorrosionError } from "./api.ts";
import type { Statement } from "./statements.ts";
import type { StreamPosition, SubscriptionEvent, SubscriptionOptions } from "./subscription.ts";

/** Opens one subscription; {@link subscribe} bound to an address, or a simulated one. */
export type Subscribe = (
  statement: Statement,
  options: SubscriptionOptions,
) => AsyncIterable<SubscriptionEvent>;

/** Told of a table's parsed rows by {@link followTable}. The key is the first column. */
export interface TableSink<T> {
  /** All rows, after the first fill and after every resync. Rows missing here are gone. */
  onRows(rows: ReadonlyMap<string, T>): void;
  /** One row is new or different. */
  onRow(key: string, row: T): void;
  /** One row was deleted. */
  onGone(key: string): void;
  /** The rows that do not parse now: the reason by key, keys and reasons cut to a few words. */
  onRefused?(refused: ReadonlyMap<string, string>): void;
}

/** Ports and limits of {@link followTable}. */
export interface FollowOptions<T> {
  /** A select whose first column is the primary key. */
  readonly statement: Statement;
  readonly parse: (cells: readonly unknown[]) => T | { readonly refused: string };
  readonly sink: TableSink<T>;
  readonly subscribe: Subscribe;
  readonly api: CorrosionApi;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** Pauses between two tries to subscribe: soon at first, gentle with a Corrosion that is down. */
const RECONNECT = { firstMs: 250, maxMs: 10_000, jitterMs: 250 } as const;

/**
 * A stream that says nothing for this long is compared with a plain query, since Corrosion sends no
 * keep-alive lines. Comparing instead of reconnecting matters: klukai never forgets a closed idle
 * stream (peers.md 4.4).
 */
export const IDLE_CHECK_MS: number = 60_000;

/** So many rows that do not parse are told one by one; all are counted. */
const REFUSED_LOGGED_MAX = 100;

/** Keys of rows that do not parse are cut to this, characters: anyone may have written them. */
const REFUSED_KEY_MAX = 80;

/** Reasons quote what was written; they are cut to this, characters. */
const REFUSED_REASON_MAX = 120;

/** Control characters: in a reason that is shown they could rewrite a screen. */
// deno-lint-ignore no-control-regex
const CONTROL = /[\x00-\x1f\x7f-\x9f]/g;

/** Stands for rows that were too long to be read at all. */
const OVERLONG_KEY = "(overlong)";

/** Rows whose text is longer are remembered by a digest of it, characters. */
const RAW_TEXT_MAX = 4_096;

/** The first comparison after a resume comes sooner: a position Corrosion lost is met by silence. */
const RESUMED_CHECK_MS = 3_000;

/**
 * Keeps a sink equal to a table of the local Corrosion until the signal aborts: subscribes, resumes
 * by change id after a cut, and starts over from all rows after a gap, a refusal, or when Corrosion
 * answers with another query. Rows that do not parse are skipped, told to the sink and logged once
 * per key and reason; a bad update keeps the last good row.
 */
export async function followTable<T>(options: FollowOptions<T>): Promise<void> {
  const follower = new Follower(options);
  let reported = "";
  for (let attempt = 1; !options.signal.aborted; attempt++) {
    const { heard, isForgotten, error } = await follower.connectOnce();
    if (options.signal.aborted) return;
    // Who answers that a position is unknown answers: all rows are to be had soon.
    if (heard || isForgotten) attempt = 1;
    if (heard || messageOf(error) !== reported) {
      options.logger.warn("subscription ended, trying again", {
        statement: options.statement[0].replace(/^.* FROM /, ""),
        error: messageOf(error),
      });
    }
    reported = messageOf(error);
    const pauseMs = backoffMs(RECONNECT, attempt, options.random);
    await options.clock.sleep(pauseMs, { signal: options.signal }).catch(() => undefined);
  }
}

class Follower<T> {
  readonly #options: FollowOptions<T>;
  readonly #rows = new Map<string, T>();
  /** Raw cells by key as JSON, to compare with a query. */
  #raw = new Map<string, string>();
  /** Reasons of rows that do not parse, by key. */
  readonly #refused = new Map<string, string>();
  #position: StreamPosition | undefined;
  #filling: Map<string, readonly unknown[]> | undefined;

  constructor(options: FollowOptions<T>) {
    this.#options = options;
  }

  /** One connection, until it ends. A refused resume forgets the position. */
  async connectOnce(): Promise<{ heard: boolean; isForgotten: boolean; error: unknown }> {
    const { signal, statement, subscribe } = this.#options;
    const cut = new AbortController();
    const both = AbortSignal.any([signal, cut.signal]);
    // From 0 Corrosion sends all rows again: that is a fresh start, not a resume.
    const resuming = this.#position && this.#position.changeId > 0 ? this.#position : undefined;
    if (!resuming) this.#position = undefined;
    let heard = false;
    try {
      const events = subscribe(statement, {
        signal: both,
        ...(resuming ? { resume: resuming } : {}),
      })[Symbol.asyncIterator]();
      if (!resuming) {
        this.#filling = new Map();
        this.#refused.delete(OVERLONG_KEY);
      }
      let quietMs = resuming ? RESUMED_CHECK_MS : IDLE_CHECK_MS;
      let pending = events.next();
      while (true) {
        const event = await this.#nextWithin(pending, quietMs, both);
        if (event === "quiet") {
          await this.#compare();
          quietMs = IDLE_CHECK_MS;
          continue;
        }
        if (event.done) throw new CorrosionError("corrosion closed the stream", { isCut: true });
        if (event.value.kind !== "opened") heard = true;
        this.#take(event.value);
        pending = events.next();
      }
    } catch (error) {
      const isForgotten = resuming !== undefined && !isCut(error);
      if (!isCut(error)) this.#position = undefined;
      return { heard, isForgotten, error };
    } finally {
      cut.abort();
    }
  }

  async #nextWithin(
    pending: Promise<IteratorResult<SubscriptionEvent>>,
    quietMs: number,
    signal: AbortSignal,
  ): Promise<IteratorResult<SubscriptionEvent> | "quiet"> {
    const timer = new AbortController();
    const quiet = this.#options.clock
      .sleep(quietMs, { signal: AbortSignal.any([timer.signal, signal]) })
      .then(() => "quiet" as const);
    quiet.catch(() => undefined);
    pending.catch(() => undefined);
    try {
      return await Promise.race([pending, quiet]);
    } finally {
      timer.abort();
    }
  }

  #take(event: SubscriptionEvent): void {
    switch (event.kind) {
      case "opened":
        if (this.#position && this.#position.queryId !== event.queryId) {
          this.#position = undefined;
          throw new GapError("corrosion answered with another query");
        }
        this.#position ??= { queryId: event.queryId, changeId: 0 };
        return;
      case "overlong":
        this.#refused.set(OVERLONG_KEY, "longer than any row of ours");
        return;
      case "row":
        this.#filling?.set(String(event.cells[0]), event.cells);
        return;
      case "ready":
        this.#advance(event.changeId);
        if (this.#filling) this.#replaceAll(this.#filling);
        this.#filling = undefined;
        return;
      case "change":
        this.#advance(event.changeId);
        if (event.type === "delete") this.#remove(String(event.cells[0]));
        else this.#put(event.cells);
    }
  }

  #advance(changeId: number): void {
    if (this.#position) this.#position = { ...this.#position, changeId };
  }

  #replaceAll(all: ReadonlyMap<string, readonly unknown[]>): void {
    const before = new Map(this.#rows);
    this.#rows.clear();
    this.#raw = new Map();
    for (const key of this.#refused.keys()) {
      if (!all.has(key) && key !== OVERLONG_KEY) this.#refused.delete(key);
    }
    for (const [key, cells] of all) {
      const row = this.#parse(key, cells) ?? before.get(key);
      this.#raw.set(key, digestOf(cells));
      if (row !== undefined) this.#rows.set(key, row);
    }
    this.#options.sink.onRows(this.#rows);
    this.#tellRefused();
  }

  #put(cells: readonly unknown[]): void {
    const key = String(cells[0]);
    const wasRefused = this.#refused.get(key);
    const row = this.#parse(key, cells);
    this.#raw.set(key, digestOf(cells));
    if (wasRefused !== this.#refused.get(key)) this.#tellRefused();
    if (row === undefined) return;
    this.#rows.set(key, row);
    this.#options.sink.onRow(key, row);
  }

  #remove(key: string): void {
    this.#raw.delete(key);
    if (this.#refused.delete(key)) this.#tellRefused();
    if (this.#rows.delete(key)) this.#options.sink.onGone(key);
  }

  #parse(key: string, cells: readonly unknown[]): T | undefined {
    const row = this.#options.parse(cells);
    if (!isRefused(row)) {
      this.#refused.delete(key);
      return row;
    }
    const reason = row.refused.replace(CONTROL, "?").slice(0, REFUSED_REASON_MAX);
    if (this.#refused.get(key) !== reason && this.#refused.size < REFUSED_LOGGED_MAX) {
      const shown = key.slice(0, REFUSED_KEY_MAX);
      this.#options.logger.warn("row skipped", { key: shown, reason });
    }
    this.#refused.set(key, reason);
    return undefined;
  }

  #tellRefused(): void {
    const cut = [...this.#refused].map(([key, reason]) =>
      [key.slice(0, REFUSED_KEY_MAX), reason] as const
    );
    this.#options.sink.onRefused?.(new Map(cut));
  }

  /** @throws {GapError} when a plain query shows other rows than the stream did. */
  async #compare(): Promise<void> {
    const seen = this.#raw;
    const rows = await this.#options.api.query(this.#options.statement);
    const same = rows.length === seen.size &&
      rows.every((cells) => seen.get(String(cells[0])) === digestOf(cells));
    if (same) return;
    // A change may still be on its way through the stream: starting over is cheap and always right.
    this.#position = undefined;
    throw new GapError("the stream and the table differ");
  }
}

/** Text of a row to compare it by; that of a huge one is not kept. */
function digestOf(cells: readonly unknown[]): string {
  const text = JSON.stringify(cells);
  if (text.length <= RAW_TEXT_MAX) return text;
  let hash = 0;
  for (let at = 0; at < text.length; at++) hash = (Math.imul(hash, 31) + text.charCodeAt(at)) | 0;
  return `${text.length} ${hash} ${text.slice(0, 200)}`;
}

/** The position is of no use any more; the next connection reads all rows. */
class GapError extends Error {}

/** Whether the connection was lost, as opposed to Corrosion having refused or skipped something. */
function isCut(error: unknown): boolean {
  if (error instanceof GapError || error instanceof SyntaxError) return false;
  return !(error instanceof CorrosionError) || error.isCut;
}

function isRefused(row: unknown): row is { readonly refused: string } {
  return typeof row === "object" && row !== null && "refused" in row;
}
