/**
 * DNS over TCP on one address, with bounds on everything. The listening socket outlives the process
 * where systemd keeps it: clients that connect meanwhile wait for the next one.
 */
import { createServer, type Server, type Socket } from "node:net";
import { type Clock, type Logger, messageOf } from "@jiji/core/runtime";
import { type ByteStream, readTcpMessage, writeTcpMessage } from "./tcp_framing.ts";
import { openLibc } from "./udp/libc.ts";
import type { SocketStore } from "./udp/socket_store.ts";
import { listeningSocket } from "./udp/sockets.ts";
import type { ServerAddress } from "./upstream.ts";

/** TCP clients at once; one more takes the place of the one that was quiet the longest. */
export const TCP_CLIENTS_MAX = 128;
/** A TCP client that sends nothing for this long is let go, milliseconds (RFC 7766 section 6.2.3). */
export const TCP_IDLE_MS = 10_000;
/** While jiji-dns stops: a client that is quiet for this long has asked all it wanted, ms. */
const TCP_LINGER_MS = 100;
/** Clients get no longer than this then, milliseconds. */
const TCP_STOP_MS = 1_000;
/** Queries of one TCP client answered at a time (pipelining, RFC 7766 section 6.2.1.1). */
const TCP_PIPELINE_MAX = 16;

/** Parts of a TCP server. */
export interface TcpServerOptions {
  readonly address: ServerAddress;
  /** Where the listening socket is kept over a restart. Default: nowhere. */
  readonly store?: SocketStore;
  /** Whether a client of this address is answered. */
  readonly isClient: (ip: string) => boolean;
  readonly respond: (
    packet: Uint8Array,
  ) => Uint8Array | undefined | Promise<Uint8Array | undefined>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Accepts clients until it is stopped. */
export class TcpServer {
  readonly #options: TcpServerOptions;
  readonly #server: Server;
  /** Clients, the one that was quiet the longest first. */
  readonly #clients = new Set<TcpClient>();
  readonly #failed = Promise.withResolvers<never>();
  /** Rejects when the listening socket fails. */
  readonly done: Promise<never> = this.#failed.promise;

  private constructor(options: TcpServerOptions) {
    this.#options = options;
    this.done.catch(() => undefined);
    const heed = { allowHalfOpen: true, noDelay: true };
    this.#server = createServer(heed, (socket) => this.#welcome(socket));
    this.#server.on("error", (error) => this.#failed.reject(error));
  }

  /** Listens on the address. @throws {Error} when it cannot be bound (yet). */
  static async open(options: TcpServerOptions): Promise<TcpServer> {
    const server = new TcpServer(options);
    const listening = Promise.withResolvers<void>();
    server.#server.once("listening", () => listening.resolve());
    const { hostname, port } = options.address;
    const fd = keptSocket(options);
    server.#server.listen(fd === undefined ? { host: hostname, port } : { fd });
    await Promise.race([listening.promise, server.done]);
    return server;
  }

  /**
   * Accepts no more, answers what was asked, and closes: also what comes just now over connections
   * that were just made, since Docker's resolver, for one, does not ask again when it is cut off.
   */
  async stop(): Promise<void> {
    const { clock } = this.#options;
    this.#server.close();
    const done = new AbortController();
    const late = clock.sleep(TCP_STOP_MS, { signal: done.signal }).catch(() => undefined);
    await Promise.race([Promise.all([...this.#clients].map((client) => client.linger())), late]);
    done.abort();
    for (const client of this.#clients) client.close();
  }

  #welcome(socket: Socket): void {
    socket.on("error", () => socket.destroy());
    if (!this.#options.isClient(socket.remoteAddress ?? "")) {
      socket.destroy();
      return;
    }
    // RFC 7766 section 6.2.3: connections may be closed when there are too many.
    const [quietest] = this.#clients;
    if (this.#clients.size >= TCP_CLIENTS_MAX) quietest?.close();
    const client = new TcpClient(socket, {
      ...this.#options,
      onActive: (one) => this.#active(one),
    });
    this.#clients.add(client);
    client.done
      .catch((error) => this.#options.logger.debug("tcp client", { error: messageOf(error) }))
      .finally(() => {
        this.#clients.delete(client);
        client.close();
      });
    if (quietest?.isClosed) this.#clients.delete(quietest);
  }

  #active(client: TcpClient): void {
    if (this.#clients.delete(client)) this.#clients.add(client);
  }
}

/** One connection. */
class TcpClient {
  readonly #stream: SocketStream;
  readonly #socket: Socket;
  readonly #respond: TcpServerOptions["respond"];
  readonly #onActive: (client: TcpClient) => void;
  readonly #running = new Set<Promise<void>>();
  #writes: Promise<void> = Promise.resolve();
  #isStopping = false;
  /** Settles when the client has closed or was let go. */
  readonly done: Promise<void>;

  constructor(
    socket: Socket,
    o: TcpServerOptions & { readonly onActive: (client: TcpClient) => void },
  ) {
    this.#socket = socket;
    this.#stream = new SocketStream(socket);
    this.#respond = o.respond;
    this.#onActive = o.onActive;
    socket.setTimeout(TCP_IDLE_MS, () => this.#quiet());
    this.done = this.#run();
  }

  #quiet(): void {
    if (!this.#isStopping || this.#running.size === 0) this.close();
  }

  get isClosed(): boolean {
    return this.#socket.destroyed;
  }

  /** Answers until the client closes. */
  async #run(): Promise<void> {
    while (true) {
      const packet = await readTcpMessage(this.#stream);
      if (!packet) break;
      this.#onActive(this);
      const task = this.#answer(packet).catch(() => this.close())
        .finally(() => this.#running.delete(task));
      this.#running.add(task);
      if (this.#running.size >= TCP_PIPELINE_MAX) await Promise.race(this.#running);
    }
    await Promise.all(this.#running);
  }

  /** RFC 7766 section 6.2.1.1: answers go out as they come, in whatever order. */
  async #answer(packet: Uint8Array): Promise<void> {
    const bytes = await this.#respond(packet);
    if (bytes) this.#writes = this.#writes.then(() => writeTcpMessage(this.#stream, bytes));
    await this.#writes;
  }

  /** Waits until the client has nothing more to ask. */
  async linger(): Promise<void> {
    this.#isStopping = true;
    this.#socket.setTimeout(TCP_LINGER_MS);
    await this.done.catch(() => undefined);
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** A socket of Node's kind as framing wants it. */
class SocketStream implements ByteStream {
  readonly #socket: Socket;
  #left: Uint8Array = new Uint8Array();
  #wake = Promise.withResolvers<void>();

  constructor(socket: Socket) {
    this.#socket = socket;
    for (const event of ["readable", "end", "close"]) socket.on(event, () => this.#wake.resolve());
  }

  async read(buffer: Uint8Array<ArrayBuffer>): Promise<number | null> {
    if (buffer.length === 0) return 0;
    while (this.#left.length === 0) {
      this.#wake = Promise.withResolvers();
      const chunk: Uint8Array | null = this.#socket.read();
      if (chunk) this.#left = chunk;
      else if (this.#socket.readableEnded || this.#socket.destroyed) return null;
      else await this.#wake.promise;
    }
    const count = Math.min(buffer.length, this.#left.length);
    buffer.set(this.#left.subarray(0, count));
    this.#left = this.#left.subarray(count);
    return count;
  }

  write(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    const written = Promise.withResolvers<number>();
    this.#socket.write(
      bytes,
      (error) => error ? written.reject(error) : written.resolve(bytes.length),
    );
    return written.promise;
  }
}

/** The socket that systemd kept for us or will keep; undefined where none can be kept. */
function keptSocket(options: TcpServerOptions): number | undefined {
  const { address, store } = options;
  if (!store) return undefined;
  const opened = openLibc();
  if (opened.kind === "none") return undefined;
  try {
    return listeningSocket(opened.libc, { address, store });
  } finally {
    opened.libc.close();
  }
}
