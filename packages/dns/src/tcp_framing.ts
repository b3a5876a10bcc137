/** DNS over TCP: each message after its length in two octets. Source: RFC 1035 section 4.2.2. */

/** The part of a connection that framing needs. */
export interface ByteStream {
  read(buffer: Uint8Array<ArrayBuffer>): Promise<number | null>;
  write(bytes: Uint8Array<ArrayBuffer>): Promise<number>;
}

/** The next message, or undefined when the stream ended. */
export async function readTcpMessage(
  stream: ByteStream,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const length = await readExactly(stream, 2);
  return length && await readExactly(stream, ((length[0] ?? 0) << 8) | (length[1] ?? 0));
}

/** Writes a message in one piece with its length, as RFC 7766 section 8 asks. */
export async function writeTcpMessage(stream: ByteStream, message: Uint8Array): Promise<void> {
  const framed = new Uint8Array(message.length + 2);
  framed[0] = message.length >> 8;
  framed[1] = message.length & 255;
  framed.set(message, 2);
  for (let at = 0; at < framed.length;) at += await stream.write(framed.subarray(at));
}

async function readExactly(
  stream: ByteStream,
  bytes: number,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const buffer = new Uint8Array(bytes);
  for (let at = 0; at < bytes;) {
    const count = await stream.read(buffer.subarray(at));
    if (count === null) return undefined;
    at += count;
  }
  return buffer;
}
