/** Answers of other resolvers, kept as long as their TTLs allow. Pure state with a bound. */
import type { DnsMessage } from "./dns_message.ts";
import { type DnsQuery, RCODE, TYPE, UDP_BYTES_MAX } from "./dns_protocol.ts";

/** Entries kept; a few hundred bytes each. The oldest leave first. */
export const FORWARD_ENTRIES_MAX = 4_000;
/** Nothing is kept longer, seconds, whatever its TTL says. */
const TTL_MAX_S = 3_600;
/** A TTL above this counts as 0. Source: RFC 2181 section 8. */
const TTL_VALID_S = 0x7fff_ffff;
/** Negative answers are kept no longer, seconds: a host's resolver is near. */
const NEGATIVE_TTL_MAX_S = 60;

interface Entry {
  readonly packet: Uint8Array<ArrayBuffer>;
  readonly message: DnsMessage;
  readonly storedAtMs: number;
  readonly ttlS: number;
}

/** Queries with equal keys get equal answers. */
export function forwardKey(query: DnsQuery): string {
  const edns = query.edns ? (query.edns.dnssecOk ? "d" : "e") : "-";
  const bits = `${edns}${query.recursionDesired ? "r" : ""}${query.checkingDisabled ? "c" : ""}`;
  return `${query.type}/${query.qclass}/${bits}/${query.name}`;
}

/**
 * How long an answer may be kept, seconds; 0 when not at all. What was cut and what failed is not
 * kept (RFC 2181 section 9, RFC 2308 section 7).
 */
export function keepSeconds(message: DnsMessage, packet: Uint8Array): number {
  if (message.truncated) return 0;
  if (message.rcode !== RCODE.NOERROR && message.rcode !== RCODE.NXDOMAIN) return 0;
  const ttls = message.records
    .filter((record) => record.type !== TYPE.OPT && record.section !== "additional")
    .map((record) => record.ttlS > TTL_VALID_S ? 0 : record.ttlS);
  if (message.records.some((record) => record.section === "answer")) {
    return Math.min(TTL_MAX_S, ...ttls);
  }
  // RFC 2308 section 5: the lesser of the SOA's TTL and its last field; without an SOA not at all.
  const soa = message.records.find((record) =>
    record.section === "authority" && record.type === TYPE.SOA
  );
  if (!soa || soa.dataBytes < 22) return 0;
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const minimumS = view.getUint32(soa.dataOffset + soa.dataBytes - 4);
  return Math.min(NEGATIVE_TTL_MAX_S, minimumS, ...ttls);
}

/** The forwarder's memory. */
export class ForwardCache {
  readonly #entries = new Map<string, Entry>();

  /** Keeps an answer if its TTLs allow. */
  put(
    key: string,
    answer: { readonly packet: Uint8Array<ArrayBuffer>; readonly message: DnsMessage },
    nowMs: number,
  ): void {
    const ttlS = keepSeconds(answer.message, answer.packet);
    if (ttlS <= 0) return;
    this.#entries.delete(key);
    this.#entries.set(key, { ...answer, storedAtMs: nowMs, ttlS });
    if (this.#entries.size > FORWARD_ENTRIES_MAX) {
      const oldest = this.#entries.keys().next().value;
      if (oldest !== undefined) this.#entries.delete(oldest);
    }
  }

  /** A copy of a kept answer with its TTLs run down (RFC 1035 section 4.1.3), or undefined. */
  get(key: string, nowMs: number): Uint8Array<ArrayBuffer> | undefined {
    const entry = this.#entries.get(key);
    if (!entry) return undefined;
    const ageS = Math.floor((nowMs - entry.storedAtMs) / 1000);
    if (ageS < 0 || ageS >= entry.ttlS) {
      this.#entries.delete(key);
      return undefined;
    }
    const packet = entry.packet.slice();
    const view = new DataView(packet.buffer);
    for (const record of entry.message.records) {
      if (record.type === TYPE.OPT) continue;
      view.setUint32(record.ttlOffset, Math.max(0, record.ttlS - ageS));
    }
    return packet;
  }

  /** Entries held. */
  get size(): number {
    return this.#entries.size;
  }
}

/**
 * The query to send upstream for a client's: same question, our id, our own EDNS size. An OPT is for
 * the next hop alone (RFC 6891 section 6.1.1), so its options go no further.
 */
export function encodeForward(query: DnsQuery, id: number): Uint8Array<ArrayBuffer> {
  const opt = query.edns
    ? [0, 0, TYPE.OPT, UDP_BYTES_MAX >> 8, UDP_BYTES_MAX & 255, 0, 0, query.edns.dnssecOk ? 128 : 0]
    : [];
  const flags = (query.recursionDesired ? 0x0100 : 0) | (query.checkingDisabled ? 0x0010 : 0);
  const header = [id >> 8, id & 255, flags >> 8, flags & 255, 0, 1, 0, 0, 0, 0, 0, opt.length && 1];
  return new Uint8Array([...header, ...query.question, ...opt, ...(opt.length ? [0, 0, 0] : [])]);
}
