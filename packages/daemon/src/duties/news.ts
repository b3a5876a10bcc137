/** Tells what changed in this server's rows at once: other daemons by datagram, jiji-dns by socket. */
import { NEWS_PORT, SERVER_PATHS } from "@jiji/core/cluster";
import {
  type ContainerNews,
  type ContainerRow,
  decodeNews,
  encodeNews,
  LIVENESS_NEWS,
  NEWS_BYTES_MAX,
} from "@jiji/core/corrosion";
import { parseCidr, serverAddress } from "@jiji/core/net";
import { messageOf } from "@jiji/core/runtime";
import type { DaemonContext } from "../daemon_context.ts";
import type { BindDatagram, DatagramSocket } from "./liveness.ts";

/** Told to every peer again after this long, since a datagram may be lost, milliseconds. */
const REPEAT_MS = 150;
/** A jiji-dns that does not read is cut off at this many lines it was not given yet. */
const UNREAD_MAX = 1_000;

/** Readers on this server: where lines go that jiji-dns reads. */
export interface NewsReaders {
  /** Gives every reader a line. */
  tell(line: string): void;
  /** Whether new readers find the way: someone may have deleted the socket. */
  isReachable(): boolean;
  close(): void;
}

/** Carries news of containers. What is lost on the way comes through Corrosion. */
export class NewsDuty {
  readonly #context: DaemonContext;
  readonly #bind: BindDatagram;
  readonly #serve: () => NewsReaders;
  #socket: DatagramSocket | undefined;
  #readers: NewsReaders | undefined;

  constructor(context: DaemonContext, bind: BindDatagram, serve: () => NewsReaders) {
    this.#context = context;
    this.#bind = bind;
    this.#serve = serve;
  }

  /** Opens what is not open (any more): the mesh address may come after the daemon. */
  run(): Promise<void> {
    if (this.#readers?.isReachable() === false) {
      this.#context.logger.warn("the socket for news is gone: making it again");
      this.#readers.close();
      this.#readers = undefined;
    }
    this.#readers ??= this.#serve();
    this.#open();
    return Promise.resolve();
  }

  /** Tells rows that this server has just written, and ids of those it has removed. */
  tell(rows: readonly ContainerRow[], gone: readonly string[]): void {
    const { config, clock } = this.#context;
    const texts = encodeNews({ from: config.server_id, rows, gone });
    if (texts.length === 0) return;
    for (const text of texts) this.#readers?.tell(text);
    this.#send(texts);
    clock.sleep(REPEAT_MS).then(() => this.#send(texts)).catch(() => undefined);
  }

  /** Tells the readers on this server that the liveness report says something new. */
  tellLiveness(): void {
    this.#readers?.tell(LIVENESS_NEWS);
  }

  /** Closes the sockets. */
  close(): void {
    this.#socket?.close();
    this.#socket = undefined;
    this.#readers?.close();
    this.#readers = undefined;
  }

  #send(texts: readonly string[]): void {
    for (const { block } of this.#context.facts.peers) {
      const parsed = parseCidr(block);
      if (!parsed) continue;
      for (const text of texts) {
        const bytes = new TextEncoder().encode(text);
        this.#socket?.send(bytes, { hostname: serverAddress(parsed), port: NEWS_PORT })
          .catch(() => undefined);
      }
    }
  }

  #open(): void {
    const { config, logger } = this.#context;
    const block = parseCidr(config.block);
    if (this.#socket || !block) return;
    try {
      const socket = this.#bind({ hostname: serverAddress(block), port: NEWS_PORT });
      this.#socket = socket;
      this.#receive(socket).catch((error) => {
        if (this.#socket !== socket) return;
        logger.warn("news socket failed", { error: messageOf(error) });
        socket.close();
        this.#socket = undefined;
      });
    } catch (error) {
      logger.debug("no news socket yet", { error: messageOf(error) });
    }
  }

  async #receive(socket: DatagramSocket): Promise<void> {
    while (true) {
      const { bytes, hostname } = await socket.receive();
      const news = this.#accept(bytes, hostname);
      if (!news) continue;
      for (const text of encodeNews(news)) this.#readers?.tell(text);
    }
  }

  /** Only a member speaks for itself: WireGuard lets nobody else use its address. */
  #accept(bytes: Uint8Array, hostname: string): ContainerNews | undefined {
    if (bytes.length > NEWS_BYTES_MAX) return undefined;
    const news = decodeNews(new TextDecoder().decode(bytes));
    const peer = this.#context.facts.peers.find((one) => one.server_id === news?.from);
    const block = peer && parseCidr(peer.block);
    return block && serverAddress(block) === hostname ? news : undefined;
  }
}

/** Readers of the Unix socket {@link SERVER_PATHS.news}, which root and the group jiji may open. */
export function serveNews(path: string = SERVER_PATHS.news): NewsReaders {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const listener = Deno.listen({ transport: "unix", path });
  // Reading is open to the server's users; news hold what jiji-dns answers anyhow.
  Deno.chmodSync(path, 0o666);
  const readers = new Set<NewsReader>();
  const accept = async () => {
    for await (const connection of listener) {
      const reader = new NewsReader(connection, () => readers.delete(reader));
      readers.add(reader);
    }
  };
  accept().catch(() => undefined);
  return {
    tell: (line) => {
      for (const reader of readers) reader.tell(line);
    },
    isReachable: () => {
      try {
        return Deno.lstatSync(path).isSocket === true;
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) return false;
        throw error;
      }
    },
    close: () => {
      listener.close();
      for (const reader of readers) reader.close();
    },
  };
}

/** One connection; lines are written in order, and a reader that has hung is cut off. */
class NewsReader {
  readonly #connection: Deno.Conn;
  readonly #onGone: () => void;
  #unread: string[] = [];
  #writing = false;

  constructor(connection: Deno.Conn, onGone: () => void) {
    this.#connection = connection;
    this.#onGone = onGone;
  }

  tell(line: string): void {
    this.#unread.push(line);
    if (this.#unread.length > UNREAD_MAX) return this.close();
    if (!this.#writing) this.#write().catch(() => this.close());
  }

  close(): void {
    this.#unread = [];
    this.#onGone();
    try {
      this.#connection.close();
    } catch {
      // It was closed before.
    }
  }

  async #write(): Promise<void> {
    this.#writing = true;
    while (this.#unread.length > 0) {
      const bytes = new TextEncoder().encode(this.#unread.join("\n") + "\n");
      this.#unread = [];
      for (let at = 0; at < bytes.length;) at += await this.#connection.write(bytes.subarray(at));
    }
    this.#writing = false;
  }
}
