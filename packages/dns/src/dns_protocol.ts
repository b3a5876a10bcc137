/**
 * The DNS wire format, both directions. Pure; never throws on what came from the network.
 * Source: RFC 1035 section 4 unless another is named.
 */

/** Record types by name. Source: IANA "DNS parameters". */
export const TYPE = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  HINFO: 13,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  OPT: 41,
  ANY: 255,
} as const;

/** Response codes. Source: RFC 1035 section 4.1.1, RFC 6891 section 9 for BADVERS. */
export const RCODE = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
  BADVERS: 16,
} as const;

/** Class Internet. */
export const CLASS_IN = 1;

/** Largest UDP answer without EDNS, octets. Source: section 4.2.1. */
export const UDP_BYTES_PLAIN = 512;
/** Largest UDP answer we send or announce: fits every path without fragments (DNS flag day 2020). */
export const UDP_BYTES_MAX = 1232;

/** Octets before the question. */
export const HEADER_BYTES = 12;
/** Flag bits of the header's second word: response. */
export const FLAG_QR = 0x8000;
/** Authoritative. */
export const FLAG_AA = 0x0400;
/** Truncated. */
export const FLAG_TC = 0x0200;
/** Recursion desired. */
export const FLAG_RD = 0x0100;
/** Recursion available. */
export const FLAG_RA = 0x0080;
/** Checking disabled. Source: RFC 4035 section 3.2.2. */
export const FLAG_CD = 0x0010;

/** Octets of a name and of a label. Source: section 2.3.4. */
const NAME_BYTES_MAX = 255;
const LABEL_BYTES_MAX = 63;

/** EDNS facts of a query. Source: RFC 6891. */
export interface Edns {
  /** Largest answer the client takes over UDP, octets; at least 512. */
  readonly udpBytes: number;
  readonly version: number;
  readonly dnssecOk: boolean;
  /** Octets of options, which change no answer of ours. */
  readonly optionBytes: number;
}

/** A well-formed query of one question. */
export interface DnsQuery {
  readonly kind: "query";
  readonly id: number;
  readonly recursionDesired: boolean;
  readonly checkingDisabled: boolean;
  /** Lower-case name without the final dot; "" is the root. Odd octets are written `\ddd`. */
  readonly name: string;
  readonly type: number;
  readonly qclass: number;
  /** The question as it came, so that the answer repeats its case (0x20). */
  readonly question: Uint8Array;
  readonly edns: Edns | undefined;
}

/** What a packet that is no usable query deserves. */
export type DnsReject =
  | { readonly kind: "drop" }
  | {
    readonly kind: "reject";
    readonly id: number;
    readonly opcode: number;
    readonly recursionDesired: boolean;
    readonly rcode: number;
  };

/** Data of a record. Names are lower-case text without the final dot. */
export type RecordData =
  | { readonly type: "A"; readonly address: string }
  | { readonly type: "PTR"; readonly target: string }
  | { readonly type: "TXT"; readonly texts: readonly string[] }
  | {
    readonly type: "SRV";
    readonly priority: number;
    readonly weight: number;
    readonly port: number;
    readonly target: string;
  }
  | { readonly type: "HINFO"; readonly cpu: string; readonly os: string }
  | {
    readonly type: "SOA";
    readonly primary: string;
    readonly mailbox: string;
    readonly serial: number;
    readonly refreshS: number;
    readonly retryS: number;
    readonly expireS: number;
    readonly minimumS: number;
  };

/** A record to send. */
export interface DnsRecord {
  /** Owner; undefined is the name that was asked. */
  readonly name?: string;
  readonly ttlS: number;
  readonly data: RecordData;
}

/** An answer to send, apart from the query's own parts. */
export interface DnsAnswer {
  readonly rcode: number;
  readonly authoritative: boolean;
  readonly answers: readonly DnsRecord[];
  readonly authority: readonly DnsRecord[];
  readonly additional: readonly DnsRecord[];
}

/** An answer that only carries a code. */
export function plainAnswer(rcode: number): DnsAnswer {
  return { rcode, authoritative: false, answers: [], authority: [], additional: [] };
}

/**
 * Reads a query. Answers (QR set) and packets too short for a header are dropped, lest two servers
 * answer each other for ever; other malformed ones get FORMERR, other opcodes NOTIMP (section 4.1.1).
 */
export function parseQuery(packet: Uint8Array): DnsQuery | DnsReject {
  if (packet.length < HEADER_BYTES) return { kind: "drop" };
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const flags = view.getUint16(2);
  if (flags & FLAG_QR) return { kind: "drop" };
  const id = view.getUint16(0);
  const opcode = (flags >> 11) & 15;
  const recursionDesired = (flags & FLAG_RD) !== 0;
  const reject = (rcode: number): DnsReject => ({
    kind: "reject",
    id,
    opcode,
    recursionDesired,
    rcode,
  });
  if (opcode !== 0) return reject(RCODE.NOTIMP);
  // RFC 9619 section 4: a query has exactly one question, and no answers of its own.
  if (view.getUint16(4) !== 1 || view.getUint16(6) !== 0 || view.getUint16(8) !== 0) {
    return reject(RCODE.FORMERR);
  }
  const name = readName(packet, HEADER_BYTES, { pointers: false });
  if (!name || name.next + 4 > packet.length) return reject(RCODE.FORMERR);
  const end = name.next + 4;
  const edns = readEdns(packet, { offset: end, count: view.getUint16(10) });
  if (edns === "malformed") return reject(RCODE.FORMERR);
  return {
    kind: "query",
    id,
    recursionDesired,
    checkingDisabled: (flags & FLAG_CD) !== 0,
    name: name.text,
    type: view.getUint16(name.next),
    qclass: view.getUint16(name.next + 2),
    question: packet.slice(HEADER_BYTES, end),
    edns,
  };
}

/** A name read from a packet. */
export interface NameAt {
  readonly text: string;
  /** Offset after the name where it stands. */
  readonly next: number;
}

/**
 * The name at `offset`, or undefined when it is malformed. A pointer may only lead back, which ends
 * every loop (section 4.1.4).
 */
export function readName(
  packet: Uint8Array,
  offset: number,
  options: { readonly pointers: boolean },
): NameAt | undefined {
  let text = "";
  let at = offset;
  let next: number | undefined;
  let bytes = 1;
  let lowest = offset;
  while (true) {
    const length = packet[at];
    if (length === undefined) return undefined;
    if (length === 0) return { text, next: next ?? at + 1 };
    if (length >= 0xc0) {
      const low = packet[at + 1];
      if (!options.pointers || low === undefined) return undefined;
      const target = ((length & 0x3f) << 8) | low;
      if (target >= lowest) return undefined;
      next ??= at + 2;
      lowest = target;
      at = target;
      continue;
    }
    if (length > LABEL_BYTES_MAX) return undefined;
    bytes += length + 1;
    if (bytes > NAME_BYTES_MAX || at + 1 + length > packet.length) return undefined;
    if (text) text += ".";
    for (let index = at + 1; index <= at + length; index++) text += OCTET_TEXTS[packet[index]!]!;
    at += 1 + length;
  }
}

/** Texts of all octets, made once. */
const OCTET_TEXTS: readonly string[] = Array.from({ length: 256 }, (_, octet) => octetText(octet));

/**
 * Lower-case text of an octet, since case means nothing (RFC 4343 section 3); dots, backslashes and
 * unprintables as `\ddd` (section 5.1). Underscores are letters like others (RFC 8552).
 */
function octetText(octet: number): string {
  if (octet >= 65 && octet <= 90) return String.fromCharCode(octet + 32);
  if (octet > 32 && octet < 127 && octet !== 46 && octet !== 92) return String.fromCharCode(octet);
  return `\\${String(octet).padStart(3, "0")}`;
}

function readEdns(
  packet: Uint8Array,
  section: { readonly offset: number; readonly count: number },
): Edns | undefined | "malformed" {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  let { offset } = section;
  let edns: Edns | undefined;
  for (let index = 0; index < section.count; index++) {
    const name = readName(packet, offset, { pointers: true });
    if (!name || name.next + 10 > packet.length) return "malformed";
    const type = view.getUint16(name.next);
    const end = name.next + 10 + view.getUint16(name.next + 8);
    if (end > packet.length) return "malformed";
    if (type === TYPE.OPT) {
      // RFC 6891 section 6.1.1: one OPT; section 6.1.2: owned by the root; 6.2.3: 512 at least.
      if (edns || name.text !== "") return "malformed";
      const ttl = view.getUint32(name.next + 4);
      edns = {
        udpBytes: Math.max(UDP_BYTES_PLAIN, view.getUint16(name.next + 2)),
        version: (ttl >> 16) & 0xff,
        dnssecOk: (ttl & 0x8000) !== 0,
        optionBytes: view.getUint16(name.next + 8),
      };
    }
    offset = end;
  }
  return edns;
}
