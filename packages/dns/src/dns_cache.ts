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

/** A container under a name, and why it is or is not in the answer. */
export interface Explained {
  readonly row: ContainerRow;
  readonly isAnswered: boolean;
  readonly why: string;
}

const NO_ROWS: ReadonlySet<string> = new Set();

/**
 * A container that is missing when all rows are read anew is answered this much longer: the servers'
 * table may be read a moment later. Milliseconds.
 */
export const HELD_MIN_MS = 3_000;
/** A server's containers arrive within this time of its own row in a database that fills, ms. */
export const REFILL_MS = 15_000;
/** Nothing is answered longer than this without a row, milliseconds. */
export const HELD_MAX_MS = 600_000;

/** Rows of the cluster, indexed by name and by address. */
export class DnsCache {
  readonly #containers = new Map<string, ContainerRow>();
  readonly #idsByLabel = new Map<string, string | Set<string>>();
  readonly #idsByProject = new Map<string, string | Set<string>>();
  readonly #idsByIp = new Map<string, string | Set<string>>();
  readonly #tombstoned = new Set<string>();
  /** Since when each server's row has been there, ms. */
  readonly #knownSince = new Map<string, number>();
  /** Containers without a row that are still answered, and since when, ms. */
  readonly #held = new Map<string, number>();
  #silent: ReadonlySet<string> = NO_ROWS;
  #filled = { servers: false, containers: false };
  readonly #memo = new Map<string, readonly ContainerRow[]>();
  /**
   * Called at once when answers may have changed: those of these labels, projects and addresses, or
   * all without any. What was made of older answers is void.
   */
  onChange: (keys?: readonly string[]) => void = () => undefined;

  /**
   * All container rows. Those missing here are held until {@link sweep} is sure that they are gone:
   * a Corrosion that lost its database shows few rows at first.
   */
  replaceContainers(rows: Iterable<ContainerRow>, nowMs: number): void {
    const missing = new Map(this.#containers);
    for (const row of rows) {
      missing.delete(row.id);
      this.putContainer(row);
    }
    for (const id of missing.keys()) if (!this.#held.has(id)) this.#held.set(id, nowMs);
    this.#filled.containers = true;
    this.onChange();
  }

  /** A container is new or has changed. */
  putContainer(row: ContainerRow): void {
    this.removeContainer(row.id);
    this.#add(row);
  }

  /**
   * Lets held containers go: those whose server's row has been there long enough for its containers'
   * rows to have come as well, and those that were held too long.
   *
   * @returns how many are still held.
   */
  sweep(nowMs: number): number {
    for (const [id, sinceMs] of this.#held) {
      const heldMs = nowMs - sinceMs;
      const knownMs = nowMs -
        (this.#knownSince.get(this.#containers.get(id)?.serverId ?? "") ?? nowMs);
      const isGone = heldMs >= HELD_MIN_MS && knownMs >= REFILL_MS;
      if (isGone || heldMs >= HELD_MAX_MS) this.removeContainer(id);
    }
    return this.#held.size;
  }

  /** A container is gone. */
  removeContainer(id: string): void {
    this.#held.delete(id);
    const row = this.#containers.get(id);
    if (!row) return;
    this.#containers.delete(id);
    const labels = labelsOf(row);
    for (const label of labels) {
      this.#memo.delete(label);
      dropFrom(this.#idsByLabel, label, id);
    }
    const project = row.project.toLowerCase();
    dropFrom(this.#idsByProject, project, id);
    dropFrom(this.#idsByIp, row.ip, id);
    this.onChange([...labels, project, row.ip]);
  }

  /** All server rows, tombstones included. */
  replaceServers(rows: Iterable<ServerRow>, nowMs: number): void {
    const missing = new Set(this.#knownSince.keys());
    this.#tombstoned.clear();
    for (const row of rows) {
      missing.delete(row.id);
      if (!this.#knownSince.has(row.id)) this.#knownSince.set(row.id, nowMs);
      if (row.removedAtMs !== null) this.#tombstoned.add(row.id);
    }
    for (const id of missing) this.#knownSince.delete(id);
    this.#filled.servers = true;
    this.#forget();
  }

  /** A server is new or has changed. Heartbeats change nothing here. */
  putServer(row: ServerRow, nowMs: number): void {
    if (!this.#knownSince.has(row.id)) this.#knownSince.set(row.id, nowMs);
    const gone = row.removedAtMs !== null;
    if (gone === this.#tombstoned.has(row.id)) return;
    if (gone) this.#tombstoned.add(row.id);
    else this.#tombstoned.delete(row.id);
    this.#forget();
  }

  /** A server's row was deleted: nothing is known against its containers any more. */
  removeServer(id: string): void {
    this.#knownSince.delete(id);
    if (this.#tombstoned.delete(id)) this.#forget();
  }

  /** Servers that do not answer this server's probes. */
  setSilent(silent: ReadonlySet<string>): void {
    if (silent.size === this.#silent.size && [...silent].every((id) => this.#silent.has(id))) {
      return;
    }
    this.#silent = silent;
    this.#forget();
  }

  /** Whether both tables (or a snapshot of them) have been read. */
  get isFilled(): boolean {
    return this.#filled.servers && this.#filled.containers;
  }

  /** Containers that are answered, held ones too, for the snapshot. */
  get containers(): ReadonlyMap<string, ContainerRow> {
    return this.#containers;
  }

  /**
   * What a label (a name without the domain) means: `{project}-{service}`, with `-{instance}` behind
   * it, or the same inside the project's own domain, `{service}.{project}`. With `nearest` only that
   * server's containers count, unless none of them can serve.
   */
  lookup(label: string, options: { readonly nearest?: string } = {}): NameLookup {
    if (!this.isFilled) return { kind: "unfilled" };
    const ids = idsIn(this.#idsByLabel, label);
    if (!ids) return { kind: "unknown" };
    let containers = this.#memo.get(label);
    if (!containers) {
      containers = this.#fitToServe(ids);
      this.#memo.set(label, containers);
    }
    if (options.nearest === undefined) return { kind: "known", containers };
    const near = containers.filter((row) => row.serverId === options.nearest);
    return { kind: "known", containers: near.length > 0 ? near : containers };
  }

  /** Every container under a label, with the reason why it is or is not answered. */
  explain(label: string): Explained[] {
    const ids = idsIn(this.#idsByLabel, label) ?? NO_ROWS;
    const rows = [...ids].sort().flatMap((id) => this.#containers.get(id) ?? []);
    const answered = new Set(this.#fitToServe(ids));
    const fit = rows.filter((row) => row.health === "healthy" || row.health === "degraded");
    return rows.map((row) => ({
      row,
      isAnswered: answered.has(row),
      why: this.#why(row, { answered, fit, isHeld: this.#held.has(row.id) }),
    }));
  }

  #why(
    row: ContainerRow,
    o: {
      readonly answered: ReadonlySet<ContainerRow>;
      readonly fit: readonly ContainerRow[];
      readonly isHeld: boolean;
    },
  ): string {
    const isSilent = this.#silent.has(row.serverId);
    if (o.answered.has(row)) {
      if (o.isHeld) return "its row is gone from Corrosion; answered until that is certain";
      if (isSilent) return "its server is silent, but no other can serve";
      return row.health === "healthy" ? "healthy" : "degraded, but no healthy one is left";
    }
    if (this.#tombstoned.has(row.serverId)) return "its server was removed";
    if (!o.fit.includes(row)) return `it is ${row.health}`;
    if (isSilent) return "its server is silent";
    if (row.health === "degraded") return "degraded, and there are healthy ones";
    return "a newer container stands for the same instance";
  }

  /** Labels of all services, sorted, without those of instances. */
  serviceLabels(): string[] {
    const labels = [...this.#containers.values()].map((row) => serviceLabel(row).toLowerCase());
    return [...new Set(labels)].sort();
  }

  /** Whether any container belongs to this project. */
  hasProject(project: string): boolean {
    return this.#idsByProject.has(project);
  }

  /** The newest container that answers at this address, whatever its health. */
  lookupAddress(ip: string): ContainerRow | undefined {
    const rows = this.#rows(idsIn(this.#idsByIp, ip) ?? NO_ROWS);
    return rows.sort((a, b) => b.startedAtMs - a.startedAtMs || (a.id < b.id ? -1 : 1))[0];
  }

  #add(row: ContainerRow): void {
    this.#containers.set(row.id, row);
    const labels = labelsOf(row);
    for (const label of labels) {
      this.#memo.delete(label);
      addTo(this.#idsByLabel, label, row.id);
    }
    const project = row.project.toLowerCase();
    addTo(this.#idsByProject, project, row.id);
    addTo(this.#idsByIp, row.ip, row.id);
    this.onChange([...labels, project, row.ip]);
  }

  #forget(): void {
    this.#memo.clear();
    this.onChange();
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

/** Labels under which a container is found: those of its service and of its instance, twice. */
function labelsOf(row: ContainerRow): string[] {
  const inside = `${row.service}.${row.project}`.toLowerCase();
  const labels = [serviceLabel(row).toLowerCase(), inside];
  if (row.instance === "") return labels;
  const instance = `${row.service}-${row.instance}.${row.project}`.toLowerCase();
  return [...labels, `${labels[0]}-${row.instance.toLowerCase()}`, instance];
}

/** Ids by key; a single one stands for itself, since most keys have no other. */
type IdIndex = Map<string, string | Set<string>>;

function idsIn(index: IdIndex, key: string): ReadonlySet<string> | undefined {
  const ids = index.get(key);
  return typeof ids === "string" ? new Set([ids]) : ids;
}

function addTo(index: IdIndex, key: string, id: string): void {
  const ids = index.get(key);
  if (ids === undefined || ids === id) index.set(key, id);
  else if (typeof ids === "string") index.set(key, new Set([ids, id]));
  else ids.add(id);
}

function dropFrom(index: IdIndex, key: string, id: string): void {
  const ids = index.get(key);
  if (ids === id) index.delete(key);
  else if (ids instanceof Set && ids.delete(id) && ids.size === 0) index.delete(key);
}
