/**
 * The thread that receives and answers UDP in batches. This class runs as text in a worker of its
 * own, so it uses nothing from outside itself but types and {@link TableReader}, whose text stands
 * before its own; all constants come in {@link UdpWorkerInit}.
 */
import type { CONTROL, COUNTER } from "./batched_udp.ts";
import type { LIBC_SYMBOLS } from "./libc.ts";
import { TableReader, type TableReaderInit } from "./table_reader.ts";

/** What the thread is told at its start. */
export interface UdpWorkerInit {
  /** A bound UDP socket of IPv4. */
  readonly fd: number;
  readonly libcPath: string;
  readonly symbols: typeof LIBC_SYMBOLS;
  readonly reader: TableReaderInit;
  readonly sharedControl: SharedArrayBuffer;
  readonly sharedCounters: SharedArrayBuffer;
  readonly control: typeof CONTROL;
  readonly counter: typeof COUNTER;
  /** Clients that are answered: pairs of network and mask, as 32-bit words in memory order. */
  readonly clients: readonly number[];
  /** Messages taken with one system call. */
  readonly batch: number;
  /** Numbers of sched_getattr and sched_setattr, and the turn to ask for, nanoseconds. */
  readonly scheduling: { readonly get: number; readonly set: number; readonly turnNs: number };
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
 * See above. Layouts are those of 64-bit little-endian Linux: `struct mmsghdr` has 64 octets (name
 * at 0, vector at 16, its length at 24, control at 32, its length at 40, octets received at 56),
 * `struct iovec` 16. Source: recvmmsg(2), readv(2), udp(7) "UDP_SEGMENT", cmsg(3).
 */
export class UdpWorker {
  readonly #init: UdpWorkerInit;
  readonly #libc: Deno.DynamicLibrary<typeof LIBC_SYMBOLS>;
  readonly #reader: TableReader;
  readonly #control: Int32Array;
  readonly #counters: Float64Array;
  readonly #rx: Uint8Array<ArrayBuffer>;
  readonly #tx: Uint8Array<ArrayBuffer>;
  readonly #names: Int32Array<ArrayBuffer>;
  readonly #rxHeaders: Int32Array<ArrayBuffer>;
  readonly #txHeaders: Int32Array<ArrayBuffer>;
  readonly #rxVectors: BigInt64Array<ArrayBuffer>;
  readonly #txVectors: Int32Array<ArrayBuffer>;
  readonly #segments: Int32Array<ArrayBuffer>;
  /** Addresses in halves: by index of a client's name, a vector, an answer's place. */
  readonly #addresses: Int32Array;
  readonly #misses: Int32Array;
  readonly #clients: Int32Array;
  /** Octets between two packets in memory: not a power of two, lest all share one cache line set. */
  readonly #rxStride: number;
  readonly #txStride: number;
  /** Answers' lengths, and the next one in the same group, by packet. */
  readonly #lengths: Int32Array;
  readonly #next: Int32Array;
  /** Groups: first and last packet, how many. */
  readonly #firsts: Int32Array;
  readonly #lasts: Int32Array;
  readonly #sizes: Int32Array;
  /** Group by hash of client and length; only those of this batch count. */
  readonly #buckets: Int32Array;
  readonly #bucketBatches: Int32Array;
  #groups = 0;
  #batches = 0;
  /** Whether the kernel cuts one message into many packets (4.18 and later do). */
  #canSegment = true;

  constructor(init: UdpWorkerInit) {
    this.#init = init;
    const { batch } = init;
    this.#libc = Deno.dlopen(init.libcPath, init.symbols);
    this.#control = new Int32Array(init.sharedControl);
    this.#counters = new Float64Array(init.sharedCounters);
    this.#rxStride = init.rxBytes + 64;
    this.#txStride = init.txBytes + 64 + (-init.txBytes & 63);
    this.#rx = new Uint8Array(batch * this.#rxStride);
    this.#tx = new Uint8Array(batch * this.#txStride);
    this.#reader = new TableReader(init.reader, { rx: this.#rx, tx: this.#tx });
    this.#names = new Int32Array(batch * 4);
    this.#rxHeaders = new Int32Array(batch * 16);
    this.#txHeaders = new Int32Array(batch * 16);
    this.#rxVectors = new BigInt64Array(batch * 2);
    this.#txVectors = new Int32Array(batch * 4);
    this.#segments = new Int32Array(batch * 8);
    this.#addresses = new Int32Array(batch * 6);
    this.#misses = new Int32Array(batch);
    this.#clients = Int32Array.from(init.clients);
    this.#lengths = new Int32Array(batch);
    this.#next = new Int32Array(batch);
    this.#firsts = new Int32Array(batch);
    this.#lasts = new Int32Array(batch);
    this.#sizes = new Int32Array(batch);
    this.#buckets = new Int32Array(4 * batch);
    this.#bucketBatches = new Int32Array(4 * batch);
    this.#layOut();
  }

  /** Points the kernel's structures at the buffers, once. */
  #layOut(): void {
    const { batch, rxBytes } = this.#init;
    const [rx, tx] = [this.#address(this.#rx), this.#address(this.#tx)];
    const [names, segments] = [this.#address(this.#names), this.#address(this.#segments)];
    const rxVectors = this.#address(this.#rxVectors);
    const txVectors = this.#address(this.#txVectors);
    const rxHeaders = new BigInt64Array(this.#rxHeaders.buffer);
    const txHeaders = new BigInt64Array(this.#txHeaders.buffer);
    const addresses = new BigInt64Array(this.#addresses.buffer);
    for (let i = 0; i < batch; i++) {
      this.#rxVectors.set([rx + BigInt(i * this.#rxStride), BigInt(rxBytes)], i * 2);
      rxHeaders.set([names + BigInt(i * 16), 16n, rxVectors + BigInt(i * 16), 1n], i * 8);
      txHeaders[i * 8 + 1] = 16n;
      txHeaders[i * 8 + 4] = segments + BigInt(i * 32);
      const [vector, answer] = [txVectors + BigInt(i * 16), tx + BigInt(i * this.#txStride)];
      addresses.set([names + BigInt(i * 16), vector, answer], i * 3);
      // cmsg_len 18, SOL_UDP, UDP_SEGMENT; the length follows.
      this.#segments.set([18, 0, 17, 103], i * 8);
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
    this.#askForShortTurns();
    while (Atomics.load(this.#control, control.stop) === 0) {
      const count = recvmmsg(fd, this.#rxHeaders, batch, waitForOne, null);
      if (count > 0) this.#take(count);
    }
    this.#libc.close();
  }

  /**
   * A thread that wants short turns gets them sooner: with other work on both processors the 99th
   * percentile of the latency halves. Needs no right; kernels before 6.12 do nothing.
   * Source: sched_setattr(2), struct sched_attr (runtime at 24); Linux 6.12, "custom slice".
   */
  #askForShortTurns(): void {
    const { syscall } = this.#libc.symbols;
    const { get, set, turnNs } = this.#init.scheduling;
    const attributes = new BigInt64Array(16);
    if (syscall(BigInt(get), 0n, attributes, 56n, 0n) !== 0n) return;
    attributes[3] = BigInt(turnNs);
    syscall(BigInt(set), 0n, attributes, 0n, 0n);
  }

  #take(count: number): void {
    const { counter } = this.#init;
    const reader = this.#reader;
    let missing = 0;
    let foreign = 0;
    let malformed = 0;
    let negative = 0;
    let answered = 0;
    this.#groups = 0;
    this.#batches = (this.#batches + 1) | 0;
    for (let i = 0; i < count; i++) {
      const bytes = this.#rxHeaders[i * 16 + 14]!;
      this.#rxHeaders[i * 16 + 2] = 16;
      const at = i * this.#rxStride;
      // RFC 1035 section 4.1.1: shorter than a header, or an answer (QR): nothing to say to it.
      if (bytes < 12 || (this.#rx[at + 2]! & 0x80) !== 0) malformed++;
      else if (!this.#isClient(this.#names[i * 4 + 1]!)) foreign++;
      else {
        reader.bytes = bytes;
        const octets = reader.answer(at, i * this.#txStride);
        if (octets > 0) {
          answered++;
          if (reader.rcode !== 0) negative++;
          this.#group(i, octets);
        } else {
          this.#misses[missing++] = i;
        }
      }
    }
    if (answered > 0) this.#send();
    if (missing > 0) this.#pass(missing);
    this.#counters[counter.answered]! += answered - negative;
    this.#counters[counter.nxdomain]! += negative;
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

  /** Answers of one length to one client go out as one message, which the kernel cuts. */
  #group(packet: number, octets: number): void {
    const names = this.#names;
    this.#lengths[packet] = octets;
    this.#next[packet] = -1;
    const port = names[packet * 4]!;
    const address = names[packet * 4 + 1]!;
    const mask = this.#buckets.length - 1;
    let bucket = (Math.imul(port ^ address, 0x9e3779b1) >>> 20) ^ octets;
    for (;; bucket++) {
      bucket &= mask;
      if (this.#bucketBatches[bucket] !== this.#batches) break;
      const group = this.#buckets[bucket]!;
      const first = this.#firsts[group]!;
      const isSame = names[first * 4] === port && names[first * 4 + 1] === address &&
        this.#lengths[first] === octets;
      if (!isSame || !this.#canSegment) continue;
      this.#next[this.#lasts[group]!] = packet;
      this.#lasts[group] = packet;
      this.#sizes[group]! += 1;
      return;
    }
    const group = this.#groups++;
    this.#bucketBatches[bucket] = this.#batches;
    this.#buckets[bucket] = group;
    this.#firsts[group] = packet;
    this.#lasts[group] = packet;
    this.#sizes[group] = 1;
  }

  #send(): void {
    const headers = this.#txHeaders;
    const vectors = this.#txVectors;
    const addresses = this.#addresses;
    let vector = 0;
    for (let group = 0; group < this.#groups; group++) {
      const first = this.#firsts[group]!;
      const size = this.#sizes[group]!;
      const at = group * 16;
      headers[at] = addresses[first * 6]!;
      headers[at + 1] = addresses[first * 6 + 1]!;
      headers[at + 4] = addresses[vector * 6 + 2]!;
      headers[at + 5] = addresses[vector * 6 + 3]!;
      headers[at + 6] = size;
      headers[at + 10] = size > 1 ? 24 : 0;
      this.#segments[group * 8 + 4] = this.#lengths[first]!;
      for (let packet = first; packet >= 0; packet = this.#next[packet]!) {
        vectors[vector * 4] = addresses[packet * 6 + 4]!;
        vectors[vector * 4 + 1] = addresses[packet * 6 + 5]!;
        vectors[vector * 4 + 2] = this.#lengths[packet]!;
        vector++;
      }
    }
    this.#sendMessages(this.#groups);
  }

  #sendMessages(count: number): void {
    const { sendmmsg } = this.#libc.symbols;
    let done = 0;
    while (done < count) {
      const rest = done === 0 ? this.#txHeaders : this.#txHeaders.subarray(done * 16);
      const sent = sendmmsg(this.#init.fd, rest, count - done, 0);
      done += sent > 0 ? sent : 0;
      // The first of the rest cannot be sent: its client is unreachable, or it cannot be cut.
      if (sent <= 0) this.#sendOneByOne(done++);
    }
  }

  /** The answers of a group as messages of their own. */
  #sendOneByOne(group: number): void {
    const { sendmmsg } = this.#libc.symbols;
    const size = this.#sizes[group]!;
    if (size === 1) return;
    const at = group * 16;
    const header = this.#txHeaders.subarray(at, at + 16);
    header[6] = 1;
    header[10] = 0;
    const vectors = new BigInt64Array(this.#txHeaders.buffer, at * 4 + 16, 1);
    for (let left = size; left > 0; left--) {
      if (sendmmsg(this.#init.fd, header, 1, 0) === 1) this.#canSegment = false;
      vectors[0]! += 16n;
    }
  }

  /** Gives packets that are not in the table to the main thread, unless it is far behind. */
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
      const start = i * this.#rxStride;
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
  // The bundle may have renamed the classes: both texts get the names they call each other by.
  return `const ${TableReader.name} = ${TableReader.toString()};
const Thread = ${UdpWorker.toString()};
self.onmessage = (event) => {
  new Thread(event.data).run();
  self.postMessage({ kind: "stopped" });
  self.close();
};`;
}
