/**
 * The thread that receives and answers UDP in batches. This class runs as text in a worker of its
 * own, so it uses nothing from outside itself but types; all constants come in {@link UdpWorkerInit}.
 */
import type { CONTROL, COUNTER, SharedAnswers } from "./prepared_answers.ts";
import type { LIBC_SYMBOLS } from "./libc.ts";

/** What the thread is told at its start. */
export interface UdpWorkerInit {
  /** A bound UDP socket of IPv4. */
  readonly fd: number;
  readonly libcPath: string;
  readonly symbols: typeof LIBC_SYMBOLS;
  readonly shared: SharedAnswers;
  readonly control: typeof CONTROL;
  readonly counter: typeof COUNTER;
  readonly slots: number;
  readonly arenaWords: number;
  readonly probesMax: number;
  readonly keyBytesMax: number;
  /** Clients that are answered: pairs of network and mask, as 32-bit words in memory order. */
  readonly clients: readonly number[];
  /** Messages taken with one system call. */
  readonly batch: number;
  /** Largest query and answer, octets. */
  readonly rxBytes: number;
  readonly txBytes: number;
  /** Queries that the main thread has not answered yet; more are dropped. */
  readonly pendingMax: number;
}

/** Messages to the main thread. Each miss: 16 octets of address, 2 of length, the packet. */
export type UdpWorkerMessage =
  | { readonly kind: "misses"; readonly packets: ArrayBuffer; readonly count: number }
  | { readonly kind: "stopped" };

/** Octets before each packet in a message of misses. */
export const MISS_HEADER_BYTES = 18;

/**
 * See above. Layouts are those of 64-bit little-endian Linux: `struct mmsghdr` has 64 octets with
 * the length received at 56, `struct iovec` 16 (recvmmsg(2), readv(2)).
 */
export class UdpWorker {
  readonly #init: UdpWorkerInit;
  readonly #libc: Deno.DynamicLibrary<typeof LIBC_SYMBOLS>;
  readonly #control: Int32Array;
  readonly #counters: Float64Array;
  readonly #slots: Int32Array;
  readonly #arena: Int32Array;
  readonly #turns: Uint16Array;
  readonly #rx: Uint8Array<ArrayBuffer>;
  readonly #rxWords: Int32Array;
  readonly #tx: Uint8Array<ArrayBuffer>;
  readonly #txWords: Int32Array;
  readonly #names: Int32Array<ArrayBuffer>;
  readonly #rxHeaders: Int32Array<ArrayBuffer>;
  readonly #txHeaders: Int32Array<ArrayBuffer>;
  /** Of each packet received and sent by turns: address, length. */
  readonly #iovecs: BigInt64Array<ArrayBuffer>;
  readonly #iovecWords: Int32Array;
  readonly #misses: Int32Array;
  readonly #clients: Int32Array;
  /** Words between two packets in memory: not a power of two, lest all share one cache line set. */
  readonly #rxStride: number;
  readonly #txStride: number;

  constructor(init: UdpWorkerInit) {
    this.#init = init;
    this.#libc = Deno.dlopen(init.libcPath, init.symbols);
    this.#control = new Int32Array(init.shared.control);
    this.#counters = new Float64Array(init.shared.counters);
    this.#slots = new Int32Array(init.shared.slots);
    this.#arena = new Int32Array(init.shared.arena);
    this.#turns = new Uint16Array(2 * init.slots);
    this.#rxStride = (init.rxBytes >> 2) + 16;
    this.#txStride = (init.txBytes >> 2) + 16;
    this.#rx = new Uint8Array(init.batch * this.#rxStride * 4);
    this.#rxWords = new Int32Array(this.#rx.buffer);
    this.#tx = new Uint8Array(init.batch * this.#txStride * 4);
    this.#txWords = new Int32Array(this.#tx.buffer);
    this.#names = new Int32Array(init.batch * 4);
    this.#rxHeaders = new Int32Array(init.batch * 16);
    this.#txHeaders = new Int32Array(init.batch * 16);
    this.#iovecs = new BigInt64Array(init.batch * 4);
    this.#iovecWords = new Int32Array(this.#iovecs.buffer);
    this.#misses = new Int32Array(init.batch);
    this.#clients = Int32Array.from(init.clients);
    this.#layOut();
  }

  /** Points the kernel's structures at the buffers, once. */
  #layOut(): void {
    const { batch, rxBytes } = this.#init;
    const rx = this.#address(this.#rx);
    const tx = this.#address(this.#tx);
    const names = this.#address(this.#names);
    const iovecs = this.#address(this.#iovecs);
    const rxHeaders = new BigInt64Array(this.#rxHeaders.buffer);
    const txHeaders = new BigInt64Array(this.#txHeaders.buffer);
    for (let i = 0; i < batch; i++) {
      this.#iovecs[i * 4] = rx + BigInt(i * this.#rxStride * 4);
      this.#iovecs[i * 4 + 1] = BigInt(rxBytes);
      this.#iovecs[i * 4 + 2] = tx + BigInt(i * this.#txStride * 4);
      for (const [headers, iovec] of [[rxHeaders, 0], [txHeaders, 16]] as const) {
        headers[i * 8] = names + BigInt(i * 16);
        headers[i * 8 + 1] = 16n;
        headers[i * 8 + 2] = iovecs + BigInt(i * 32 + iovec);
        headers[i * 8 + 3] = 1n;
      }
    }
  }

  #address(view: Uint8Array<ArrayBuffer> | Int32Array<ArrayBuffer> | BigInt64Array<ArrayBuffer>) {
    return BigInt(this.#libc.symbols.addressOf(view, view, 0n));
  }

  /** Receives and answers until told to stop; sleeps in the kernel between packets. */
  run(): void {
    const { recvmmsg } = this.#libc.symbols;
    const { fd, batch, control } = this.#init;
    const waitForOne = 0x10000; // MSG_WAITFORONE, recvmmsg(2)
    while (Atomics.load(this.#control, control.stop) === 0) {
      const count = recvmmsg(fd, this.#rxHeaders, batch, waitForOne, null);
      if (count > 0) this.#answer(count);
    }
    this.#libc.close();
  }

  #answer(count: number): void {
    const { control, counter } = this.#init;
    let epoch = 0;
    let sending = 0;
    let missing = 0;
    let foreign = 0;
    let malformed = 0;
    do {
      epoch = Atomics.load(this.#control, control.epoch);
      sending =
        missing =
        foreign =
        malformed =
          0;
      for (let i = 0; i < count; i++) {
        const bytes = this.#rxHeaders[i * 16 + 14]!;
        const at = i * this.#rxStride;
        // RFC 1035 section 4.1.1: shorter than a header, or an answer (QR): nothing to say to it.
        if (bytes < 12 || (this.#rx[at * 4 + 2]! & 0x80) !== 0) malformed++;
        else if (!this.#isClient(this.#names[i * 4 + 1]!)) foreign++;
        else if (this.#prepare(i, { bytes, sending, epoch })) sending++;
        else this.#misses[missing++] = i;
      }
      // Two changes while we read: what was read may have been overwritten.
    } while (Atomics.load(this.#control, control.epoch) - epoch >= 2);
    if (sending > 0) this.#send(sending);
    for (let i = 0; i < count; i++) this.#rxHeaders[i * 16 + 2] = 16;
    if (missing > 0) this.#pass(missing);
    this.#counters[counter.prepared]! += sending;
    this.#counters[counter.foreign]! += foreign;
    this.#counters[counter.malformed]! += malformed;
    this.#counters[counter.batches]! += 1;
  }

  #isClient(address: number): boolean {
    const clients = this.#clients;
    for (let i = 0; i < clients.length; i += 2) {
      if ((address & clients[i + 1]!) === clients[i]) return true;
    }
    return false;
  }

  /** Puts the prepared answer to packet `i` in place `sending`; false when there is none. */
  #prepare(i: number, o: { bytes: number; sending: number; epoch: number }): boolean {
    const { bytes, sending, epoch } = o;
    const { slots, probesMax, keyBytesMax } = this.#init;
    if (bytes > keyBytesMax) return false;
    const rx = this.#rxWords;
    const start = i * this.#rxStride;
    const words = (bytes + 3) >> 2;
    const tail = bytes & 3;
    if (tail !== 0) rx[start + words - 1]! &= (1 << (tail * 8)) - 1;
    const head = rx[start]! & 0xffff0000; // Little-endian: the id is in the low half.
    let hash = Math.imul(head, 0x9e3779b1);
    hash ^= hash >>> 15;
    for (let k = 1; k < words; k++) {
      hash = Math.imul(hash ^ rx[start + k]!, 0x9e3779b1);
      hash ^= hash >>> 15;
    }
    const half = (epoch & 1) * slots;
    for (let probe = 0; probe < probesMax; probe++) {
      const slot = half + ((hash + probe) & (slots - 1));
      if (Atomics.load(this.#slots, slot * 2 + 1) !== epoch) return false;
      const entry = Atomics.load(this.#slots, slot * 2);
      if (entry < 0 || !this.#matches(entry, { start, bytes, head, words })) continue;
      this.#copy(entry, { i, sending, words, slot });
      return true;
    }
    return false;
  }

  #matches(
    entry: number,
    key: { start: number; bytes: number; head: number; words: number },
  ): boolean {
    const arena = this.#arena;
    if (arena[entry] !== key.bytes || arena[entry + 4] !== key.head) return false;
    for (let k = 1; k < key.words; k++) {
      if (arena[entry + 4 + k] !== this.#rxWords[key.start + k]) return false;
    }
    return true;
  }

  #copy(entry: number, o: { i: number; sending: number; words: number; slot: number }): void {
    const { i, sending, words, slot } = o;
    const arena = this.#arena;
    const variants = arena[entry + 1]!;
    const bytes = arena[entry + 2]!;
    const answerWords = arena[entry + 3]!;
    let turn = 0;
    if (variants > 1) {
      turn = this.#turns[slot]! % variants;
      this.#turns[slot] = turn + 1;
    }
    const from = entry + 4 + words + turn * answerWords;
    const to = sending * this.#txStride;
    const tx = this.#txWords;
    // The client's id before the answer's flags.
    tx[to] = (arena[from]! & 0xffff0000) | (this.#rxWords[i * this.#rxStride]! & 0xffff);
    // An entry torn by a second change (see #answer) may claim any length.
    const safe = Math.min(answerWords, this.#txStride);
    for (let k = 1; k < safe; k++) tx[to + k] = arena[from + k]!;
    this.#iovecWords[sending * 8 + 6] = bytes;
    this.#txHeaders[sending * 16] = this.#rxHeaders[i * 16]!;
    this.#txHeaders[sending * 16 + 1] = this.#rxHeaders[i * 16 + 1]!;
  }

  #send(count: number): void {
    const { sendmmsg } = this.#libc.symbols;
    let done = 0;
    while (done < count) {
      const rest = done === 0 ? this.#txHeaders : this.#txHeaders.subarray(done * 16);
      const sent = sendmmsg(this.#init.fd, rest, count - done, 0);
      // The first of the rest cannot be sent (its client is unreachable): on with the others.
      done += sent > 0 ? sent : 1;
    }
  }

  /** Gives packets without a prepared answer to the main thread, unless it is far behind. */
  #pass(count: number): void {
    const { control, counter, pendingMax } = this.#init;
    if (Atomics.load(this.#control, control.pending) > pendingMax) {
      this.#counters[counter.overloaded]! += count;
      return;
    }
    let bytes = 0;
    for (let k = 0; k < count; k++) bytes += 18 + this.#rxHeaders[this.#misses[k]! * 16 + 14]!;
    const packed = new Uint8Array(bytes);
    const names = new Uint8Array(this.#names.buffer);
    let at = 0;
    for (let k = 0; k < count; k++) {
      const i = this.#misses[k]!;
      const length = this.#rxHeaders[i * 16 + 14]!;
      packed.set(names.subarray(i * 16, i * 16 + 16), at);
      packed[at + 16] = length >> 8;
      packed[at + 17] = length & 255;
      const start = i * this.#rxStride * 4;
      packed.set(this.#rx.subarray(start, start + length), at + 18);
      at += 18 + length;
    }
    Atomics.add(this.#control, control.pending, count);
    this.#counters[counter.missed]! += count;
    const message: UdpWorkerMessage = { kind: "misses", packets: packed.buffer, count };
    (globalThis as unknown as Worker).postMessage(message, [packed.buffer]);
  }
}

/** Source text of the worker: takes one message, the {@link UdpWorkerInit}. */
export function udpWorkerSource(): string {
  return `const Thread = ${UdpWorker.toString()};
self.onmessage = (event) => {
  new Thread(event.data).run();
  self.postMessage({ kind: "stopped" });
  self.close();
};`;
}
