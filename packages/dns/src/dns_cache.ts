/**
 * What jiji-dns knows of the cluster, and what a name means at this moment. Pure state: rows and
 * the set of silent servers go in, containers to answer with come out.
 */
import { dnsLabels, newestPerInstance, serviceLabel } from "@jiji/core/cluster";
import type { ContainerNews, ContainerRow, ServerRow } from "@jiji/core/corrosion";
import { type Cidr, cidrHas, parseCidr, parseIpv4 } from "@jiji/core/net";
import { isSameRow, NewsHold } from "./news_hold.ts";
import { RowIndex } from "./row_index.ts";
import { TextPool } from "./text_pool.ts";

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

const NO_SERVERS: ReadonlySet<string> = new Set();

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
  readonly #byKey = new RowIndex<ContainerRow>();
  readonly #byIp = new RowIndex<ContainerRow>();
  /** How many containers each project has. */
  readonly #projects = new Map<string, number>();
  readonly #texts = new TextPool();
  readonly #tombstoned = new Set<string>();
  readonly #cluster: Cidr | undefined;
  /** Since when each server's row has been there, ms. */
  readonly #knownSince = new Map<string, number>();
  /** When the servers' table was last heard, ms. */
  #serversHeardAtMs = -Infinity;
  /** Containers without a row that are still answered, and since when, ms. */
  readonly #held = new Map<string, number>();
  readonly #news = new NewsHold();
  #silent: ReadonlySet<string> = NO_SERVERS;
  #filled = { servers: false, containers: false };
  /**
   * Called at once with the keys (see {@link keyOf}, and names of projects) whose answers may have
   * changed, and with none when the first fill is complete.
   */
  onChange: (keys: ReadonlySet<string>) => void = () => undefined;

  /** @param clusterCidr no name leads out of it, whoever wrote the row; undefined: not looked at. */
  constructor(clusterCidr?: string) {
    this.#cluster = clusterCidr === undefined ? undefined : parseCidr(clusterCidr);
  }

  /**
   * All container rows. Those missing here are held until {@link sweep} is sure that they are gone:
   * a Corrosion that lost its database shows few rows at first.
   */
  replaceContainers(rows: Iterable<ContainerRow>, nowMs: number): void {
    this.#news.renew(nowMs);
    const missing = new Set(this.#containers.keys());
    const changed = new Set<string>();
    for (const row of rows) {
      missing.delete(row.id);
      if (this.#news.admits(row)) this.#put(row, changed);
    }
    for (const id of missing) {
      if (!this.#held.has(id) && !this.#news.has(id)) this.#held.set(id, nowMs);
    }
    this.#filled.containers = true;
    this.onChange(changed);
  }

  /** A container is new or has changed. */
  putContainer(row: ContainerRow): void {
    if (!this.#news.admits(row)) return;
    const changed = new Set<string>();
    this.#put(row, changed);
    if (changed.size > 0) this.onChange(changed);
  }

  /** What a daemon told ahead of Corrosion; it holds against older rows for {@link NEWS_HOLD_MS}. */
  takeNews(news: Pick<ContainerNews, "rows" | "gone">, nowMs: number): void {
    const changed = new Set<string>();
    for (const row of news.rows) {
      this.#news.tell(row.id, { told: row, late: this.#containers.get(row.id), nowMs });
      this.#put(row, changed);
    }
    for (const id of news.gone) {
      const late = this.#containers.get(id);
      if (!late && !this.#news.has(id)) continue;
      this.#news.tell(id, { told: null, late, nowMs });
      this.#remove(id, changed);
    }
    if (changed.size > 0) this.onChange(changed);
  }

  /**
   * Lets held containers go: those whose server's row has been there long enough for its containers'
   * rows to have come as well, and those that were held too long. A servers' table that has not been
   * heard since may be that of a database that is lost.
   *
   * @param heardAtMs when Corrosion was heard last.
   * @returns how many are still held.
   */
  sweep(nowMs: number, heardAtMs: number = nowMs): number {
    this.#endNews(nowMs, heardAtMs);
    for (const [id, sinceMs] of this.#held) {
      const heldMs = nowMs - sinceMs;
      const knownMs = nowMs -
        (this.#knownSince.get(this.#containers.get(id)?.serverId ?? "") ?? nowMs);
      const isKnown = knownMs >= REFILL_MS && this.#serversHeardAtMs >= sinceMs;
      const isGone = heldMs >= HELD_MIN_MS && isKnown;
      if (isGone || heldMs >= HELD_MAX_MS) this.removeContainer(id);
    }
    return this.#held.size;
  }

  /** News that Corrosion has not confirmed in time give way to what it says. */
  #endNews(nowMs: number, heardAtMs: number): void {
    for (const [id, { told, late }] of this.#news.expire(nowMs, heardAtMs)) {
      if (late) this.putContainer(late);
      else if (told) this.#held.set(id, nowMs);
    }
  }

  /** A container is gone. */
  removeContainer(id: string): void {
    this.#news.forget(id);
    const changed = new Set<string>();
    this.#remove(id, changed);
    if (changed.size > 0) this.onChange(changed);
  }

  /** All server rows, tombstones included. */
  replaceServers(rows: Iterable<ServerRow>, nowMs: number): void {
    this.#serversHeardAtMs = nowMs;
    const missing = new Set(this.#knownSince.keys());
    const before = new Set(this.#tombstoned);
    this.#tombstoned.clear();
    for (const row of rows) {
      missing.delete(row.id);
      if (!this.#knownSince.has(row.id)) this.#knownSince.set(row.id, nowMs);
      if (row.removedAtMs !== null) this.#tombstoned.add(row.id);
    }
    for (const id of missing) this.#knownSince.delete(id);
    this.#filled.servers = true;
    this.onChange(this.#keysOfServers(before.symmetricDifference(this.#tombstoned)));
  }

  /** A server is new or has changed, or its heart has beaten. */
  putServer(row: ServerRow, nowMs: number): void {
    this.#serversHeardAtMs = nowMs;
    if (!this.#knownSince.has(row.id)) this.#knownSince.set(row.id, nowMs);
    const gone = row.removedAtMs !== null;
    if (gone === this.#tombstoned.has(row.id)) return;
    if (gone) this.#tombstoned.add(row.id);
    else this.#tombstoned.delete(row.id);
    this.onChange(this.#keysOfServers(new Set([row.id])));
  }

  /** A server's row was deleted: nothing is known against its containers any more. */
  removeServer(id: string): void {
    this.#knownSince.delete(id);
    if (this.#tombstoned.delete(id)) this.onChange(this.#keysOfServers(new Set([id])));
  }

  /** Servers that do not answer this server's probes. */
  setSilent(silent: ReadonlySet<string>): void {
    const changed = silent.symmetricDifference(this.#silent);
    if (changed.size === 0) return;
    this.#silent = silent;
    this.onChange(this.#keysOfServers(changed));
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
    const rows = this.#named(label);
    if (rows.length === 0) return { kind: "unknown" };
    const containers = this.#fitToServe(rows);
    if (options.nearest === undefined) return { kind: "known", containers };
    const near = containers.filter((row) => row.serverId === options.nearest);
    return { kind: "known", containers: near.length > 0 ? near : containers };
  }

  /** The project of all containers with this key; undefined when they are of several or none. */
  projectOf(key: string): string | undefined {
    const rows = this.#byKey.get(key);
    const project = rows[0]?.project;
    return rows.every((row) => row.project === project) ? project : undefined;
  }

  /** Every container under a label, with the reason why it is or is not answered. */
  explain(label: string): Explained[] {
    const rows = this.#named(label).toSorted(byId);
    const answered = new Set(this.#fitToServe(rows));
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
    if (!this.#isInside(row)) return "its address is not of the cluster's network";
    if (!o.fit.includes(row)) return `it is ${row.health}`;
    if (isSilent) return "its server is silent";
    if (row.health === "degraded") return "degraded, and there are healthy ones";
    return "a newer container stands for the same instance";
  }

  /** Labels of all services, sorted, without those of instances. */
  serviceLabels(): string[] {
    return [...new Set([...this.#containers.values()].map(serviceLabel))].sort();
  }

  /** Keys of all names that have containers, and of all projects. */
  keys(): ReadonlySet<string> {
    return new Set([...this.#byKey.keys(), ...this.#projects.keys()]);
  }

  /** Whether any container belongs to this project. */
  hasProject(project: string): boolean {
    return this.#projects.has(project);
  }

  /** The newest container that answers at this address, whatever its health. */
  lookupAddress(ip: string): ContainerRow | undefined {
    const rows = this.#ofMembers(this.#byIp.get(ip));
    return rows.sort((a, b) => b.startedAtMs - a.startedAtMs || (a.id < b.id ? -1 : 1))[0];
  }

  #put(row: ContainerRow, changed: Set<string>): void {
    const old = this.#containers.get(row.id);
    if (old && isSameRow(old, row)) {
      // What was held has its row again; its answers stay as they are.
      this.#held.delete(row.id);
      return;
    }
    this.#remove(row.id, changed);
    const kept = this.#texts.share(row);
    this.#containers.set(kept.id, kept);
    for (const key of keysOf(kept)) {
      this.#byKey.add(key, kept);
      changed.add(key);
    }
    this.#byIp.add(kept.ip, kept);
    this.#projects.set(kept.project, (this.#projects.get(kept.project) ?? 0) + 1);
    changed.add(kept.project);
  }

  #remove(id: string, changed: Set<string>): void {
    this.#held.delete(id);
    const row = this.#containers.get(id);
    if (!row) return;
    this.#containers.delete(id);
    for (const key of keysOf(row)) {
      this.#byKey.drop(key, row);
      changed.add(key);
    }
    this.#byIp.drop(row.ip, row);
    const left = (this.#projects.get(row.project) ?? 1) - 1;
    if (left > 0) this.#projects.set(row.project, left);
    else this.#projects.delete(row.project);
    changed.add(row.project);
  }

  #keysOfServers(servers: ReadonlySet<string>): ReadonlySet<string> {
    const keys = new Set<string>();
    if (servers.size === 0) return keys;
    for (const row of this.#containers.values()) {
      if (servers.has(row.serverId)) { for (const key of keysOf(row)) keys.add(key); }
    }
    return keys;
  }

  #named(label: string): readonly ContainerRow[] {
    const { key, project } = keyOf(label);
    const rows = this.#byKey.get(key);
    return project === undefined ? rows : rows.filter((row) => row.project === project);
  }

  #ofMembers(rows: readonly ContainerRow[]): ContainerRow[] {
    return rows.filter((row) => !this.#tombstoned.has(row.serverId) && this.#isInside(row))
      .sort(byId);
  }

  #isInside(row: ContainerRow): boolean {
    return this.#cluster === undefined || cidrHas(this.#cluster, parseIpv4(row.ip) ?? -1);
  }

  #fitToServe(named: readonly ContainerRow[]): readonly ContainerRow[] {
    const rows = this.#ofMembers(named);
    const answering = this.#silent.size === 0
      ? rows
      : rows.filter((row) => !this.#silent.has(row.serverId));
    for (const candidates of [answering, rows]) {
      for (const health of ["healthy", "degraded"] as const) {
        const fit = newestPerInstance(candidates.filter((row) => row.health === health));
        if (fit.length > 0) return fit;
      }
    }
    return [];
  }
}

/**
 * The key of a label: `{service}.{project}` is kept as `{project}-{service}`, since each container
 * has both names; only those of `project` are meant then.
 */
export function keyOf(label: string): { readonly key: string; readonly project?: string } {
  const dot = label.indexOf(".");
  if (dot < 0) return { key: label };
  const project = label.slice(dot + 1);
  // No key has a dot, so a second dot leads nowhere.
  return { key: `${project}-${label.slice(0, dot)}`, project };
}

/** Keys under which a container is found: that of its service, and of its instance. */
function keysOf(row: ContainerRow): readonly string[] {
  return dnsLabels(row, row.instance);
}

function byId(a: ContainerRow, b: ContainerRow): number {
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}
