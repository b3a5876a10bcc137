/** A server's copy of the rows, as Corrosion would keep it: last version wins, deletes stay. */
import {
  type ContainerRow,
  parseContainerRow,
  parseServerRow,
  type ServerRow,
  type Statement,
} from "@jiji/core/corrosion";

/** A row with its version; `row` is null once it was deleted. */
export interface Versioned<Row> {
  readonly version: number;
  readonly row: Row | null;
}

/** A row on its way to other replicas. */
export type Change =
  | { readonly table: "servers"; readonly id: string; readonly value: Versioned<ServerRow> }
  | { readonly table: "containers"; readonly id: string; readonly value: Versioned<ContainerRow> };

/** Rows and the order in which they came here. */
export class Replica {
  readonly servers = new Map<string, Versioned<ServerRow>>();
  readonly containers = new Map<string, Versioned<ContainerRow>>();
  /** Every change here; others take what they have not seen yet. */
  readonly log: Change[] = [];

  /** All rows gone, as after a deleted database. */
  clear(): void {
    this.servers.clear();
    this.containers.clear();
    this.log.length = 0;
  }

  /** Takes a change in; false when it is no news. A server's tombstone stays. */
  merge(change: Change): boolean {
    if (change.table === "containers") {
      const ours = this.containers.get(change.id);
      if (ours && ours.version >= change.value.version) return false;
      this.containers.set(change.id, change.value);
      this.log.push(change);
      return true;
    }
    const ours = this.servers.get(change.id);
    const theirs = change.value;
    const removedAtMs = ours?.row?.removedAtMs ?? theirs.row?.removedAtMs ?? null;
    const newer = !ours || theirs.version > ours.version ? theirs : ours;
    if (newer === ours && ours.row?.removedAtMs === removedAtMs) return false;
    if (!newer.row) return false;
    const value = { version: newer.version, row: { ...newer.row, removedAtMs } };
    this.servers.set(change.id, value);
    this.log.push({ table: "servers", id: change.id, value });
    return true;
  }

  /** What a daemon writes; gives the changes. A statement that no daemon writes is an error. */
  execute([sql, params]: Statement): Change[] {
    const change = this.#changeOf(sql, params);
    return change && this.merge(change) ? [change] : [];
  }

  #changeOf(sql: string, params: Statement[1]): Change | undefined {
    const id = String(params[0]);
    if (sql.startsWith("INSERT INTO servers")) {
      const known = this.servers.get(id);
      const row = parseServerRow([...params, known?.row?.removedAtMs ?? null]);
      if ("refused" in row) throw new Error(row.refused);
      return { table: "servers", id, value: { version: (known?.version ?? 0) + 1, row } };
    }
    if (sql.startsWith("UPDATE servers SET last_seen")) {
      const own = String(params[1]);
      const known = this.servers.get(own);
      if (!known?.row) return undefined;
      const row = { ...known.row, lastSeenMs: Number(params[0]) };
      return { table: "servers", id: own, value: { version: known.version + 1, row } };
    }
    const known = this.containers.get(id);
    const version = (known?.version ?? 0) + 1;
    if (sql.startsWith("INSERT INTO containers")) {
      const row = parseContainerRow(params);
      if ("refused" in row) throw new Error(row.refused);
      return { table: "containers", id, value: { version, row } };
    }
    if (sql.startsWith("DELETE FROM containers")) {
      if (!known?.row || known.row.serverId !== params[1]) return undefined;
      return { table: "containers", id, value: { version, row: null } };
    }
    if (sql.startsWith("INSERT INTO services")) return undefined;
    throw new Error(`the simulated database knows no ${sql}`);
  }
}
