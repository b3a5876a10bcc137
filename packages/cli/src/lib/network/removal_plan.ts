/** What it means for the services when a server leaves the cluster. Pure. */
import { type ServerStatus, serviceLabel } from "@jiji/core";
import type { ObservedContainer } from "../engine/inspect.ts";

type ContainerStatus = NonNullable<ServerStatus["containers"]>[number];

/** A service that has containers on the server. */
export interface LeavingService {
  /** `{project}-{service}`. */
  readonly service: string;
  /** Its containers there. */
  readonly containers: readonly string[];
  /** Other servers where a container of it is healthy. */
  readonly elsewhere: readonly string[];
}

/** What is known of the cluster. */
export interface RemovalFacts {
  readonly server: string;
  /** Rows of all containers, as the servers that stay know them. */
  readonly rows: readonly ContainerStatus[];
  /** The server's own word; undefined when it can't be reached. */
  readonly own: readonly ObservedContainer[] | undefined;
  /** Members that stay and answer. */
  readonly staying: ReadonlySet<string>;
}

/** Services that run there, and where else they do, sorted. */
export function planRemoval(facts: RemovalFacts): LeavingService[] {
  const services = new Map<string, string[]>();
  const add = (key: { project: string; service: string }, name: string) => {
    const label = serviceLabel(key);
    services.set(label, [...new Set([...services.get(label) ?? [], name])].sort());
  };
  if (facts.own) {
    for (const { labels, name, running } of facts.own) if (labels && running) add(labels, name);
  } else {
    for (const row of facts.rows) if (row.serverId === facts.server) add(row, row.name);
  }
  return [...services].sort(([a], [b]) => a < b ? -1 : 1).map(([service, containers]) => {
    const elsewhere = facts.rows.filter((row) =>
      serviceLabel(row) === service && row.serverId !== facts.server &&
      row.health === "healthy" && facts.staying.has(row.serverId)
    ).map((row) => row.serverId);
    return { service, containers, elsewhere: [...new Set(elsewhere)].sort() };
  });
}

/** A line for each service. */
export function renderRemoval(services: readonly LeavingService[]): string[] {
  return services.map(({ service, containers, elsewhere }) => {
    const where = elsewhere.length === 0
      ? "runs nowhere else: it will be gone"
      : `also runs on ${elsewhere.join(", ")}`;
    return `  remove ${containers.join(", ")}; ${service} ${where}`;
  });
}
