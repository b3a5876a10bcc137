/** Reading DNS answers: those of upstream resolvers and of jiji-dns itself. Pure, never throws. */
import { FLAG_AA, FLAG_QR, FLAG_TC, HEADER_BYTES, readName, TYPE } from "./dns_protocol.ts";

/** A record as it stands in a message. */
export interface MessageRecord {
  readonly section: "answer" | "authority" | "additional";
  readonly name: string;
  readonly type: number;
  readonly ttlS: number;
  /** Where the TTL's four octets stand. */
  readonly ttlOffset: number;
  /** Where the data begins, and its length. */
  readonly dataOffset: number;
  readonly dataBytes: number;
}

/** An answer, taken apart. */
export interface DnsMessage {
  readonly id: number;
  readonly rcode: number;
  readonly authoritative: boolean;
  readonly truncated: boolean;
  /** Lower-case name that was asked. */
  readonly name: string;
  readonly type: number;
  readonly qclass: number;
  /** Offset after the question. */
  readonly questionEnd: number;
  readonly records: readonly MessageRecord[];
}

/** More records than fit in 64 KiB cannot be meant; the smallest record has 11 octets. */
const RECORDS_MAX = 6_000;

/** The message in `packet`, or undefined when it is not a well-formed answer to one question. */
export function parseMessage(packet: Uint8Array): DnsMessage | undefined {
  if (packet.length < HEADER_BYTES) return undefined;
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const flags = view.getUint16(2);
  if (!(flags & FLAG_QR) || view.getUint16(4) !== 1) return undefined;
  const question = readName(packet, HEADER_BYTES, { pointers: false });
  if (!question || question.next + 4 > packet.length) return undefined;
  const records = readRecords(packet, question.next + 4);
  if (!records) return undefined;
  return {
    id: view.getUint16(0),
    rcode: flags & 15,
    authoritative: (flags & FLAG_AA) !== 0,
    truncated: (flags & FLAG_TC) !== 0,
    name: question.text,
    type: view.getUint16(question.next),
    qclass: view.getUint16(question.next + 2),
    questionEnd: question.next + 4,
    records,
  };
}

function readRecords(packet: Uint8Array, start: number): MessageRecord[] | undefined {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const sections = ["answer", "authority", "additional"] as const;
  const records: MessageRecord[] = [];
  let offset = start;
  for (const [index, section] of sections.entries()) {
    const count = view.getUint16(6 + index * 2);
    if (records.length + count > RECORDS_MAX) return undefined;
    for (let left = count; left > 0; left--) {
      const owner = readName(packet, offset, { pointers: true });
      if (!owner || owner.next + 10 > packet.length) return undefined;
      const dataBytes = view.getUint16(owner.next + 8);
      const dataOffset = owner.next + 10;
      if (dataOffset + dataBytes > packet.length) return undefined;
      records.push({
        section,
        name: owner.text,
        type: view.getUint16(owner.next),
        ttlS: view.getUint32(owner.next + 4),
        ttlOffset: owner.next + 4,
        dataOffset,
        dataBytes,
      });
      offset = dataOffset + dataBytes;
    }
  }
  return records;
}

/** Dotted quads of the A records that answer the question. */
export function answeredAddresses(packet: Uint8Array, message: DnsMessage): string[] {
  return message.records
    .filter((record) =>
      record.section === "answer" && record.type === TYPE.A && record.dataBytes === 4
    )
    .map((record) => [...packet.subarray(record.dataOffset, record.dataOffset + 4)].join("."));
}

const TYPE_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(TYPE).map(([name, code]) => [code, name]),
);

/** Name of a type, `TYPE65` for one without (RFC 3597 section 5). */
export function renderType(type: number): string {
  return TYPE_NAMES.get(type) ?? `TYPE${type}`;
}

/** Number of a type's name, or undefined. */
export function parseType(text: string): number | undefined {
  const upper = text.toUpperCase();
  const known = Object.entries(TYPE).find(([name]) => name === upper)?.[1];
  const generic = /^TYPE(\d{1,5})$/.exec(upper);
  return known ?? (generic ? Number(generic[1]) : undefined);
}

/** A record's data as a person reads it. */
export function renderData(packet: Uint8Array, record: MessageRecord): string {
  const data = packet.subarray(record.dataOffset, record.dataOffset + record.dataBytes);
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const nameAt = (at: number) =>
    (readName(packet, record.dataOffset + at, { pointers: true })?.text ?? "?") + ".";
  switch (record.type) {
    case TYPE.A:
      return [...data].join(".");
    case TYPE.NS:
    case TYPE.CNAME:
    case TYPE.PTR:
    case TYPE.SOA:
      return nameAt(0);
    case TYPE.SRV:
      return data.length < 7
        ? "?"
        : `${view.getUint16(0)} ${view.getUint16(2)} ${view.getUint16(4)} ${nameAt(6)}`;
    case TYPE.TXT:
    case TYPE.HINFO:
      return readTexts(data).map((text) => JSON.stringify(text)).join(" ");
    default:
      return `\\# ${data.length} ${[...data].map((o) => o.toString(16).padStart(2, "0")).join("")}`;
  }
}

function readTexts(data: Uint8Array): string[] {
  const texts: string[] = [];
  for (let at = 0; at < data.length; at += 1 + (data[at] ?? 0)) {
    texts.push(new TextDecoder().decode(data.subarray(at + 1, at + 1 + (data[at] ?? 0))));
  }
  return texts;
}
