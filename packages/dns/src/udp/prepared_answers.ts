/**
 * Answers made beforehand, in memory shared with the thread that sends them. Keyed by all bytes of
 * the query but its id: equal bytes deserve equal answers until the state changes.
 *
 * One thread writes (this class), one reads ({@link UdpWorker}). There are two halves; `epoch`
 * says which one counts (its lowest bit) and marks each slot, so that one store forgets everything.
 * A reader that sees the epoch move by two while it worked throws its work away.
 */

/** Slots of a half's hash table; a power of two, about twice the most entries we expect. */
export const SLOTS = 1 << 18;
/** Slots looked at for one key before it counts as absent. */
export const PROBES_MAX = 8;
/** 32-bit words of answers in a half: 24 MiB, of which only what is used becomes memory. */
export const ARENA_WORDS = 6 << 20;
/** Queries longer than this are not kept, octets. */
export const KEY_BYTES_MAX = 320;
/** Rotations kept of one answer. */
export const VARIANTS_MAX = 8;

/** Offset of an answer that was forgotten alone. */
export const DEAD = -1;

/** Words of the control block. */
export const CONTROL = { epoch: 0, stop: 1, pending: 2, words: 16 } as const;
/** Counters of the reader, 64-bit floats. */
export const COUNTER = {
  prepared: 0,
  missed: 1,
  overloaded: 2,
  foreign: 3,
  malformed: 4,
  batches: 5,
  words: 8,
} as const;

/** Memory that both threads see. */
export interface SharedAnswers {
  readonly control: SharedArrayBuffer;
  readonly counters: SharedArrayBuffer;
  /** Two halves: slots (offset, epoch), then arena. */
  readonly slots: SharedArrayBuffer;
  readonly arena: SharedArrayBuffer;
}

/** The writer's side. */
export class PreparedAnswers {
  /** What the reader gets. */
  readonly shared: SharedAnswers;
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #slots: Int32Array<SharedArrayBuffer>;
  readonly #arena: Int32Array<SharedArrayBuffer>;
  readonly #bytes: Uint8Array<SharedArrayBuffer>;
  readonly #keyBytes = new Uint8Array(KEY_BYTES_MAX + 4);
  readonly #keyWords = new Int32Array(this.#keyBytes.buffer);
  /** Slots of the answers that depend on each key. */
  readonly #dependants = new Map<string, number[]>();
  #epoch = 1;
  #used = 0;

  constructor() {
    this.shared = {
      control: new SharedArrayBuffer(CONTROL.words * 4),
      counters: new SharedArrayBuffer(COUNTER.words * 8),
      slots: new SharedArrayBuffer(2 * SLOTS * 2 * 4),
      arena: new SharedArrayBuffer(2 * ARENA_WORDS * 4),
    };
    this.#control = new Int32Array(this.shared.control);
    this.#slots = new Int32Array(this.shared.slots);
    this.#arena = new Int32Array(this.shared.arena);
    this.#bytes = new Uint8Array(this.shared.arena);
    Atomics.store(this.#control, CONTROL.epoch, this.#epoch);
  }

  /** Forgets the answers that depend on these keys, or all: something changed. */
  invalidate(keys?: readonly string[]): void {
    for (const key of keys ?? []) {
      for (const slot of this.#dependants.get(key) ?? []) {
        Atomics.store(this.#slots, slot, DEAD);
      }
      this.#dependants.delete(key);
    }
    if (keys) return;
    this.#dependants.clear();
    this.#epoch += 1;
    this.#used = 0;
    Atomics.store(this.#control, CONTROL.epoch, this.#epoch);
  }

  /**
   * Keeps the answers to `query`, all of one length, given in turn, until `dependency` changes.
   * False when the query is one that is not kept.
   */
  put(query: Uint8Array, variants: readonly Uint8Array[], dependency: string): boolean {
    const first = variants[0];
    if (!first || query.length > KEY_BYTES_MAX) return false;
    const kept = variants.slice(0, VARIANTS_MAX).filter((one) => one.length === first.length);
    const keyWords = this.#loadKey(query);
    const answerWords = (first.length + 3) >> 2;
    const words = 4 + keyWords + answerWords * kept.length;
    if (words > ARENA_WORDS) return false;
    if (this.#used + words > ARENA_WORDS) this.invalidate();
    let slot = this.#freeSlot(keyWords);
    if (slot < 0) {
      this.invalidate();
      slot = this.#freeSlot(keyWords);
    }
    const offset = (this.#epoch & 1) * ARENA_WORDS + this.#used;
    this.#arena.set([query.length, kept.length, first.length, answerWords], offset);
    this.#arena.set(this.#keyWords.subarray(0, keyWords), offset + 4);
    for (const [index, answer] of kept.entries()) {
      this.#bytes.set(answer, (offset + 4 + keyWords + index * answerWords) * 4);
    }
    this.#used += words;
    Atomics.store(this.#slots, slot, offset);
    Atomics.store(this.#slots, slot + 1, this.#epoch);
    const dependants = this.#dependants.get(dependency);
    if (dependants) dependants.push(slot);
    else this.#dependants.set(dependency, [slot]);
    return true;
  }

  /** The query without its id, padded with zeros to whole words; gives how many. */
  #loadKey(query: Uint8Array): number {
    const words = (query.length + 3) >> 2;
    this.#keyWords[words - 1] = 0;
    this.#keyBytes.set(query);
    this.#keyBytes[0] = 0;
    this.#keyBytes[1] = 0;
    return words;
  }

  #freeSlot(keyWords: number): number {
    // The same sum as in UdpWorker.
    let hash = 0;
    for (let index = 0; index < keyWords; index++) {
      hash = Math.imul(hash ^ (this.#keyWords[index] ?? 0), 0x9e3779b1);
      hash ^= hash >>> 15;
    }
    const half = (this.#epoch & 1) * SLOTS;
    for (let probe = 0; probe < PROBES_MAX; probe++) {
      const slot = (half + ((hash + probe) & (SLOTS - 1))) * 2;
      if (this.#slots[slot + 1] !== this.#epoch || this.#slots[slot] === DEAD) return slot;
    }
    return -1;
  }
}
