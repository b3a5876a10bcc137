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

/** Places of rows in every replica of a cluster: two replicas are compared place by place. */
export class RowPlaces {
  readonly #places = new Map<string, number>();

  /** The place of a row, the same for all. */
  of(table: Change["table"], id: string): number {
    const key = `${table} ${id}`;
    const known = this.#places.get(key);
    if (known !== undefined) return known;
    this.#places.set(key, this.#places.size);
    return this.#places.size - 1;
  }
}

/** A change is told for this many rounds of gossip after it came; syncs find what was missed. */
const FRESH_ROUNDS = 4;

/** Rows, and what came lately. */
export class Replica {
  readonly servers = new Map<string, VersionedServer>();
  readonly containers = new Map<string, Versioned<ContainerRow>>();
  readonly metadata = new Map<string, Versioned<string>>();
  /** Rows that did not parse: nobody is told of them. */
  refused = 0;
  /** Whether everything is gone and nobody has told it all that he has since. */
  isBlank = true;
  readonly #places: RowPlaces;
  /** What is held, at its place; unchanged rows are the same object in every replica. */
  #held: (Change | undefined)[] = [];
  /** What came in each of the last rounds, this one first. */
  #fresh: Change[][] = [[]];

  constructor(places: RowPlaces) {
    this.#places = places;
  }

  /** All rows gone, as after a deleted database. */
  clear(): void {
    this.servers.clear();
    this.containers.clear();
    this.metadata.clear();
    this.isBlank = true;
    this.#held = [];
    this.#fresh = [[]];
  }

  /** A round of gossip ends. */
  nextRound(): void {
    if (this.#fresh[0]!.length === 0 && this.#fresh.length === FRESH_ROUNDS) {
      const last = this.#fresh.pop()!;
      last.length = 0;
      this.#fresh.unshift(last);
    } else this.#fresh = [[], ...this.#fresh.slice(0, FRESH_ROUNDS - 1)];
  }

  /** Calls back with each change of the last rounds. */
  eachFresh(each: (change: Change) => void): void {
    for (const round of this.#fresh) for (const change of round) each(change);
  }

  /** Calls back with each row that another replica has otherwise, or not at all. */
  eachDifference(other: Replica, each: (change: Change) => void): void {
    const ours = this.#held;
    const theirs = other.#held;
    for (let at = 0; at < ours.length; at++) {
      const change = ours[at];
      if (change !== undefined && change !== theirs[at]) each(change);
    }
  }

  #append(change: Change): void {
    this.#held[this.#places.of(change.table, change.id)] = change;
    this.#fresh[0]!.push(change);
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
