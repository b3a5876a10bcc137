/** A longer line is passed over: no row of ours comes near it. */
export const LINE_BYTES_MAX: number = 4 * 1024 * 1024;

/** Stands for a line that was too long to keep. */
export const OVERLONG: unique symbol = Symbol("a line too long to keep");

/**
 * Values of a stream of newline-delimited JSON; {@link OVERLONG} for a line that is too long, so
 * that a huge row, whoever wrote it, costs neither memory nor the rows after it.
 *
 * @throws {Error} on a line that is not JSON, or cut off at the end.
 */
export async function* ndjson(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncIterable<unknown> {
  let rest = "";
  let overlong = false;
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (overlong || line.length > LINE_BYTES_MAX) yield OVERLONG;
      else if (line.trim()) yield JSON.parse(line);
      overlong = false;
    }
    if (rest.length <= LINE_BYTES_MAX) continue;
    overlong = true;
    rest = "";
  }
  if (overlong) yield OVERLONG;
  if (rest.trim()) yield JSON.parse(rest);
}
