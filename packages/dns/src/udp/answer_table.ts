/**
 * What each name leads to, in memory shared with the threads that answer (see `table_reader.ts`):
 * some 50 octets a name, so that every answer is ready before it is first asked for.
 *
 * One thread writes (this class), any number read. `version` is odd while an entry is being
 * written; a reader that saw it odd, or that sees it changed when it is done, throws its work away.
 */

/** Slots of the hash table; a power of two. What is not used costs no memory. */
export const SLOTS: number = 1 << 20;
/** More names than this are left to the main thread: a fuller table would be searched slowly. */
export const ENTRIES_MAX: number = SLOTS * 3 / 4;
/** 32-bit words of all entries: 64 MiB, of which only what is used becomes memory. */
export const ARENA_WORDS: number = 1 << 24;
/** Two labels of 63 octets and the dot: longer names cannot be asked for (RFC 1035 section 2.3.4). */
export const KEY_BYTES_MAX = 127;
/** Services with more addresses are left to the main thread; some 70 fit into one UDP answer. */
export const ADDRESSES_MAX = 128;

/** Words of the control block. */
export const TABLE_CONTROL = { version: 0, state: 1, words: 16 } as const;

/** How much the table may be trusted: nothing is known, names may be missing, all are in it. */
export const TABLE_STATE = { unfilled: 0, partial: 1, complete: 2 } as const;

/** Words before an entry's key: its hash, {@link FLAG} bits and lengths, numbers of addresses. */
export const ENTRY_HEADER_WORDS = 3;

/**
 * Bits of an entry's second word; the lowest 8 are the key's length, the next 8 the project's,
 * octets.
 */
export const FLAG = {
  /** A service or instance has this name. */
  name: 1 << 16,
  /** A project has this name: it exists, without records of its own. */
  project: 1 << 17,
  /** The main thread must be asked. */
  ask: 1 << 18,
} as const;

/** Memory that all threads see. */
export interface SharedTable {
  readonly control: SharedArrayBuffer;
  /** Offset of an entry in `arena`, in words; 0 is an empty slot. */
  readonly slots: SharedArrayBuffer;
  readonly arena: SharedArrayBuffer;
}

/** What a name leads to. */
export interface TableEntry {
  /** IPv4 addresses as numbers, without doubles, those of this server first. */
  readonly addresses: readonly number[];
  /** How many of them are this server's. */
  readonly near: number;
  /** Project of all containers with this name; undefined when they are of several. */
  readonly project: string | undefined;
  readonly isName: boolean;
  readonly isProject: boolean;
}

/** The writer's side. */
export class AnswerTable {
  /** What the readers get. */
  readonly shared: SharedTable;
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #slots: Int32Array<SharedArrayBuffer>;
  readonly #arena: Int32Array<SharedArrayBuffer>;
  readonly #bytes: Uint8Array<SharedArrayBuffer>;
  readonly #keyBytes = new Uint8Array(KEY_BYTES_MAX + 1);
  readonly #keyWords = new Int32Array(this.#keyBytes.buffer);
  /** Offsets of freed entries by their size in words. */
  readonly #free = new Map<number, number[]>();
  /** Offset 0 means "empty", so nothing lies there. */
  #used = ENTRY_HEADER_WORDS;
  #entries = 0;
  #isOverfull = false;

  constructor() {
    this.shared = {
      control: new SharedArrayBuffer(TABLE_CONTROL.words * 4),
      slots: new SharedArrayBuffer(SLOTS * 4),
      arena: new SharedArrayBuffer(ARENA_WORDS * 4),
    };
    this.#control = new Int32Array(this.shared.control);
    this.#slots = new Int32Array(this.shared.slots);
    this.#arena = new Int32Array(this.shared.arena);
    this.#bytes = new Uint8Array(this.shared.arena);
  }

  /** Names in the table. */
  get size(): number {
    return this.#entries;
  }

  /** From now on readers may answer; before, every query is the main thread's. */
  open(): void {
    const state = this.#isOverfull ? TABLE_STATE.partial : TABLE_STATE.complete;
    Atomics.store(this.#control, TABLE_CONTROL.state, state);
  }

  /** From now on `key` leads to this; undefined takes it out. */
  put(key: string, entry: TableEntry | undefined): void {
    if (key.length === 0 || key.length > KEY_BYTES_MAX) return;
    const keyWords = this.#loadKey(key);
    const hash = hashOf(this.#keyWords, keyWords);
    const slot = this.#find(hash, keyWords);
    const old = this.#slots[slot]!;
    if (!entry) return old === 0 ? undefined : this.#locked(() => this.#remove(slot));
    if (old === 0 && this.#entries >= ENTRIES_MAX) return this.#overfull();
    const addresses = entry.addresses.length > ADDRESSES_MAX ? [] : entry.addresses;
    const words = sizeClass(ENTRY_HEADER_WORDS + keyWords + addresses.length);
    const offset = old !== 0 && this.#wordsAt(old) === words ? old : this.#allocate(words);
    if (offset === undefined) {
      this.#overfull();
      return old === 0 ? undefined : this.#locked(() => this.#remove(slot));
    }
    this.#locked(() => {
      if (old !== 0 && old !== offset) this.#release(old);
      if (old === 0) this.#entries += 1;
      const counts = addresses.length | (entry.near << 16);
      this.#arena[offset] = hash;
      this.#arena[offset + 1] = headOf(entry, key);
      this.#arena[offset + 2] = addresses.length === 0 ? 0 : counts;
      const at = offset + ENTRY_HEADER_WORDS;
      for (let word = 0; word < keyWords; word++) this.#arena[at + word] = this.#keyWords[word]!;
      this.#putAddresses(addresses, (at + keyWords) * 4);
      this.#slots[slot] = offset;
    });
  }

  /** Octets in the order of the wire. */
  #putAddresses(addresses: readonly number[], start: number): void {
    for (const [index, address] of addresses.entries()) {
      const at = start + index * 4;
      this.#bytes[at] = address >>> 24;
      this.#bytes[at + 1] = (address >> 16) & 255;
      this.#bytes[at + 2] = (address >> 8) & 255;
      this.#bytes[at + 3] = address & 255;
    }
  }

  #locked(write: () => void): void {
    Atomics.add(this.#control, TABLE_CONTROL.version, 1);
    write();
    Atomics.add(this.#control, TABLE_CONTROL.version, 1);
  }

  /** A name is left out: what is not found may exist after all. */
  #overfull(): void {
    this.#isOverfull = true;
    const { state } = TABLE_CONTROL;
    Atomics.compareExchange(this.#control, state, TABLE_STATE.complete, TABLE_STATE.partial);
  }

  /** The key, padded with zeros to whole words; gives how many. */
  #loadKey(key: string): number {
    const words = (key.length + 3) >> 2;
    this.#keyWords[words - 1] = 0;
    for (let index = 0; index < key.length; index++) this.#keyBytes[index] = key.charCodeAt(index);
    return words;
  }

  /** The key's slot, or the empty one where it belongs. */
  #find(hash: number, keyWords: number): number {
    for (let slot = hash & (SLOTS - 1);; slot = (slot + 1) & (SLOTS - 1)) {
      const offset = this.#slots[slot]!;
      if (offset === 0 || (this.#arena[offset] === hash && this.#hasKey(offset, keyWords))) {
        return slot;
      }
    }
  }

  #hasKey(offset: number, keyWords: number): boolean {
    if (this.#keyWordsAt(offset) !== keyWords) return false;
    for (let word = 0; word < keyWords; word++) {
      if (this.#arena[offset + ENTRY_HEADER_WORDS + word] !== this.#keyWords[word]) return false;
    }
    return true;
  }

  /** Empties a slot and moves those behind it up, so that no search ends at the gap. */
  #remove(slot: number): void {
    this.#release(this.#slots[slot]!);
    this.#entries -= 1;
    let gap = slot;
    for (let at = (slot + 1) & (SLOTS - 1);; at = (at + 1) & (SLOTS - 1)) {
      const offset = this.#slots[at]!;
      if (offset === 0) break;
      const home = this.#arena[offset]! & (SLOTS - 1);
      if (((at - home) & (SLOTS - 1)) < ((at - gap) & (SLOTS - 1))) continue;
      this.#slots[gap] = offset;
      gap = at;
    }
    this.#slots[gap] = 0;
  }

  #keyWordsAt(offset: number): number {
    return ((this.#arena[offset + 1]! & 255) + 3) >> 2;
  }

  #wordsAt(offset: number): number {
    const addresses = this.#arena[offset + 2]! & 0xffff;
    return sizeClass(ENTRY_HEADER_WORDS + this.#keyWordsAt(offset) + addresses);
  }

  #allocate(words: number): number | undefined {
    const freed = this.#free.get(words)?.pop();
    if (freed !== undefined) return freed;
    if (this.#used + words > ARENA_WORDS) return undefined;
    this.#used += words;
    return this.#used - words;
  }

  #release(offset: number): void {
    const words = this.#wordsAt(offset);
    const freed = this.#free.get(words);
    if (freed) freed.push(offset);
    else this.#free.set(words, [offset]);
  }
}

function headOf(entry: TableEntry, key: string): number {
  const mustAsk = entry.addresses.length > ADDRESSES_MAX ||
    (entry.isName && entry.project === undefined);
  return key.length | ((entry.project?.length ?? 0) << 8) | (entry.isName ? FLAG.name : 0) |
    (entry.isProject ? FLAG.project : 0) | (mustAsk ? FLAG.ask : 0);
}

/** Sum of a key's words; the same as in TableReader. */
function hashOf(words: Int32Array, count: number): number {
  let hash = 0;
  for (let word = 0; word < count; word++) {
    hash = Math.imul(hash ^ words[word]!, 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return hash;
}

/** Sizes are rounded, so that a freed entry fits another one: to four words, later to powers of two. */
function sizeClass(words: number): number {
  return words <= 32 ? (words + 3) & ~3 : 1 << (32 - Math.clz32(words - 1));
}
