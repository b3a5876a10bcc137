/** The last known rows on disk, so that jiji-dns answers before Corrosion is up. */
import * as v from "valibot";
import {
  containerCells,
  type ContainerRow,
  parseContainerRow,
  parseServerRow,
  serverCells,
  type ServerRow,
} from "@jiji/core/corrosion";
import { type DnsCache, REFILL_MS } from "./dns_cache.ts";

const HeaderSchema = v.object({
  format: v.literal(2),
  servers: v.pipe(v.number(), v.integer(), v.minValue(0)),
  containers: v.pipe(v.number(), v.integer(), v.minValue(0)),
});

/** Rows as they were last seen. */
export interface Snapshot {
  readonly servers: readonly ServerRow[];
  readonly containers: readonly ContainerRow[];
}

/** A snapshot as it is read: containers one by one, since there may be very many. */
export interface ReadSnapshot {
  readonly servers: readonly ServerRow[];
  readonly containers: Iterable<ContainerRow>;
}

/** Name of the file in the state folder. */
export const SNAPSHOT_FILE = "snapshot.jsonl";

/** Last line: a file without it was cut. */
const END = '"end"\n';
const DECODER = new TextDecoder();
/** Written in pieces of about this many characters, so that queries are not kept waiting. */
const PIECE_CHARACTERS = 64 << 10;

/** The snapshot in `bytes`, or undefined when it is none. Malformed rows are left out. */
export function parseSnapshot(bytes: Uint8Array): ReadSnapshot | undefined {
  const end = bytes.length - END.length;
  if (end < 0 || decode(bytes.subarray(end)) !== END) return undefined;
  const lines = readLines(bytes.subarray(0, end));
  const header = v.safeParse(HeaderSchema, lines.next().value);
  if (!header.success) return undefined;
  const servers: ServerRow[] = [];
  for (let left = header.output.servers; left > 0; left--) {
    const row = parseServerRow(cellsOf(lines.next().value));
    if (!("refused" in row)) servers.push(row);
  }
  return { servers, containers: readContainers(lines) };
}

function* readContainers(lines: Iterable<unknown>): Generator<ContainerRow> {
  for (const line of lines) {
    const row = parseContainerRow(cellsOf(line));
    if (!("refused" in row)) yield row;
  }
}

/** Values of JSON lines; undefined for a malformed one. */
function* readLines(bytes: Uint8Array): Generator<unknown> {
  for (let at = 0; at < bytes.length;) {
    const found = bytes.indexOf(10, at);
    const end = found < 0 ? bytes.length : found;
    const line = decode(bytes.subarray(at, end));
    at = end + 1;
    try {
      yield JSON.parse(line);
    } catch {
      yield undefined;
    }
  }
}

function cellsOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function decode(bytes: Uint8Array): string {
  return DECODER.decode(bytes);
}

/** File text of a snapshot, in pieces: a header, then a line of cells for each row. */
export function* renderSnapshot(snapshot: Snapshot): Generator<string> {
  const { servers, containers } = snapshot;
  const header = { format: 2, servers: servers.length, containers: containers.length };
  let piece = `${JSON.stringify(header)}\n`;
  for (const row of servers) {
    piece += `${JSON.stringify([...serverCells(row), row.removedAtMs])}\n`;
  }
  for (const row of containers) {
    if (piece.length >= PIECE_CHARACTERS) {
      yield piece;
      piece = "";
    }
    piece += `${JSON.stringify(containerCells(row))}\n`;
  }
  yield piece + END;
}

/** Reads a snapshot; undefined when there is none or it is damaged. */
export async function readSnapshot(folder: string): Promise<ReadSnapshot | undefined> {
  try {
    return parseSnapshot(await Deno.readFile(`${folder}/${SNAPSHOT_FILE}`));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Fills an empty cache, as if all had been read just now. */
export function restoreSnapshot(cache: DnsCache, snapshot: ReadSnapshot, nowMs: number): void {
  // Servers of the snapshot count as known for long: what was deleted meanwhile goes at once.
  cache.replaceServers(snapshot.servers, nowMs - REFILL_MS);
  cache.replaceContainers(snapshot.containers, nowMs);
}

/** Replaces the snapshot in one step, so that a reader or a power loss sees the old or the new. */
export async function writeSnapshot(folder: string, snapshot: Snapshot): Promise<void> {
  const path = `${folder}/${SNAPSHOT_FILE}`;
  const options = { write: true, create: true, truncate: true, mode: 0o640 };
  {
    using file = await Deno.open(`${path}.new`, options);
    const encoder = new TextEncoder();
    for (const piece of renderSnapshot(snapshot)) {
      const bytes = encoder.encode(piece);
      for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
    }
    await file.syncData();
  }
  await Deno.rename(`${path}.new`, path);
}
