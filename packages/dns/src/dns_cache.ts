/**
 * What jiji-dns knows of the cluster, and what a name means at this moment. Pure state: rows and
 * the set of silent servers go in, containers to answer with come out.
 */
import { newestPerInstance, serviceLabel } from "@jiji/core/cluster";
import type { ContainerRow, ServerRow } from "@jiji/core/corrosion";

/** What a name under the service domain leads to. */
export type NameLookup =
  /** Nothing was heard of the cluster yet: to say "no such name" would be a lie. */
  | { readonly kind: "unfilled" }
  | { readonly kind: "unknown" }
  /** Containers to answer with, best first by id; empty when none is fit to serve. */
  | { readonly kind: "known"; readonly containers: readonly ContainerRow[] };

const NO_ROWS: ReadonlySet<string> = new Set();

/** Rows of the cluster, indexed by name and by address. */
export class DnsCache {
  readonly #containers = new Map<string, ContainerRow>();
  readonly #idsByLabel = new Map<string, Set<string>>();
  readonly #idsByIp = new Map<string, Set<string>>();
  readonly #tombstoned = new Set<string>();
  #silent: ReadonlySet<string> = NO_ROWS;
  #filled = { servers: false, containers: false };
  readonly #memo = new Map<string, readonly ContainerRow[]>();

  /** All container rows; those missing here are gone. */
  replaceContainers(rows: Iterable<ContainerRow>): void {
    this.#containers.clear();
    this.#idsByLabel.clear();
    this.#idsByIp.clear();
    this.#memo.clear();
    for (const row of rows) this.#add(row);
    this.#filled.containers = true;
  }

  /** A container is new or has changed. */
  putContainer(row: ContainerRow): void {
    this.removeContainer(row.id);
    this.#add(row);
  }

  /** A container is gone. */
  removeContainer(id: string): void {
    const row = this.#containers.get(id);
    if (!row) return;
    this.#containers.delete(id);
    for (const label of labelsOf(row)) {
      this.#memo.delete(label);
      dropFrom(this.#idsByLabel, label, id);
    }
    dropFrom(this.#idsByIp, row.ip, id);
  }

  /** All server rows, tombstones included. */
  replaceServers(rows: Iterable<ServerRow>): void {
    this.#tombstoned.clear();
    for (const row of rows) if (row.removedAtMs !== null) this.#tombstoned.add(row.id);
    this.#memo.clear();
    this.#filled.servers = true;
  }

  /** A server is new or has changed. Heartbeats change nothing here. */
  putServer(row: ServerRow): void {
    const gone = row.removedAtMs !== null;
    if (gone === this.#tombstoned.has(row.id)) return;
    if (gone) this.#tombstoned.add(row.id);
    else this.#tombstoned.delete(row.id);
    this.#memo.clear();
  }

  /** A server's row was deleted: nothing is known against its containers any more. */
  removeServer(id: string): void {
    if (this.#tombstoned.delete(id)) this.#memo.clear();
  }

  /** Servers that do not answer this server's probes. */
  setSilent(silent: ReadonlySet<string>): void {
    if (silent.size === this.#silent.size && [...silent].every((id) => this.#silent.has(id))) {
      return;
    }
    this.#silent = silent;
    this.#memo.clear();
  }

  /** Whether both tables (or a snapshot of them) have been read. */
  get isFilled(): boolean {
    return this.#filled.servers && this.#filled.containers;
  }

  /** Container rows, for the snapshot. */
  get containers(): ReadonlyMap<string, ContainerRow> {
    return this.#containers;
  }

  /** What a label (a name without the domain) means. */
  lookup(label: string): NameLookup {
    if (!this.isFilled) return { kind: "unfilled" };
    const ids = this.#idsByLabel.get(label);
    if (!ids) return { kind: "unknown" };
    let containers = this.#memo.get(label);
    if (!containers) {
      containers = this.#fitToServe(ids);
      this.#memo.set(label, containers);
    }
    return { kind: "known", containers };
  }

  /** The newest container that answers at this address, whatever its health. */
  lookupAddress(ip: string): ContainerRow | undefined {
    const rows = this.#rows(this.#idsByIp.get(ip) ?? NO_ROWS);
    return rows.sort((a, b) => b.startedAtMs - a.startedAtMs || (a.id < b.id ? -1 : 1))[0];
  }

  #add(row: ContainerRow): void {
    this.#containers.set(row.id, row);
    for (const label of labelsOf(row)) {
      this.#memo.delete(label);
      addTo(this.#idsByLabel, label, row.id);
    }
    addTo(this.#idsByIp, row.ip, row.id);
  }

  #rows(ids: ReadonlySet<string>): ContainerRow[] {
    return [...ids].sort().flatMap((id) => {
      const row = this.#containers.get(id);
      return row && !this.#tombstoned.has(row.serverId) ? [row] : [];
    });
  }

  #fitToServe(ids: ReadonlySet<string>): readonly ContainerRow[] {
    const rows = this.#rows(ids);
    const answering = rows.filter((row) => !this.#silent.has(row.serverId));
    for (const candidates of [answering, rows]) {
      for (const health of ["healthy", "degraded"] as const) {
        const fit = newestPerInstance(candidates.filter((row) => row.health === health));
        if (fit.length > 0) return fit;
      }
    }
    return [];
  }
}

/** Labels under which a container is found: those of its service and of its instance. */
function labelsOf(row: ContainerRow): string[] {
  const label = serviceLabel(row).toLowerCase();
  return row.instance ? [label, `${label}-${row.instance}`] : [label];
}

function addTo(index: Map<string, Set<string>>, key: string, id: string): void {
  const ids = index.get(key);
  if (ids) ids.add(id);
  else index.set(key, new Set([id]));
}

function dropFrom(index: Map<string, Set<string>>, key: string, id: string): void {
  const ids = index.get(key);
  ids?.delete(id);
  if (ids?.size === 0) index.delete(key);
}
