// deno-lint-ignore-file no-console -- a command line tool prints.
/**
 * Asks a resolver for a name a hundred times a second, in the network namespace it is started in,
 * and prints a JSON line whenever the addresses differ from those before.
 *
 * Usage: deno run --unstable-net --allow-net bench/failover/watch.ts ADDRESS NAME
 */

/** What the answer was, and when it came. */
export interface Seen {
  /** Unix ms, with fractions. */
  readonly atMs: number;
  /** Sorted. */
  readonly addresses: readonly string[];
}

const [resolver = "", name = ""] = Deno.args;
const PAUSE_MS = 10;
/** A socket that hears nothing for so long is replaced. */
const DEAF_MS = 1_000;
const HEADER = 12;

/** A question for A records. Source: RFC 1035, section 4.1. */
function encodeQuestion(id: number): Uint8Array<ArrayBuffer> {
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

/** Prints what an answer says when that is something new. */
class Teller {
  #last = "?";
  #newest = 0;

  /** Takes an answer; one that was overtaken by a later one says nothing. */
  take(bytes: Uint8Array, asked: number): void {
    const id = bytes[0]! << 8 | bytes[1]!;
    // How many questions ago it was asked; numbers begin anew after 65,536.
    const age = (asked - id) & 0xffff;
    if (age > ((asked - this.#newest) & 0xffff)) return;
    this.#newest = id;
    const addresses = parseAddresses(bytes);
    if (addresses.join() === this.#last) return;
    this.#last = addresses.join();
    const seen: Seen = { atMs: performance.timeOrigin + performance.now(), addresses };
    console.log(JSON.stringify(seen));
  }
}

/**
 * Asks through one socket until that fails or hears nothing: its network may not be there yet, and
 * the kernel keeps what it decided about the first packet for as long as others follow.
 */
async function askOn(teller: Teller): Promise<void> {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
  const to = { transport: "udp", hostname: resolver, port: 53 } as const;
  let asked = 0;
  let heardAtMs = performance.now();
  const hearing = (async () => {
    while (true) {
      const [bytes] = await socket.receive();
      heardAtMs = performance.now();
      teller.take(bytes, asked);
    }
  })();
  const asking = (async () => {
    while (performance.now() - heardAtMs < DEAF_MS) {
      asked = (asked + 1) & 0xffff;
      await socket.send(encodeQuestion(asked), to);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  })();
  hearing.catch(() => undefined);
  await Promise.race([hearing, asking]).finally(() => socket.close());
}

while (true) {
  // A new socket numbers its questions anew.
  await askOn(new Teller()).catch(() => undefined);
  await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
}
