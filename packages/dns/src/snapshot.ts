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

const SnapshotSchema = v.object({
  format: v.literal(1),
  servers: v.array(v.array(v.unknown())),
  containers: v.array(v.array(v.unknown())),
});

/** Rows as they were last seen. */
export interface Snapshot {
  readonly servers: readonly ServerRow[];
  readonly containers: readonly ContainerRow[];
}

/** Name of the file in the state folder. */
export const SNAPSHOT_FILE = "snapshot.json";

/** The snapshot in `text`, or undefined when it is none. Malformed rows are left out. */
export function parseSnapshot(text: string): Snapshot | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  const parsed = v.safeParse(SnapshotSchema, json);
  if (!parsed.success) return undefined;
  return {
    servers: parsed.output.servers.flatMap((cells) => {
      const row = parseServerRow(cells);
      return "refused" in row ? [] : [row];
    }),
    containers: parsed.output.containers.flatMap((cells) => {
      const row = parseContainerRow(cells);
      return "refused" in row ? [] : [row];
    }),
  };
}

/** File text of a snapshot: rows as cells, in the order of the tables' columns. */
export function renderSnapshot(snapshot: Snapshot): string {
  return JSON.stringify({
    format: 1,
    servers: snapshot.servers.map((row) => [...serverCells(row), row.removedAtMs]),
    containers: snapshot.containers.map(containerCells),
  });
}

/** Reads a snapshot; undefined when there is none or it is damaged. */
export async function readSnapshot(folder: string): Promise<Snapshot | undefined> {
  try {
    return parseSnapshot(await Deno.readTextFile(`${folder}/${SNAPSHOT_FILE}`));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Replaces the snapshot in one step, so that a reader or a power loss sees the old or the new. */
export async function writeSnapshot(folder: string, snapshot: Snapshot): Promise<void> {
  const path = `${folder}/${SNAPSHOT_FILE}`;
  await Deno.writeTextFile(`${path}.new`, renderSnapshot(snapshot), { mode: 0o640 });
  await Deno.rename(`${path}.new`, path);
}
