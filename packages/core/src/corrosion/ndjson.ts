/** A line longer than this ends the stream: no row of ours comes near it. */
export const LINE_BYTES_MAX: number = 4 * 1024 * 1024;

/**
 * Values of a stream of newline-delimited JSON.
 *
 * @throws {Error} on a line that is not JSON, too long, or cut off at the end.
 */
export async function* ndjson(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncIterable<unknown> {
  let rest = "";
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > LINE_BYTES_MAX) throw new Error("line too long");
    for (const line of lines) {
      if (line.trim()) yield JSON.parse(line);
    }
  }
  if (rest.trim()) yield JSON.parse(rest);
}
