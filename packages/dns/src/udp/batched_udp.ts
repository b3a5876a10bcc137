/**
 * UDP in batches: a thread receives, answers out of the table, and hands the rest to us. Needs the
 * C library; {@link NoBatches} says why it cannot be had.
 */
import type { Cidr } from "@jiji/core/net";
import { type Libc, LIBC_SYMBOLS, openLibc, SCHEDULING_CALLS } from "./libc.ts";
import { socketName, type SocketStore } from "./socket_store.ts";
import { datagramSocket, NoBatches, socketAddress } from "./sockets.ts";
import type { TableReaderInit } from "./table_reader.ts";
import {
  MISS_HEADER_BYTES,
  type UdpWorkerInit,
  type UdpWorkerMessage,
  udpWorkerSource,
} from "./udp_worker.ts";

/** Messages taken with one system call; more gains nothing (measured with bench:dns). */
const BATCH = 64;
/** Largest query read, octets. Longer ones are cut and so malformed. */
const RX_BYTES = 2_048;
/** Largest answer sent, octets: {@link UDP_BYTES_MAX}. */
const TX_BYTES = 1_232;
/** The thread asks the scheduler for turns of this length, nanoseconds; see {@link UdpWorker}. */
const TURN_NS = 100_000;
/** Queries handed to the main thread and not answered yet; more are dropped, clients ask again. */
export const PENDING_MAX = 4_096;
/**
 * Receive buffer of the socket, octets: a restart's worth of queries waits in it. The kernel gives
 * no more than net.core.rmem_max, by default enough for some 500.
 */
const RECEIVE_BUFFER_BYTES = 4 << 20;
/** The thread looks this often whether to stop, should the packet that wakes it be lost, ms. */
const STOP_LOOK_MS = 1_000;
/** The thread gets this long to stop before it is ended, milliseconds. */
const STOP_MS = 2_000;

// Source: <asm-generic/socket.h>, send(2).
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const SO_RCVTIMEO = 20;
const SO_SNDTIMEO = 21;
const MSG_DONTWAIT = 0x40;

/** Words of the control block that the thread and we share. */
export const CONTROL = { stop: 0, pending: 1, words: 16 } as const;
/** Counters of the thread, 64-bit floats. */
export const COUNTER = {
  answered: 0,
  nxdomain: 1,
  missed: 2,
  overloaded: 3,
  foreign: 4,
  malformed: 5,
  batches: 6,
  words: 8,
} as const;

/** Parts of a socket with its thread. */
export interface BatchedUdpOptions {
  readonly address: { readonly hostname: string; readonly port: number };
  /** Where the socket is kept over a restart. Default: nowhere. */
  readonly store?: SocketStore;
  /** Clients that are answered. */
  readonly clients: readonly Cidr[];
  /** What the thread answers by itself. */
  readonly reader: TableReaderInit;
  /** Answers one packet; the answer of the promise or at once; undefined drops it. */
  readonly respond: (
    packet: Uint8Array,
  ) => Uint8Array | undefined | Promise<Uint8Array | undefined>;
}

/** A running socket with its thread. */
export class BatchedUdp {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #worker: Worker;
  readonly #url: string;
  readonly #control = new Int32Array(new SharedArrayBuffer(CONTROL.words * 4));
  readonly #counters = new Float64Array(new SharedArrayBuffer(COUNTER.words * 8));
  readonly #options: BatchedUdpOptions;
  /** Whether systemd keeps the socket. */
  readonly #isKept: boolean;
  readonly #waiting = new Set<Promise<void>>();
  readonly #stopped = Promise.withResolvers<void>();
  /** Settles when the thread has ended; rejects when it failed. */
  readonly done: Promise<void> = this.#stopped.promise;
  #isClosed = false;

  /**
   * Binds the address and starts the thread.
   *
   * @throws {NoBatches} where the C library cannot be used.
   * @throws {Error} when the address cannot be bound (yet).
   */
  constructor(options: BatchedUdpOptions) {
    const opened = openLibc();
    if (opened.kind === "none") throw new NoBatches(opened.reason);
    this.#options = options;
    this.#libc = opened.libc;
    this.done.catch(() => undefined);
    try {
      const { address, store } = options;
      const name = socketName("udp", address);
      const kept = store?.get(name);
      this.#fd = kept ?? datagramSocket(opened.libc, address);
      prepareSocket(opened.libc, this.#fd);
      const place = { fd: this.#fd, name };
      this.#isKept = kept !== undefined || (store?.keep(opened.libc, place) ?? false);
    } catch (error) {
      opened.libc.close();
      throw error;
    }
    const source = new Blob([udpWorkerSource()], { type: "text/javascript" });
    this.#url = URL.createObjectURL(source);
    this.#worker = new Worker(this.#url, { type: "module", name: "udp" });
    this.#worker.onmessage = (event: MessageEvent<UdpWorkerMessage>) => this.#take(event.data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#stopped.reject(new Error(`UDP thread failed: ${event.message}`));
    };
    this.#worker.postMessage(this.#init(opened.path));
  }

  /** What the thread counted so far. */
  counted(counter: Exclude<keyof typeof COUNTER, "words">): number {
    return this.#counters[COUNTER[counter]] ?? 0;
  }

  /** Ends the thread, answers what it had received, and closes the socket unless it is kept. */
  async stop(): Promise<void> {
    Atomics.store(this.#control, CONTROL.stop, 1);
    this.#wake();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, STOP_MS));
    await Promise.race([this.done.catch(() => undefined), late]);
    await Promise.race([Promise.all(this.#waiting), late]);
    this.#isClosed = true;
    clearTimeout(timer);
    this.#worker.terminate();
    URL.revokeObjectURL(this.#url);
    if (!this.#isKept) this.#libc.symbols.close(this.#fd);
    this.#libc.close();
  }

  #init(libcPath: string): UdpWorkerInit {
    return {
      fd: this.#fd,
      libcPath,
      symbols: LIBC_SYMBOLS,
      reader: this.#options.reader,
      sharedControl: this.#control.buffer as SharedArrayBuffer,
      sharedCounters: this.#counters.buffer as SharedArrayBuffer,
      control: CONTROL,
      counter: COUNTER,
      clients: this.#options.clients.flatMap(clientWords),
      batch: BATCH,
      scheduling: { ...SCHEDULING_CALLS[Deno.build.arch], turnNs: TURN_NS },
      rxBytes: RX_BYTES,
      txBytes: TX_BYTES,
      pendingMax: PENDING_MAX,
    };
  }

  /** An empty packet to ourselves ends the thread's wait. */
  #wake(): void {
    const name = socketAddress(this.#options.address);
    const nothing = new Uint8Array(1);
    this.#libc.symbols.sendto(this.#fd, nothing, 0n, MSG_DONTWAIT, name, name.length);
  }

  #take(message: UdpWorkerMessage): void {
    if (message.kind === "stopped") return this.#stopped.resolve();
    const bytes = new Uint8Array(message.packets);
    for (let at = 0; at + MISS_HEADER_BYTES <= bytes.length;) {
      const length = ((bytes[at + 16] ?? 0) << 8) | (bytes[at + 17] ?? 0);
      const end = at + MISS_HEADER_BYTES + length;
      this.#answer(bytes.slice(at, at + 16), bytes.subarray(at + MISS_HEADER_BYTES, end));
      at = end;
    }
  }

  #answer(client: Uint8Array<ArrayBuffer>, packet: Uint8Array): void {
    const answer = this.#options.respond(packet);
    if (answer instanceof Promise) {
      const sent = answer.catch(() => undefined).then((bytes) => this.#send(client, bytes));
      const waiting = sent.finally(() => this.#waiting.delete(waiting));
      this.#waiting.add(waiting);
    } else {
      this.#send(client, answer);
    }
  }

  #send(client: Uint8Array<ArrayBuffer>, bytes: Uint8Array | undefined): void {
    Atomics.sub(this.#control, CONTROL.pending, 1);
    if (!bytes || this.#isClosed) return;
    const own = bytes as Uint8Array<ArrayBuffer>;
    // A client that cannot be reached asks again; there is nobody to tell.
    this.#libc.symbols.sendto(this.#fd, own, BigInt(own.length), MSG_DONTWAIT, client, 16);
  }
}

/** Network and mask as they lie in memory: big-endian octets read as a little-endian word. */
function clientWords(cidr: Cidr): number[] {
  const mask = cidr.prefix === 0 ? 0 : (-1 << (32 - cidr.prefix)) >>> 0;
  return [swap((cidr.base & mask) >>> 0), swap(mask)];
}

function swap(word: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, word, false);
  return view.getInt32(0, true);
}

function prepareSocket(libc: Libc, fd: number): void {
  const buffer = new Int32Array([RECEIVE_BUFFER_BYTES]);
  libc.symbols.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, buffer, 4);
  for (const option of [SO_RCVTIMEO, SO_SNDTIMEO]) {
    const time = new BigInt64Array([0n, BigInt(STOP_LOOK_MS * 1_000)]);
    libc.symbols.setsockopt(fd, SOL_SOCKET, option, time, 16);
  }
}
