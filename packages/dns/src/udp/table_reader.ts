/**
 * Answers the plainest questions, addresses of names, out of the shared table. The class runs as
 * text in threads of their own, so it uses nothing from outside itself but types; all constants come
 * in {@link TableReaderInit}. What it answers is what {@link DnsServer.respond} answers, octet for
 * octet but for the rotation; everything else it leaves to the main thread.
 */
import type {
  ENTRY_HEADER_WORDS,
  FLAG,
  SharedTable,
  TABLE_CONTROL,
  TABLE_STATE,
} from "./answer_table.ts";

/** An authority section that says "no": the zone's SOA, and where it points to the domain's name. */
export interface NegativeTemplate {
  readonly bytes: Uint8Array;
  /** Offsets in `bytes` of the second octet of pointers to the domain in the question. */
  readonly pointers: readonly number[];
}

/** What a reader is told at its start. */
export interface TableReaderInit {
  readonly table: SharedTable;
  readonly control: typeof TABLE_CONTROL;
  readonly state: typeof TABLE_STATE;
  readonly flag: typeof FLAG;
  readonly headerWords: typeof ENTRY_HEADER_WORDS;
  readonly slots: number;
  readonly keyBytesMax: number;
  /** The domain as labels with their lengths, lower case: 4 j i j i. */
  readonly domain: Uint8Array;
  readonly negative: NegativeTemplate;
  readonly ttlS: number;
  /** Largest UDP answer without and with EDNS, octets. */
  readonly bytesPlain: number;
  readonly bytesMax: number;
}

/** See above. Offsets are in octets of the given memory and multiples of four. */
export class TableReader {
  /** Octets of the packet to answer. */
  bytes = 0;
  /** Response code of the last answer. */
  rcode = 0;
  readonly #init: TableReaderInit;
  readonly #rx: Uint8Array;
  readonly #rxWords: Int32Array;
  readonly #tx: Uint8Array;
  readonly #txWords: Int32Array;
  readonly #control: Int32Array;
  readonly #slots: Int32Array;
  readonly #arena: Int32Array;
  readonly #arenaBytes: Uint8Array;
  /** Whose turn it is, by slot. */
  readonly #turns: Uint16Array;
  /** Lower-case letters, digits, `-` and `_` as themselves; 0 for all that no name of ours has. */
  readonly #lower = new Uint8Array(256);
  /** The name that was asked, lower case, labels with their lengths. */
  readonly #name = new Uint8Array(160);
  readonly #starts = new Int32Array(16);
  readonly #domainLabels: number;
  readonly #key = new Uint8Array(160);
  readonly #keyWords = new Int32Array(this.#key.buffer);
  /** Octets of `#name`, and of the project where it stands as a label of its own. */
  #nameBytes = 0;
  #projectBytes = 0;
  #keyBytes = 0;
  #isNearest = false;
  #slot = 0;
  /** Offset of the first label of the domain in the packet's name. */
  #domainAt = 0;
  // The packet in hand. As fields and not as arguments, since objects made for each packet would
  // have to be collected, and a thread that collects does not answer.
  #from = 0;
  #to = 0;
  /** Offset after the question. */
  #end = 0;
  /** Octets that the answer may have. */
  #limit = 0;
  #isA = false;
  /** Of the addresses: which comes first, and how many there are. */
  #turn = 0;
  #count = 0;

  constructor(
    init: TableReaderInit,
    memory: { readonly rx: Uint8Array; readonly tx: Uint8Array },
  ) {
    this.#init = init;
    this.#rx = memory.rx;
    this.#rxWords = new Int32Array(memory.rx.buffer);
    this.#tx = memory.tx;
    this.#txWords = new Int32Array(memory.tx.buffer);
    this.#control = new Int32Array(init.table.control);
    this.#slots = new Int32Array(init.table.slots);
    this.#arena = new Int32Array(init.table.arena);
    this.#arenaBytes = new Uint8Array(init.table.arena);
    this.#turns = new Uint16Array(init.slots);
    const letters = "abcdefghijklmnopqrstuvwxyz0123456789-_";
    for (const letter of letters) {
      this.#lower[letter.charCodeAt(0)] = letter.charCodeAt(0);
      this.#lower[letter.toUpperCase().charCodeAt(0)] = letter.charCodeAt(0);
    }
    let labels = 0;
    for (let at = 0; at < init.domain.length; at += 1 + init.domain[at]!) labels++;
    this.#domainLabels = labels;
  }

  /** Answers the packet of {@link bytes} octets at `from`; gives the answer's octets, 0 for none. */
  answer(from: number, to: number): number {
    const rx = this.#rx;
    // RFC 1035 section 4.1.1: a standard query (QR and opcode are 0); RFC 9619: of one question.
    if ((rx[from + 2]! & 0xf8) !== 0 || rx[from + 4] !== 0 || rx[from + 5] !== 1) return 0;
    if (this.#rxWords[(from >> 2) + 1]! >>> 16 !== 0 || rx[from + 8] !== 0 || rx[from + 9] !== 0) {
      return 0;
    }
    if (rx[from + 10] !== 0 || rx[from + 11]! > 1) return 0;
    if (!this.#readName(from + 12)) return 0;
    const end = from + 12 + this.#nameBytes + 1;
    const type = (rx[end]! << 8) | rx[end + 1]!;
    // A and AAAA, class IN.
    if ((type !== 1 && type !== 28) || rx[end + 2] !== 0 || rx[end + 3] !== 1) return 0;
    this.#from = from;
    this.#to = to;
    this.#end = end + 4;
    this.#isA = type === 1;
    this.#limit = this.#readEdns(from, end + 4);
    if (this.#limit === 0 || !this.#loadKey()) return 0;
    for (let tries = 0; tries < 4; tries++) {
      const version = Atomics.load(this.#control, this.#init.control.version);
      if ((version & 1) !== 0) continue;
      const octets = this.#compose();
      // A change of memory that is none: nothing read above may be read after it.
      if (Atomics.or(this.#control, this.#init.control.version, 0) === version) return octets;
    }
    return 0;
  }

  /** Octets that an answer may have; 0 when the rest of the packet is not a plain OPT or nothing. */
  #readEdns(from: number, at: number): number {
    const rx = this.#rx;
    const { bytesPlain, bytesMax } = this.#init;
    if (rx[from + 11] === 0) return at === from + this.bytes ? bytesPlain : 0;
    // RFC 6891 section 6.1.2: owner root, type 41, size, extended code, version, flags, length.
    const isOpt = rx[at] === 0 && rx[at + 1] === 0 && rx[at + 2] === 41 && rx[at + 6] === 0;
    const end = at + 11 + ((rx[at + 9]! << 8) | rx[at + 10]!);
    if (!isOpt || end !== from + this.bytes) return 0;
    const size = (rx[at + 3]! << 8) | rx[at + 4]!;
    // Section 6.2.3: less than 512 counts as 512.
    return Math.min(Math.max(size, bytesPlain), bytesMax);
  }

  /** Takes the name apart; false when it is not one of the domain's with plain letters. */
  #readName(start: number): boolean {
    const rx = this.#rx;
    const name = this.#name;
    const lower = this.#lower;
    let out = 0;
    let labels = 0;
    let at = start;
    for (let length = rx[at]!; length !== 0; length = rx[at]!) {
      if (length > 63 || out + length > 150 || labels === 16) return false;
      this.#starts[labels++] = out;
      name[out++] = length;
      for (const end = at + length; at < end;) {
        const octet = lower[rx[++at]!]!;
        if (octet === 0) return false;
        name[out++] = octet;
      }
      at++;
    }
    this.#nameBytes = out;
    const { domain } = this.#init;
    const first = labels - this.#domainLabels;
    if (first < 1 || this.#starts[first]! + domain.length !== out) return false;
    const domainAt = this.#starts[first]!;
    for (let index = 0; index < domain.length; index++) {
      if (name[domainAt + index] !== domain[index]) return false;
    }
    this.#domainAt = domainAt;
    return this.#readPlace(first);
  }

  /** Of the labels before the domain: `nearest`, then a service or a service and its project. */
  #readPlace(labels: number): boolean {
    const name = this.#name;
    this.#isNearest = labels > 1 && name[0] === 7 && name[1] === 110 && name[2] === 101 &&
      name[3] === 97 && name[4] === 114 && name[5] === 101 && name[6] === 115 && name[7] === 116;
    const first = this.#isNearest ? 8 : 0;
    const left = this.#isNearest ? labels - 1 : labels;
    // `_tcp.` and its like are the main thread's.
    if (left > 2 || name[first + 1] === 95) return false;
    this.#projectBytes = left === 2 ? name[first + 1 + name[first]!]! : 0;
    return true;
  }

  /** `service.project` is kept as `project-service`. */
  #loadKey(): boolean {
    const name = this.#name;
    const key = this.#key;
    const first = this.#isNearest ? 8 : 0;
    const label = name[first]!;
    const project = this.#projectBytes;
    const bytes = project === 0 ? label : project + 1 + label;
    if (bytes > this.#init.keyBytesMax) return false;
    this.#keyBytes = bytes;
    this.#keyWords[(bytes - 1) >> 2] = 0;
    let at = 0;
    if (project !== 0) {
      const from = first + 1 + label + 1;
      while (at < project) {
        key[at] = name[from + at]!;
        at++;
      }
      key[at++] = 45;
    }
    for (let index = 0; index < label; index++) key[at++] = name[first + 1 + index]!;
    return true;
  }

  #compose(): number {
    const { flag, state, control } = this.#init;
    const known = Atomics.load(this.#control, control.state);
    if (known === state.unfilled) return 0;
    const entry = this.#find();
    const head = entry === 0 ? 0 : this.#arena[entry + 1]!;
    if ((head & flag.ask) !== 0) return 0;
    const isOfProject = this.#projectBytes === 0 || ((head >> 8) & 255) === this.#projectBytes;
    const isName = (head & flag.name) !== 0 && isOfProject;
    // A project's own name has names below it (RFC 8020 section 2), so it exists.
    const isKnown = isName || ((head & flag.project) !== 0 && this.#projectBytes === 0);
    if (!isKnown && known !== state.complete) return 0;
    // RFC 1035 section 4.1.1: 3 is "no such name".
    this.rcode = isKnown ? 0 : 3;
    return this.#put(entry, isName && this.#isA ? this.#countAddresses(entry) : 0);
  }

  /** Writes the whole answer with `count` addresses, or with none and the SOA. Gives its octets. */
  #put(entry: number, count: number): number {
    const from = this.#from;
    const to = this.#to;
    const question = this.#end - from;
    for (let word = 0; word << 2 < question; word++) {
      this.#txWords[(to >> 2) + word] = this.#rxWords[(from >> 2) + word]!;
    }
    const opt = this.#rx[from + 11] === 0 ? 0 : 11;
    const room = this.#limit - opt - question;
    const fitting = count * 16 <= room ? count : room >> 4;
    this.#putHeader(fitting, count);
    const next = count > 0
      ? this.#putAddresses(this.#firstAddress(entry, count), fitting)
      : this.#putNegative(to + question);
    if (opt !== 0) this.#putOpt(next, this.#rx[this.#end + 7]! & 0x80);
    return next + opt - to;
  }

  /** All addresses, or with `nearest.` those of this server if it has any. */
  #countAddresses(entry: number): number {
    const counts = this.#arena[entry + 2]!;
    return this.#isNearest && counts >>> 16 > 0 ? counts >>> 16 : counts & 0xffff;
  }

  /** Offset of the key's entry in words, 0 when there is none. */
  #find(): number {
    const words = (this.#keyBytes + 3) >> 2;
    let hash = 0;
    for (let word = 0; word < words; word++) {
      hash = Math.imul(hash ^ this.#keyWords[word]!, 0x9e3779b1);
      hash ^= hash >>> 15;
    }
    const mask = this.#init.slots - 1;
    // A table in the middle of a change may seem endless; the caller looks again.
    for (let probe = 0; probe <= mask; probe++) {
      const slot = (hash + probe) & mask;
      const entry = this.#slots[slot]!;
      if (entry === 0) return 0;
      if (this.#arena[entry] !== hash || !this.#hasKey(entry, words)) continue;
      this.#slot = slot;
      return entry;
    }
    return 0;
  }

  #hasKey(entry: number, words: number): boolean {
    if ((this.#arena[entry + 1]! & 255) !== this.#keyBytes) return false;
    for (let word = 0; word < words; word++) {
      if (this.#arena[entry + this.#init.headerWords + word] !== this.#keyWords[word]) return false;
    }
    return true;
  }

  /**
   * RFC 1035 section 4.1.1: QR, AA, TC if not all fit, RD as asked; RA, the code, CD as asked (RFC 4035
   * section 3.2.2).
   */
  #putHeader(fitting: number, count: number): void {
    const from = this.#from;
    const to = this.#to;
    const tx = this.#tx;
    tx[to + 2] = 0x84 | (fitting < count ? 0x02 : 0) | (this.#rx[from + 2]! & 1);
    tx[to + 3] = 0x80 | (this.#rx[from + 3]! & 0x10) | this.rcode;
    tx[to + 7] = fitting;
    tx[to + 9] = count === 0 ? 1 : 0;
  }

  /** Offset in octets of the entry's addresses; the next turn is taken. */
  #firstAddress(entry: number, count: number): number {
    const turn = this.#turns[this.#slot]!;
    this.#turns[this.#slot] = turn + 1;
    this.#turn = turn % count;
    this.#count = count;
    return (entry + this.#init.headerWords + ((this.#keyBytes + 3) >> 2)) * 4;
  }

  /** Addresses in turn: 16 octets each, owned by the question's name. Gives the offset after them. */
  #putAddresses(first: number, fitting: number): number {
    const tx = this.#tx;
    let at = this.#to + this.#end - this.#from;
    let which = this.#turn;
    for (let left = fitting; left > 0; left--) {
      const address = first + which * 4;
      if (++which === this.#count) which = 0;
      // RFC 1035 section 4.1.3: pointer to the question's name, type A, class IN, TTL, length.
      tx[at] = 0xc0;
      tx[at + 1] = 12;
      tx[at + 2] = 0;
      tx[at + 3] = 1;
      tx[at + 4] = 0;
      tx[at + 5] = 1;
      tx[at + 6] = 0;
      tx[at + 7] = 0;
      tx[at + 8] = 0;
      tx[at + 9] = this.#init.ttlS;
      tx[at + 10] = 0;
      tx[at + 11] = 4;
      tx[at + 12] = this.#arenaBytes[address]!;
      tx[at + 13] = this.#arenaBytes[address + 1]!;
      tx[at + 14] = this.#arenaBytes[address + 2]!;
      tx[at + 15] = this.#arenaBytes[address + 3]!;
      at += 16;
    }
    return at;
  }

  /** RFC 2308 section 3: the zone's SOA. Gives the offset after it. */
  #putNegative(at: number): number {
    const { bytes, pointers } = this.#init.negative;
    for (let index = 0; index < bytes.length; index++) this.#tx[at + index] = bytes[index]!;
    for (let index = 0; index < pointers.length; index++) {
      this.#tx[at + pointers[index]!] = 12 + this.#domainAt;
    }
    return at + bytes.length;
  }

  /** RFC 6891 section 6.1.2, with the DO bit as asked (RFC 3225 section 3). */
  #putOpt(at: number, dnssecOk: number): void {
    const tx = this.#tx;
    tx[at] = 0;
    tx[at + 1] = 0;
    tx[at + 2] = 41;
    tx[at + 3] = this.#init.bytesMax >> 8;
    tx[at + 4] = this.#init.bytesMax & 255;
    tx[at + 5] = 0;
    tx[at + 6] = 0;
    tx[at + 7] = dnssecOk;
    tx[at + 8] = 0;
    tx[at + 9] = 0;
    tx[at + 10] = 0;
  }
}
