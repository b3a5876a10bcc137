/** A server's copy of the rows, as Corrosion would keep it: per cell the last version wins. */
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

/** A server's row; whether it was removed has a version of its own, as every column has. */
export interface VersionedServer {
  readonly version: number;
  readonly removedVersion: number;
  readonly row: ServerRow;
}

/** A row on its way to other replicas. */
export type Change =
  | { readonly table: "servers"; readonly id: string; readonly value: VersionedServer }
  | { readonly table: "containers"; readonly id: string; readonly value: Versioned<ContainerRow> }
  | { readonly table: "metadata"; readonly id: string; readonly value: Versioned<string> };

/** A log is cut down to what still holds when it has this many changes to each row. */
const LOG_PER_ROW = 3;
/** Shorter logs are left alone. */
const LOG_MIN = 64;

/** Rows and the order in which they came here. */
export class Replica {
  readonly servers = new Map<string, VersionedServer>();
  readonly containers = new Map<string, Versioned<ContainerRow>>();
  readonly metadata = new Map<string, Versioned<string>>();
  /** Rows that did not parse: nobody is told of them. */
  refused = 0;
  /** In the order in which they came; those that newer ones replaced may be missing. */
  #log: Change[] = [];
  #numbers: number[] = [];
  #next = 0;

  /** Number that the next change gets. */
  get head(): number {
    return this.#next;
  }

  /** All rows gone, as after a deleted database. */
  clear(): void {
    this.servers.clear();
    this.containers.clear();
    this.metadata.clear();
    this.#log = [];
    this.#numbers = [];
  }

  /** Calls back with each change from this number on. */
  since(number: number, each: (change: Change) => void): void {
    let [low, high] = [0, this.#numbers.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#numbers[middle]! < number) low = middle + 1;
      else high = middle;
    }
    const log = this.#log;
    for (let at = low; at < log.length; at++) each(log[at]!);
  }

  #append(change: Change): void {
    this.#log.push(change);
    this.#numbers.push(this.#next++);
    const rows = this.servers.size + this.containers.size;
    if (this.#log.length < Math.max(LOG_MIN, LOG_PER_ROW * rows)) return;
    const held = this.#log.map((one) => this[one.table].get(one.id) === one.value);
    this.#log = this.#log.filter((_, at) => held[at]);
    this.#numbers = this.#numbers.filter((_, at) => held[at]);
  }

  /** Takes a change in; false when it is no news. */
  merge(change: Change): boolean {
    switch (change.table) {
      case "servers":
        return this.#mergeServer(change);
      case "containers":
        return this.#mergeRow(this.containers, change.value, change);
      case "metadata":
        return this.#mergeRow(this.metadata, change.value, change);
    }
  }

  #mergeRow<Row>(
    rows: Map<string, Versioned<Row>>,
    value: Versioned<Row>,
    change: Change,
  ): boolean {
    const ours = rows.get(change.id);
    if (ours && ours.version >= value.version) return false;
    rows.set(change.id, value);
    this.#append(change);
    return true;
  }

  #mergeServer(change: Change & { readonly table: "servers" }): boolean {
    const ours = this.servers.get(change.id);
    const theirs = change.value;
    if (!ours) {
      this.servers.set(change.id, theirs);
      this.#append(change);
      return true;
    }
    const facts = theirs.version > ours.version ? theirs : ours;
    const removal = theirs.removedVersion > ours.removedVersion ? theirs : ours;
    if (facts === ours && removal === ours) return false;
    const value = facts === removal ? facts : {
      version: facts.version,
      removedVersion: removal.removedVersion,
      row: { ...facts.row, removedAtMs: removal.row.removedAtMs },
    };
    this.servers.set(change.id, value);
    this.#append(value === theirs ? change : { table: "servers", id: change.id, value });
    return true;
  }

  /** What a daemon writes; gives the changes. A statement that no daemon writes is an error. */
  execute([sql, params]: Statement): Change[] {
    const change = sql.includes(" servers ") || sql.startsWith("UPDATE servers")
      ? this.#serverChange(sql, params)
      : this.#otherChange(sql, params);
    return change && this.merge(change) ? [change] : [];
  }

  #serverChange(sql: string, params: Statement[1]): Change | undefined {
    if (sql.startsWith("INSERT INTO servers")) {
      const id = String(params[0]);
      const known = this.servers.get(id);
      const row = parseServerRow([...params, known?.row.removedAtMs ?? null]);
      if ("refused" in row) throw new Error(row.refused);
      const removedVersion = known?.removedVersion ?? 0;
      const value = { version: (known?.version ?? 0) + 1, removedVersion, row };
      return { table: "servers", id, value };
    }
    const id = String(params.at(-1));
    const known = this.servers.get(id);
    if (!known) return undefined;
    const { version, removedVersion, row } = known;
    const changed = (value: VersionedServer): Change => ({ table: "servers", id, value });
    if (sql.startsWith("UPDATE servers SET last_seen")) {
      const touched = { ...row, lastSeenMs: Number(params[0]) };
      return changed({ version: version + 1, removedVersion, row: touched });
    }
    const isRevival = sql.startsWith("UPDATE servers SET removed_at = NULL");
    if (!isRevival && !sql.startsWith("UPDATE servers SET removed_at = ?")) {
      throw new Error(`the simulated database knows no ${sql}`);
    }
    if (isRevival === (row.removedAtMs === null)) return undefined;
    const removedAtMs = isRevival ? null : Number(params[0]);
    const removed = { ...row, removedAtMs };
    return changed({ version, removedVersion: removedVersion + 1, row: removed });
  }

  #otherChange(sql: string, params: Statement[1]): Change | undefined {
    const id = String(params[0]);
    if (sql.startsWith("INSERT INTO cluster_metadata")) {
      const version = (this.metadata.get(id)?.version ?? 0) + 1;
      return { table: "metadata", id, value: { version, row: String(params[1]) } };
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

  /** What a stranger writes: cells that may be anything. Those that do not parse reach nobody. */
  forge(table: "servers" | "containers", cells: readonly unknown[]): Change | undefined {
    const id = String(cells[0]);
    const version = (this[table].get(id)?.version ?? 0) + 1;
    if (table === "containers") {
      const row = parseContainerRow(cells);
      if (!("refused" in row)) return { table, id, value: { version, row } };
    } else {
      const row = parseServerRow(cells);
      const removedVersion = this.servers.get(id)?.removedVersion ?? 0;
      if (!("refused" in row)) return { table, id, value: { version, removedVersion, row } };
    }
    this.refused += 1;
    return undefined;
  }
}
