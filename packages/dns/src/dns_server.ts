/** The sockets of jiji-dns: UDP and TCP on each address, with bounds on everything. */
import { type Cidr, cidrHas, parseIpv4 } from "@jiji/core/net";
import { type Clock, type Logger, messageOf } from "@jiji/core/runtime";
import { decide, noSuchName, type Rotation, type Zone } from "./answer.ts";
import { encodeReject, encodeResponse, udpLimit } from "./dns_encode.ts";
import type { DnsCache } from "./dns_cache.ts";
import { Metrics, type QueryResult, type ThreadCounts } from "./metrics.ts";
import { type DnsQuery, parseQuery, plainAnswer, RCODE } from "./dns_protocol.ts";
import type { Forwarder } from "./forwarder.ts";
import { TcpServer } from "./tcp_server.ts";
import { BatchedUdp } from "./udp/batched_udp.ts";
import type { SocketStore } from "./udp/socket_store.ts";
import { NoBatches } from "./udp/sockets.ts";
import { ZoneTable } from "./udp/zone_table.ts";
import type { ServerAddress } from "./upstream.ts";

/** Largest message over TCP, octets. */
const TCP_BYTES_MAX = 65_535;

/** Parts of a server. */
export interface DnsServerOptions {
  readonly zone: Zone;
  readonly cache: DnsCache;
  readonly forwarder: Forwarder;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
  /** Clients that are answered; others get no word (nothing to amplify). Default: everyone. */
  readonly clients?: readonly Cidr[];
  /** Whether UDP may be served in batches through the C library. Default: false. */
  readonly batches?: boolean;
  /** Where sockets are kept over a restart. Default: nowhere. */
  readonly store?: SocketStore;
}

const NO_COUNTS: ThreadCounts = {
  answered: 0,
  nxdomain: 0,
  overloaded: 0,
  foreign: 0,
  malformed: 0,
  batches: 0,
};

/** Every IPv4 address. */
const EVERYONE: readonly Cidr[] = [{ base: 0, prefix: 0 }];

/** Answers queries on any number of addresses. */
export class DnsServer {
  readonly #options: DnsServerOptions;
  readonly #rotation: Rotation = roundRobin();
  /** What UDP threads answer with, and the threads themselves. */
  readonly #table: ZoneTable | undefined;
  readonly #threads = new Set<BatchedUdp>();
  #ended: ThreadCounts = NO_COUNTS;
  /** What was answered. */
  readonly metrics = new Metrics();

  constructor(options: DnsServerOptions) {
    this.#options = options;
    if (!options.batches) return;
    const table = new ZoneTable(options);
    this.#table = table;
    options.cache.onChange = (keys) => table.update(keys);
  }

  /**
   * Listens on an address until the signal aborts, over UDP and TCP, each whether or not the other can
   * be had. An address that the host does not have yet (the mesh interface is coming up) is tried
   * again until it has.
   */
  async listen(address: ServerAddress): Promise<void> {
    const tcp = this.#keep("tcp", {
      address,
      serve: (aborted) => this.#serveTcp(address, aborted),
    });
    // While TCP clients get a moment to finish, UDP still answers.
    const udp = this.#keep("udp", {
      address,
      serve: (aborted) => this.#serveUdp(address, aborted.then(() => tcp)),
    });
    await Promise.all([tcp, udp]);
  }

  /** Serves until the signal aborts, again after each failure. */
  async #keep(
    transport: "udp" | "tcp",
    o: {
      readonly address: ServerAddress;
      readonly serve: (aborted: Promise<void>) => Promise<void>;
    },
  ): Promise<void> {
    const { clock, logger, signal } = this.#options;
    const aborted = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => aborted.resolve(), { once: true });
    let reported = "";
    while (!signal.aborted) {
      try {
        await o.serve(aborted.promise);
      } catch (error) {
        if (signal.aborted) return;
        const reason = messageOf(error);
        if (reason !== reported) {
          logger.warn("cannot listen yet", { ...o.address, transport, reason });
        }
        reported = reason;
        await clock.sleep(500, { signal }).catch(() => undefined);
      }
    }
  }

  async #serveTcp(address: ServerAddress, stopped: Promise<void>): Promise<void> {
    const { clock, logger, store } = this.#options;
    const tcp = await TcpServer.open({
      ...{ address, clock, logger },
      ...(store ? { store } : {}),
      isClient: (ip) => this.isClient(ip),
      respond: (packet) => this.respond(packet, "tcp"),
    });
    logger.info("listening", { ...address, transport: "tcp" });
    try {
      await Promise.race([tcp.done, stopped]);
    } finally {
      await tcp.stop();
    }
  }

  async #serveUdp(address: ServerAddress, stopped: Promise<void>): Promise<void> {
    const { logger } = this.#options;
    const batched = this.#openBatches(address);
    if (batched) {
      logger.info("listening", { ...address, transport: "udp", batches: true });
      try {
        return await Promise.race([batched.done, stopped]);
      } finally {
        await this.#end(batched);
      }
    }
    const socket = Deno.listenDatagram({ transport: "udp", ...address });
    logger.info("listening", { ...address, transport: "udp", batches: false });
    try {
      await Promise.race([this.#serveDatagrams(socket), stopped]);
    } finally {
      closeQuietly(socket);
    }
  }

  /** The fast path, where it can be had. */
  #openBatches(address: ServerAddress): BatchedUdp | undefined {
    if (!this.#table) return undefined;
    try {
      const batched = new BatchedUdp({
        address,
        clients: this.#options.clients ?? EVERYONE,
        reader: this.#table.readerInit(noSuchName(this.#options.zone)),
        ...(this.#options.store ? { store: this.#options.store } : {}),
        respond: (packet) => this.respond(packet, "udp"),
      });
      this.#threads.add(batched);
      return batched;
    } catch (error) {
      if (!(error instanceof NoBatches)) throw error;
      this.#options.logger.warn("UDP is served one packet at a time", { reason: error.message });
      return undefined;
    }
  }

  async #end(thread: BatchedUdp): Promise<void> {
    await thread.stop();
    this.#threads.delete(thread);
    this.#ended = addCounts(this.#ended, thread);
  }

  /** What the UDP threads counted, those that have ended as well. */
  get threadCounts(): ThreadCounts {
    return [...this.#threads].reduce(addCounts, this.#ended);
  }

  /** Whether a client of this address is answered at all. */
  isClient(ip: string): boolean {
    const { clients } = this.#options;
    if (!clients) return true;
    const address = parseIpv4(ip);
    return address !== undefined && clients.some((cidr) => cidrHas(cidr, address));
  }

  async #serveDatagrams(socket: Deno.DatagramConn): Promise<void> {
    while (true) {
      let packet: Uint8Array<ArrayBuffer>;
      let from: Deno.Addr;
      try {
        [packet, from] = await socket.receive();
      } catch (error) {
        // A client that went away is reported on the next receive (ICMP); the socket is fine.
        if (error instanceof Deno.errors.ConnectionRefused) continue;
        throw error;
      }
      if (from.transport !== "udp" || !this.isClient(from.hostname)) continue;
      const answer = this.respond(packet, "udp");
      if (answer instanceof Promise) {
        answer.then((bytes) => sendQuietly(socket, { bytes, to: from }));
      } else {
        sendQuietly(socket, { bytes: answer, to: from });
      }
    }
  }

  /** The bytes to send back; a promise only where another resolver must be asked. */
  respond(
    packet: Uint8Array,
    transport: "udp" | "tcp",
  ): Uint8Array<ArrayBuffer> | undefined | Promise<Uint8Array<ArrayBuffer>> {
    const { clock } = this.#options;
    const startMs = clock.monotonicMs();
    const answer = this.#answer(packet, transport);
    const count = (bytes: Uint8Array | undefined, isForwarded: boolean) =>
      this.metrics.count(resultOf(bytes, isForwarded), clock.monotonicMs() - startMs);
    if (answer instanceof Promise) answer.then((bytes) => count(bytes, true));
    else count(answer, false);
    return answer;
  }

  #answer(
    packet: Uint8Array,
    transport: "udp" | "tcp",
  ): Uint8Array<ArrayBuffer> | undefined | Promise<Uint8Array<ArrayBuffer>> {
    const query = parseQuery(packet);
    if (query.kind === "drop") return undefined;
    if (query.kind === "reject") return encodeReject(query);
    const bytesMax = transport === "udp" ? udpLimit(query) : TCP_BYTES_MAX;
    const verdict = decide(query, { ...this.#options, rotation: this.#rotation });
    return verdict.kind === "forward"
      ? this.#forward(query, bytesMax)
      : encodeResponse(query, verdict.answer, { bytesMax });
  }

  async #forward(query: DnsQuery, bytesMax: number): Promise<Uint8Array<ArrayBuffer>> {
    const answer = await this.#options.forwarder.forward(query).catch((error) => {
      this.#options.logger.debug("forward failed", { error: messageOf(error) });
      return undefined;
    });
    if (!answer) return encodeResponse(query, plainAnswer(RCODE.SERVFAIL), { bytesMax });
    if (answer.length <= bytesMax) return answer;
    return truncate(query, answer);
  }
}

function addCounts(sum: ThreadCounts, thread: BatchedUdp): ThreadCounts {
  return {
    answered: sum.answered + thread.counted("answered"),
    nxdomain: sum.nxdomain + thread.counted("nxdomain"),
    overloaded: sum.overloaded + thread.counted("overloaded"),
    foreign: sum.foreign + thread.counted("foreign"),
    malformed: sum.malformed + thread.counted("malformed"),
    batches: sum.batches + thread.counted("batches"),
  };
}

/** An upstream answer that is too large for UDP: its code and question, with TC set. */
function truncate(query: DnsQuery, answer: Uint8Array): Uint8Array<ArrayBuffer> {
  const rcode = (answer[3] ?? 0) & 15;
  const short = encodeResponse(query, plainAnswer(rcode), { bytesMax: TCP_BYTES_MAX });
  short[2] = (short[2] ?? 0) | 0x02;
  return short;
}

/** What an answer's bytes say of the query's end. */
function resultOf(bytes: Uint8Array | undefined, isForwarded: boolean): QueryResult {
  if (!bytes) return "malformed";
  const rcode = (bytes[3] ?? 0) & 15;
  if (rcode === RCODE.SERVFAIL) return "failed";
  if (isForwarded) return "forwarded";
  if (rcode === RCODE.NOERROR) return "answered";
  if (rcode === RCODE.NXDOMAIN) return "nxdomain";
  return rcode === RCODE.FORMERR ? "malformed" : "refused";
}

/** Counts per name; the map is emptied now and then rather than growing for ever. */
export function roundRobin(): Rotation {
  const turns = new Map<string, number>();
  return {
    next(name) {
      const turn = (turns.get(name) ?? -1) + 1;
      if (turns.size > 20_000) turns.clear();
      turns.set(name, turn % 1_000_000);
      return turn;
    },
  };
}

function sendQuietly(
  socket: Deno.DatagramConn,
  o: { readonly bytes: Uint8Array<ArrayBuffer> | undefined; readonly to: Deno.Addr },
): void {
  // A client that cannot be reached asks again; there is nobody to tell.
  if (o.bytes) socket.send(o.bytes, o.to).catch(() => undefined);
}

function closeQuietly(resource: { close(): void }): void {
  try {
    resource.close();
  } catch {
    // Closed before.
  }
}
