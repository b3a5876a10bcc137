/** Writing DNS answers and questions. Pure. Source: RFC 1035 section 4 unless another is named. */
import {
  CLASS_IN,
  type DnsAnswer,
  type DnsQuery,
  type DnsRecord,
  type DnsReject,
  type Edns,
  FLAG_AA,
  FLAG_CD,
  FLAG_QR,
  FLAG_RA,
  FLAG_RD,
  FLAG_TC,
  HEADER_BYTES,
  type RecordData,
  TYPE,
  UDP_BYTES_MAX,
  UDP_BYTES_PLAIN,
} from "./dns_protocol.ts";

/** How large an answer to this query may be over UDP, octets (RFC 6891 sections 6.2.3 and 6.2.5). */
export function udpLimit(query: Pick<DnsQuery, "edns">): number {
  return query.edns ? Math.min(query.edns.udpBytes, UDP_BYTES_MAX) : UDP_BYTES_PLAIN;
}

/** The few bytes that refuse a packet: its id, opcode and RD are given back (section 4.1.1). */
export function encodeReject(reject: DnsReject & { kind: "reject" }): Uint8Array<ArrayBuffer> {
  const packet = new Uint8Array(HEADER_BYTES);
  const view = new DataView(packet.buffer);
  view.setUint16(0, reject.id);
  const flags = FLAG_QR | (reject.opcode << 11) | (reject.recursionDesired ? FLAG_RD : 0);
  view.setUint16(2, flags | FLAG_RA | reject.rcode);
  return packet;
}

/**
 * The answer's bytes, at most `bytesMax`. What does not fit is left out: additional records
 * silently, others with the TC bit set (RFC 2181 section 9), so that the client asks over TCP. The
 * question is repeated as it came, RD and CD too (section 4.1.1, RFC 4035 section 3.2.2), and an OPT
 * is there if the query had one (RFC 6891 section 7).
 */
export function encodeResponse(
  query: DnsQuery,
  answer: DnsAnswer,
  options: { readonly bytesMax: number },
): Uint8Array<ArrayBuffer> {
  const writer = new Writer(query, options.bytesMax - (query.edns ? 11 : 0));
  const answers = writer.records(answer.answers);
  const authority = writer.truncated ? 0 : writer.records(answer.authority);
  const truncated = writer.truncated;
  let additional = truncated ? 0 : writer.records(answer.additional);
  if (query.edns) {
    writer.opt(query.edns, answer.rcode);
    additional += 1;
  }
  const flags = FLAG_QR | FLAG_RA | (answer.rcode & 15) |
    (answer.authoritative ? FLAG_AA : 0) | (truncated ? FLAG_TC : 0) |
    (query.recursionDesired ? FLAG_RD : 0) | (query.checkingDisabled ? FLAG_CD : 0);
  return writer.finish({ id: query.id, flags, counts: [answers, authority, additional] });
}

class Writer {
  readonly #limit: number;
  readonly #query: DnsQuery;
  #names: ReadonlyMap<string, number> | undefined;
  #bytes: Uint8Array<ArrayBuffer>;
  #at: number;
  truncated = false;

  constructor(query: DnsQuery, limit: number) {
    this.#limit = limit;
    this.#query = query;
    this.#bytes = new Uint8Array(Math.max(512, HEADER_BYTES + query.question.length + 11));
    this.#bytes.set(query.question, HEADER_BYTES);
    this.#at = HEADER_BYTES + query.question.length;
  }

  /** Writes as many as fit; gives how many. */
  records(records: readonly DnsRecord[]): number {
    let written = 0;
    for (const record of records) {
      if (record.data.type === "A" && record.name === undefined) {
        // The most common record by far goes without detours.
        if (this.#at + 16 > this.#limit) {
          this.truncated = true;
          return written;
        }
        this.#address(record.data.address, record.ttlS);
        written += 1;
        continue;
      }
      const data = encodeData(record.data, (name) => this.#name(name));
      const owner = record.name === undefined ? [0xc0, HEADER_BYTES] : this.#name(record.name);
      const size = owner.length + 10 + data.length;
      if (this.#at + size > this.#limit) {
        this.truncated = true;
        return written;
      }
      this.#grow(size);
      this.#put(owner);
      this.#fixed({
        type: TYPE[record.data.type],
        rclass: CLASS_IN,
        ttl: record.ttlS,
        length: data.length,
      });
      this.#put(data);
      written += 1;
    }
    return written;
  }

  /** An address of the name that was asked: 16 octets. */
  #address(address: string, ttlS: number): void {
    this.#grow(16);
    this.#bytes[this.#at] = 0xc0;
    this.#bytes[this.#at + 1] = HEADER_BYTES;
    this.#at += 2;
    this.#fixed({ type: TYPE.A, rclass: CLASS_IN, ttl: ttlS, length: 4 });
    let octet = 0;
    for (let index = 0; index < address.length; index++) {
      const code = address.charCodeAt(index);
      if (code !== 46) octet = octet * 10 + code - 48;
      else {
        this.#bytes[this.#at++] = octet;
        octet = 0;
      }
    }
    this.#bytes[this.#at++] = octet;
  }

  /** RFC 6891 section 6.1.3: upper bits of the code; DO is given back (RFC 3225 section 3). */
  opt(edns: Edns, rcode: number): void {
    this.#grow(11);
    this.#put([0]);
    const extended = (rcode >> 4) << 24;
    const ttl = (extended | (edns.dnssecOk ? 0x8000 : 0)) >>> 0;
    this.#fixed({ type: TYPE.OPT, rclass: UDP_BYTES_MAX, ttl, length: 0 });
  }

  finish(
    header: { readonly id: number; readonly flags: number; readonly counts: readonly number[] },
  ): Uint8Array<ArrayBuffer> {
    const bytes = this.#bytes;
    const put = (at: number, value: number) => {
      bytes[at] = value >> 8;
      bytes[at + 1] = value & 255;
    };
    put(0, header.id);
    put(2, header.flags);
    put(4, 1);
    header.counts.forEach((count, index) => put(6 + index * 2, count));
    return this.#bytes.subarray(0, this.#at);
  }

  #fixed(
    o: {
      readonly type: number;
      readonly rclass: number;
      readonly ttl: number;
      readonly length: number;
    },
  ): void {
    const bytes = this.#bytes;
    const at = this.#at;
    bytes[at] = o.type >> 8;
    bytes[at + 1] = o.type & 255;
    bytes[at + 2] = o.rclass >> 8;
    bytes[at + 3] = o.rclass & 255;
    bytes[at + 4] = o.ttl >>> 24;
    bytes[at + 5] = (o.ttl >> 16) & 255;
    bytes[at + 6] = (o.ttl >> 8) & 255;
    bytes[at + 7] = o.ttl & 255;
    bytes[at + 8] = o.length >> 8;
    bytes[at + 9] = o.length & 255;
    this.#at += 10;
  }

  #put(bytes: ArrayLike<number>): void {
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  #grow(size: number): void {
    if (this.#at + size <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#at + size));
    larger.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = larger;
  }

  /** Octets of a name, ending in a pointer where the question has the rest of it (section 4.1.4). */
  #name(name: string): number[] {
    const octets: number[] = [];
    let rest = name;
    while (rest !== "") {
      const offset = (this.#names ??= nameOffsets(this.#query)).get(rest);
      if (offset !== undefined) return [...octets, 0xc0 | (offset >> 8), offset & 0xff];
      const dot = rest.indexOf(".");
      const label = dot < 0 ? rest : rest.slice(0, dot);
      octets.push(...encodeLabel(label));
      rest = dot < 0 ? "" : rest.slice(dot + 1);
    }
    return [...octets, 0];
  }
}

/** Offsets in the packet of the question's name and each of its parents. */
function nameOffsets(query: DnsQuery): ReadonlyMap<string, number> {
  const offsets = new Map<string, number>();
  let at = 0;
  let rest = query.name;
  while (rest !== "") {
    offsets.set(rest, HEADER_BYTES + at);
    at += (query.question[at] ?? 0) + 1;
    const dot = rest.indexOf(".");
    rest = dot < 0 ? "" : rest.slice(dot + 1);
  }
  return offsets;
}

/** Length octet and octets of a label in text form; cut at 63. */
function encodeLabel(label: string): number[] {
  const octets: number[] = [];
  for (let index = 0; index < label.length && octets.length < 63; index++) {
    const escaped = label[index] === "\\" ? /^\d{3}/.exec(label.slice(index + 1)) : null;
    octets.push(escaped ? Number(escaped[0]) & 0xff : label.charCodeAt(index) & 0xff);
    if (escaped) index += 3;
  }
  return [octets.length, ...octets];
}

/** Octets of a name in text form, without compression. */
export function encodeName(name: string): number[] {
  return [...name.split(".").filter((label) => label !== "").flatMap(encodeLabel), 0];
}

function encodeData(data: RecordData, name: (name: string) => number[]): number[] {
  switch (data.type) {
    case "A":
      return data.address.split(".").map(Number);
    case "PTR":
      return name(data.target);
    case "TXT":
      return data.texts.flatMap(encodeText);
    case "SRV":
      // RFC 2782: the target is not compressed.
      return [
        ...uint16(data.priority),
        ...uint16(data.weight),
        ...uint16(data.port),
        ...encodeName(data.target),
      ];
    case "HINFO":
      return [...encodeText(data.cpu), ...encodeText(data.os)];
    case "SOA":
      return [
        ...name(data.primary),
        ...name(data.mailbox),
        ...[data.serial, data.refreshS, data.retryS, data.expireS, data.minimumS].flatMap(uint32),
      ];
  }
}

function encodeText(text: string): number[] {
  const octets = new TextEncoder().encode(text).subarray(0, 255);
  return [octets.length, ...octets];
}

function uint16(value: number): number[] {
  return [(value >> 8) & 0xff, value & 0xff];
}

function uint32(value: number): number[] {
  return [(value >>> 24) & 0xff, (value >>> 16) & 0xff, ...uint16(value)];
}

/** What to ask with {@link encodeQuery}. */
export interface Question {
  readonly name: string;
  readonly type: number;
  /** Whether to announce EDNS(0). Default: true. */
  readonly edns?: boolean;
}

/** A query's bytes, recursion desired. */
export function encodeQuery(id: number, question: Question): Uint8Array<ArrayBuffer> {
  const fields = [...uint16(TYPE.OPT), ...uint16(UDP_BYTES_MAX), ...uint32(0), ...uint16(0)];
  const opt = question.edns === false ? [] : [0, ...fields];
  return new Uint8Array([
    ...uint16(id),
    ...uint16(FLAG_RD),
    ...[1, 0, 0, opt.length === 0 ? 0 : 1].flatMap(uint16),
    ...encodeName(question.name),
    ...uint16(question.type),
    ...uint16(CLASS_IN),
    ...opt,
  ]);
}
