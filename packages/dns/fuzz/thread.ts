/** A thread's reader without its thread, beside the server whose answers it must give. */
import { noSuchName, type Zone } from "../src/answer.ts";
import type { DnsCache } from "../src/dns_cache.ts";
import { parseMessage } from "../src/dns_message.ts";
import { TableReader } from "../src/udp/table_reader.ts";
import { ZoneTable } from "../src/udp/zone_table.ts";

/** Octets of the reader's memory for a packet and for an answer. */
const PLACE_BYTES = 2_048;

/** Answers as a UDP thread does. */
export class ReaderProbe {
  /** The table it answers from. */
  readonly table: ZoneTable;
  readonly #rx = new Uint8Array(PLACE_BYTES);
  readonly #tx = new Uint8Array(PLACE_BYTES);
  readonly #reader: TableReader;

  constructor(o: { readonly cache: DnsCache; readonly zone: Zone }) {
    this.table = new ZoneTable(o);
    const init = this.table.readerInit(noSuchName(o.zone));
    this.#reader = new TableReader(init, { rx: this.#rx, tx: this.#tx });
  }

  /** The thread's answer; undefined when it leaves the packet to the main thread. */
  answer(packet: Uint8Array): Uint8Array | undefined {
    if (packet.length < 12 || packet.length > PLACE_BYTES) return undefined;
    // What an earlier packet left behind it stays, as in the thread.
    this.#rx.set(packet);
    // The thread copies the id with the rest of the packet.
    if (((packet[2] ?? 0) & 0x80) !== 0) return undefined;
    this.#reader.bytes = packet.length;
    const octets = this.#reader.answer(0, 0);
    return octets === 0 ? undefined : this.#tx.slice(0, octets);
  }
}

/** How a thread's answer differs from the main thread's; undefined when only the turn differs. */
export function differenceOf(
  thread: Uint8Array,
  main: Uint8Array | undefined,
): string | undefined {
  if (!main) return "the main thread gives none";
  if (thread.length !== main.length) return `${thread.length} octets, not ${main.length}`;
  const [ours, theirs] = [partsOf(thread), partsOf(main)];
  if (!ours || !theirs) return "unreadable";
  const rest = ours.rest === theirs.rest;
  if (!rest) return `apart from addresses: ${ours.rest}, not ${theirs.rest}`;
  // A cut answer holds whichever fit.
  if (ours.isCut || ours.addresses === theirs.addresses) return undefined;
  return `addresses: ${ours.addresses}, not ${theirs.addresses}`;
}

function partsOf(answer: Uint8Array) {
  const message = parseMessage(answer);
  if (!message) return undefined;
  const found = message.records.filter((one) => one.section === "answer");
  const end = found.at(-1);
  const answersEnd = end ? end.dataOffset + end.dataBytes : message.questionEnd;
  const records: string[] = [];
  let at = message.questionEnd;
  for (const { dataOffset, dataBytes } of found) {
    records.push(answer.slice(at, dataOffset + dataBytes).toHex());
    at = dataOffset + dataBytes;
  }
  return {
    isCut: message.truncated,
    addresses: records.sort().join(" "),
    rest: `${answer.slice(0, message.questionEnd).toHex()} ${answer.slice(answersEnd).toHex()}`,
  };
}
