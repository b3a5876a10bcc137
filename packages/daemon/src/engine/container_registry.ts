/** Which rows this server's containers must have. Pure. */
import { isLeavingName } from "@jiji/core/cluster";
import {
  type ContainerRow,
  deleteContainer,
  type Statement,
  upsertContainer,
} from "@jiji/core/corrosion";
import type { HealthState } from "./container_health.ts";
import type { ObservedContainer } from "./containers.ts";

/** Statements in one transaction; more go in the next. */
export const STATEMENTS_MAX = 100;

/**
 * The row of a container, or undefined when it must have none: not jiji's, not running, about to
 * go, or without an address in the network.
 */
export function rowOf(
  container: ObservedContainer,
  o: { readonly serverId: string; readonly health: HealthState | undefined },
): ContainerRow | undefined {
  const { labels, ip } = container;
  if (!labels || !container.running || ip === undefined) return undefined;
  if (isLeavingName(container.name)) return undefined;
  return {
    id: container.id,
    project: labels.project,
    service: labels.service,
    serverId: o.serverId,
    instance: labels.instance,
    // While it waits for its successor it keeps its name here: nothing but the name has changed.
    name: container.name.replace(/_old_\d+$/, ""),
    version: labels.version,
    ip,
    ports: labels.ports.filter((port) => /^\d{1,5}\/(tcp|udp)$/.test(port)),
    startedAtMs: container.createdAtMs,
    health: o.health?.status ?? "starting",
    unhealthySinceMs: o.health?.unhealthySinceMs ?? null,
  };
}

/** Changes to this server's rows. */
export interface RegistryPlan {
  readonly upserts: readonly ContainerRow[];
  /** Ids of rows whose container is gone. */
  readonly deletes: readonly string[];
}

/**
 * Compares wanted rows with those that Corrosion has. Only rows that name this server are ever
 * removed; `present` are all rows that are known, whoever wrote them.
 */
export function planRegistry(
  wanted: readonly ContainerRow[],
  present: Iterable<ContainerRow>,
  serverId: string,
): RegistryPlan {
  const own = new Map<string, ContainerRow>();
  for (const row of present) if (row.serverId === serverId) own.set(row.id, row);
  const wantedIds = new Set(wanted.map((row) => row.id));
  return {
    upserts: wanted.filter((row) => !isSame(own.get(row.id), row)),
    deletes: [...own.keys()].filter((id) => !wantedIds.has(id)).sort(),
  };
}

function isSame(a: ContainerRow | undefined, b: ContainerRow): boolean {
  return a !== undefined && JSON.stringify(cells(a)) === JSON.stringify(cells(b));
}

function cells(row: ContainerRow): readonly unknown[] {
  return upsertContainer(row)[1];
}

/** The plan as transactions of at most {@link STATEMENTS_MAX} statements. */
export function registryTransactions(plan: RegistryPlan, serverId: string): Statement[][] {
  const statements = [
    ...plan.upserts.map(upsertContainer),
    ...plan.deletes.map((id) => deleteContainer(id, serverId)),
  ];
  return Array.from(
    { length: Math.ceil(statements.length / STATEMENTS_MAX) },
    (_, index) => statements.slice(index * STATEMENTS_MAX, (index + 1) * STATEMENTS_MAX),
  );
}
