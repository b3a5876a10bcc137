/**
 * Random, mutated and replayed packets against all of jiji-dns but its sockets, each answer judged
 * by rules of its own and by dns-packet. Reproducible: a seed gives the same packets.
 */
import { Buffer } from "node:buffer";
import dnsPacket from "dns-packet";
import type { ContainerRow } from "@jiji/core/corrosion";
import { type Random, seededRandom, silentLogger, systemClock } from "@jiji/core/runtime";
import { DnsCache } from "../src/dns_cache.ts";
import { encodeQuery } from "../src/dns_encode.ts";
import { parseMessage, renderData } from "../src/dns_message.ts";
import { parseQuery, TYPE } from "../src/dns_protocol.ts";
import { DnsServer } from "../src/dns_server.ts";
import { Forwarder } from "../src/forwarder.ts";
import { parseResolvConf } from "../src/resolv_conf.ts";
import { differenceOf, ReaderProbe } from "./thread.ts";

/** What a run of fuzzing saw. */
export interface FuzzReport {
  readonly packets: number;
  readonly answered: number;
  readonly dropped: number;
  readonly forwarded: number;
  /** Packets that a UDP thread answers by itself, with the same octets. */
  readonly byThread: number;
  /** Answers by response code. */
  readonly rcodes: Readonly<Record<string, number>>;
  /** Growth of the heap in use from a third of the run to its end, megabytes. */
  readonly grownMegabytes: number;
}

const ADDRESSES = ["10.210.1.4", "10.210.2.4", "10.210.3.4"];
const NAMES = [
  "casa-api.jiji",
  "CASA-api.JIJI",
  "api.casa.jiji",
  "nearest.casa-api.jiji",
  "casa-api-s1.jiji",
  "_3000._tcp.casa-api.jiji",
  "_tcp.casa-api.jiji",
  "casa.jiji",
  "jiji",
  "nope.jiji",
  "4.1.210.10.in-addr.arpa",
  "210.10.in-addr.arpa",
  "example.com",
  "",
];
const TYPES = [1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 64, 65, 250, 251, 252, 255, 65_280];
/** Octets that mean something in DNS packets: label lengths, pointers, ends. */
const EVIL_OCTETS = [0, 1, 12, 41, 63, 64, 0x80, 0xbf, 0xc0, 0xff];

const ZONE = { domain: "jiji", clusterCidr: "10.210.0.0/16", serverId: "s1" };

/** A server with three containers of one service, one of them unfit. */
export function fuzzServer(
  o: { readonly signal?: AbortSignal; readonly batches?: boolean } = {},
): { readonly server: DnsServer; readonly cache: DnsCache } {
  const cache = new DnsCache();
  const rows = ADDRESSES.map((ip, index): ContainerRow => ({
    id: `id${index}`,
    project: "casa",
    service: "api",
    serverId: `s${index + 1}`,
    instance: `s${index + 1}`,
    name: "casa-api",
    version: "1",
    ip,
    ports: ["3000/tcp"],
    startedAtMs: index,
    health: index === 2 ? "unhealthy" : "healthy",
    unhealthySinceMs: null,
  }));
  cache.replaceServers([], 0);
  cache.replaceContainers(rows, 0);
  const server = new DnsServer({
    zone: ZONE,
    cache,
    forwarder: new Forwarder({
      resolvers: () => Promise.resolve([]),
      upstream: { udp: () => Promise.reject(), tcp: () => Promise.reject() },
      clock: systemClock,
      randomId: () => 1,
      logger: silentLogger,
    }),
    clock: systemClock,
    logger: silentLogger,
    signal: o.signal ?? new AbortController().signal,
    batches: o.batches ?? false,
  });
  return { server, cache };
}

/** Makes packets: valid ones, changed ones, noise, and earlier ones again. */
export class PacketMaker {
  readonly #random: Random;
  readonly #earlier: Uint8Array[] = [];

  constructor(random: Random) {
    this.#random = random;
  }

  /** The next packet. */
  next(): Uint8Array {
    const kind = this.#below(10);
    if (kind === 0) return this.#noise(this.#below(600));
    if (kind === 1 && this.#earlier.length > 0) return this.#pick(this.#earlier);
    const base = encodeQuery(this.#below(65_536), {
      name: this.#pick(NAMES),
      type: this.#pick(TYPES),
    });
    let packet: Uint8Array = this.#below(4) === 0 ? base.subarray(0, base.length - 11) : base;
    if (packet.length !== base.length) packet[11] = 0;
    for (let times = kind < 4 ? 0 : this.#below(5); times > 0; times--) {
      packet = this.#mutate(packet);
    }
    if (this.#earlier.length < 500) this.#earlier.push(packet);
    else this.#earlier[this.#below(500)] = packet;
    return packet;
  }

  #mutate(packet: Uint8Array): Uint8Array {
    const changed = new Uint8Array(packet);
    const at = this.#below(Math.max(1, changed.length));
    switch (this.#below(6)) {
      case 0:
        return changed.subarray(0, at);
      case 1:
        changed[at] = this.#below(256);
        return changed;
      case 2:
        changed[at] = this.#pick(EVIL_OCTETS);
        return changed;
      case 3:
        // A pointer, often to itself or beyond the end.
        changed[at] = 0xc0 | this.#below(4);
        if (at + 1 < changed.length) changed[at + 1] = this.#below(2) ? at : this.#below(256);
        return changed;
      case 4:
        return new Uint8Array([
          ...changed.subarray(0, at),
          ...this.#noise(this.#below(80)),
          ...changed.subarray(at),
        ]);
      default:
        // Counts of the four sections.
        changed[4 + this.#below(8)] = this.#pick([0, 1, 2, 255]);
        return changed;
    }
  }

  #noise(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.#below(256));
  }

  #below(limit: number): number {
    return Math.floor(this.#random.next() * limit);
  }

  #pick<T>(items: readonly T[]): T {
    return items[this.#below(items.length)]!;
  }
}

/**
 * What is wrong with an answer, or undefined. The rules are stated anew here, not taken from the
 * code under test.
 */
export function judgeAnswer(
  packet: Uint8Array,
  answer: Uint8Array | undefined,
): string | undefined {
  const mustDrop = packet.length < 12 || ((packet[2] ?? 0) & 0x80) !== 0;
  if (answer === undefined) return mustDrop ? undefined : "dropped what deserves an answer";
  if (mustDrop) return "answered what must be dropped";
  if (answer[0] !== packet[0] || answer[1] !== packet[1]) return "another id";
  if (((answer[2] ?? 0) & 0x80) === 0) return "QR is not set";
  if (((answer[2] ?? 0) & 0x78) !== ((packet[2] ?? 0) & 0x78)) return "another opcode";
  if (((answer[2] ?? 0) & 1) !== ((packet[2] ?? 0) & 1)) return "RD is not echoed";
  const query = parseQuery(packet);
  if (query.kind !== "query") return answer.length === 12 ? undefined : "more than a header";
  const limit = query.edns ? Math.max(512, Math.min(1232, query.edns.udpBytes)) : 512;
  if (answer.length > limit) return `${answer.length} octets, ${limit} allowed`;
  const question = packet.subarray(12, 12 + query.question.length);
  if (!question.every((octet, index) => octet === answer[12 + index])) return "another question";
  return judgeRecords(answer, query.type);
}

function judgeRecords(answer: Uint8Array, type: number): string | undefined {
  const message = parseMessage(answer);
  if (!message) return "our own reader refuses it";
  const own = message.records.filter((record) => record.section === "answer");
  for (const record of own) {
    if (record.type !== (type === TYPE.ANY ? TYPE.HINFO : type)) return "a record of another type";
    if (record.type !== TYPE.A) continue;
    const address = renderData(answer, record);
    if (!ADDRESSES.slice(0, 2).includes(address)) return `a wrong address, ${address}`;
  }
  const second = dnsPacket.decode(Buffer.from(answer));
  if ((second.answers?.length ?? 0) !== own.length) return "dns-packet counts other answers";
  const theirs = (second.answers ?? []).flatMap((one) => one.type === "A" ? [one.data] : []);
  const ours = own.filter((one) => one.type === TYPE.A).map((one) => renderData(answer, one));
  return theirs.join() === ours.join() ? undefined : "dns-packet reads other addresses";
}

/** Octets in use, without garbage where V8 was started with `--expose-gc`. */
function heapInUse(): number {
  (globalThis as { readonly gc?: () => void }).gc?.();
  return Deno.memoryUsage().heapUsed;
}

/**
 * Fuzzes for some time.
 *
 * @throws {Error} with seed, number and bytes of the first packet that is answered wrongly.
 */
export async function fuzz(
  o: { readonly seed: number; readonly milliseconds: number },
): Promise<FuzzReport> {
  const { server, cache } = fuzzServer();
  const probe = new ReaderProbe({ cache, zone: ZONE });
  const maker = new PacketMaker(seededRandom(o.seed));
  const rcodes: Record<string, number> = {};
  const counts = { packets: 0, answered: 0, dropped: 0, forwarded: 0, byThread: 0 };
  const startMs = performance.now();
  let heapAtThird: number | undefined;
  for (let nowMs = startMs; nowMs - startMs < o.milliseconds; nowMs = performance.now()) {
    for (let round = 0; round < 200; round++) {
      const packet = maker.next();
      counts.packets += 1;
      try {
        const answer = server.respond(packet, "udp");
        if (answer instanceof Promise) counts.forwarded += 1;
        const bytes = answer instanceof Promise ? await answer : answer;
        const thread = probe.answer(packet);
        if (thread) counts.byThread += 1;
        const problem = judgeAnswer(packet, bytes) ?? (thread && differenceOf(thread, bytes));
        if (problem !== undefined) throw new Error(problem);
        if (bytes === undefined) counts.dropped += 1;
        else counts.answered += 1;
        const rcode = bytes === undefined ? "none" : String((bytes[3] ?? 0) & 15);
        rcodes[rcode] = (rcodes[rcode] ?? 0) + 1;
        parseMessage(packet);
      } catch (error) {
        const hex = [...packet].map((octet) => octet.toString(16).padStart(2, "0")).join("");
        const place = `seed ${o.seed}, packet ${counts.packets}: ${hex}`;
        throw new Error(`${error instanceof Error ? error.message : error}; ${place}`, {
          cause: error,
        });
      }
    }
    parseResolvConf(new TextDecoder().decode(maker.next()), new Set());
    cache.sweep(nowMs);
    if (heapAtThird === undefined && nowMs - startMs > o.milliseconds / 3) {
      heapAtThird = heapInUse();
    }
  }
  const grown = heapInUse() - (heapAtThird ?? 0);
  return { ...counts, rcodes, grownMegabytes: Math.max(0, grown / 1e6) };
}
