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

/** A log is cut down to what still holds when it has this many changes to each row. */
const LOG_PER_ROW = 3;
/** Shorter logs are left alone. */
const LOG_MIN = 64;

/** Rows and the order in which they came here. */
export class Replica {
  readonly servers = new Map<string, Versioned<ServerRow>>();
  readonly containers = new Map<string, Versioned<ContainerRow>>();
  /** Changes in the order in which they came, with their numbers; those that newer ones replaced may be missing. */
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

  /** Takes a change in; false when it is no news. A server's tombstone stays. */
  merge(change: Change): boolean {
    if (change.table === "containers") {
      const ours = this.containers.get(change.id);
      if (ours && ours.version >= change.value.version) return false;
      this.containers.set(change.id, change.value);
      this.#append(change);
      return true;
    }
    const ours = this.servers.get(change.id);
    const theirs = change.value;
    const removedAtMs = ours?.row?.removedAtMs ?? theirs.row?.removedAtMs ?? null;
    const newer = !ours || theirs.version > ours.version ? theirs : ours;
    if (!newer.row || newer === ours && ours.row?.removedAtMs === removedAtMs) return false;
    const isWhole = newer === theirs && newer.row.removedAtMs === removedAtMs;
    const value = isWhole ? theirs : { version: newer.version, row: { ...newer.row, removedAtMs } };
    this.servers.set(change.id, value);
    this.#append(isWhole ? change : { table: "servers", id: change.id, value });
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
