// deno-lint-ignore-file no-console -- a command line tool prints.
/**
 * Asks a resolver for a name a hundred times a second, in the network namespace it is started in,
 * and prints a JSON line whenever the addresses differ from those before.
 *
 * Usage: deno run --allow-net bench/failover/watch.ts ADDRESS NAME
 */
import { createSocket } from "node:dgram";

/** What the answer was, and when it came. */
export interface Seen {
  /** Unix ms, with fractions. */
  readonly atMs: number;
  /** Sorted. */
  readonly addresses: readonly string[];
}

const [resolver = "", name = ""] = Deno.args;
const PAUSE_MS = 10;
const HEADER = 12;

/** A question for A records. Source: RFC 1035, section 4.1. */
function encodeQuestion(id: number): Uint8Array {
  const labels = name.split(".").flatMap((label) => [
    label.length,
    ...new TextEncoder().encode(label),
  ]);
  return new Uint8Array([
    id >> 8,
    id & 255,
    1,
    0,
    0,
    1,
    0,
    0,
    0,
    0,
    0,
    0,
    ...labels,
    0,
    0,
    1,
    0,
    1,
  ]);
}

/** Addresses in an answer whose records point back to the question's name. */
function parseAddresses(bytes: Uint8Array): string[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = view.getUint16(6);
  let at = encodeQuestion(0).length;
  const found: string[] = [];
  for (let record = 0; record < count && at + HEADER <= bytes.length; record++) {
    const length = view.getUint16(at + 10);
    const isAddress = view.getUint16(at + 2) === 1 && length === 4;
    if (isAddress) found.push([...bytes.subarray(at + HEADER, at + HEADER + 4)].join("."));
    at += HEADER + length;
  }
  return found.sort();
}

let last = "?";
let id = 0;
const socket = createSocket("udp4");
socket.on("message", (bytes) => {
  if ((bytes[0]! << 8 | bytes[1]!) !== id) return;
  const addresses = parseAddresses(bytes);
  if (addresses.join() === last) return;
  last = addresses.join();
  const seen: Seen = { atMs: performance.timeOrigin + performance.now(), addresses };
  console.log(JSON.stringify(seen));
});
socket.on("error", () => undefined);
setInterval(() => {
  id = (id + 1) & 0xffff;
  socket.send(encodeQuestion(id), 53, resolver, () => undefined);
}, PAUSE_MS);
