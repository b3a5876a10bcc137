/** One container as every part of the system sees it. Pure. */
import { type DnsNames, type ServerStatus, serviceLabel } from "@jiji/core";
import type { ObservedHost } from "../../types/deployment.ts";
import type { ObservedContainer } from "../engine/inspect.ts";

type ContainerStatus = NonNullable<ServerStatus["containers"]>[number];

/** What was asked, by server name. Servers that did not answer are missing. */
export interface InspectSources {
  readonly statuses: ReadonlyMap<string, ServerStatus>;
  readonly names: ReadonlyMap<string, DnsNames>;
  readonly observed: ReadonlyMap<string, ObservedHost>;
}

/** A container that the word may mean. */
export interface Candidate {
  readonly id: string;
  readonly name: string;
  readonly server: string;
}

/** Containers that an id's beginning or a whole name means, of these servers, sorted. */
export function findCandidates(
  word: string,
  sources: InspectSources,
  servers: ReadonlySet<string>,
): Candidate[] {
  const found = new Map<string, Candidate>();
  const add = (one: Candidate) => {
    const isMeant = one.name === word || (/^[a-f0-9]{2,64}$/.test(word) && one.id.startsWith(word));
    if (isMeant && servers.has(one.server)) found.set(one.id, one);
  };
  for (const status of sources.statuses.values()) {
    for (const { id, name, serverId: server } of status.containers ?? []) add({ id, name, server });
  }
  for (const [server, { containers }] of sources.observed) {
    for (const { id, name, labels } of containers) if (labels) add({ id, name, server });
  }
  return [...found.values()].sort((a, b) =>
    a.server === b.server ? (a.id < b.id ? -1 : 1) : (a.server < b.server ? -1 : 1)
  );
}

/** What one server's jiji-dns does with the container. */
export interface DnsView {
  readonly name: string;
  readonly answered: boolean;
  readonly why: string;
}

/** A route that its labels ask for. */
export interface RouteView {
  readonly route: string;
  readonly target: string;
  /** Whether the proxy lists it; null when the proxy's state is not known. */
  readonly listed: boolean | null;
}

/** The container, part by part. */
export interface InspectView extends Candidate {
  readonly service: string | null;
  readonly version: string | null;
  /** As its server's engine has it; null when the server does not answer or has it no more. */
  readonly engine: {
    readonly status: string;
    readonly running: boolean;
    readonly exit_code: number;
    readonly address: string;
    readonly image: string;
    readonly created: string;
  } | null;
  /** Each server's row of it; null where it has none. */
  readonly rows: Readonly<Record<string, ContainerStatus | null>>;
  /** Each server's answers to its service's names; null where the server does not know it. */
  readonly dns: Readonly<Record<string, DnsView | null>>;
  readonly routes: readonly RouteView[];
  /** What does not fit together, one sentence each. */
  readonly problems: readonly string[];
}

/** Joins what was told about a container. */
export function inspectContainer(chosen: Candidate, sources: InspectSources): InspectView {
  const host = sources.observed.get(chosen.server);
  const engine = host?.containers.find(({ id }) => id === chosen.id);
  const rows: Record<string, ContainerStatus | null> = {};
  for (const [server, status] of sources.statuses) {
    if (status.containers === null) continue;
    rows[server] = status.containers.find(({ id }) => id === chosen.id) ?? null;
  }
  const row = Object.values(rows).find((one) => one !== null) ?? undefined;
  const address = engine?.address || row?.ip || "";
  const dns: Record<string, DnsView | null> = {};
  for (const [server, report] of sources.names) dns[server] = dnsView(report, address);
  const routes = routesOf(engine, host);
  return {
    ...chosen,
    service: row ? serviceLabel(row) : engine?.labels ? serviceLabel(engine.labels) : null,
    version: row?.version ?? engine?.labels?.version ?? null,
    engine: engine
      ? {
        status: engine.status,
        running: engine.running,
        exit_code: engine.exitCode,
        address: engine.address,
        image: engine.imageName,
        created: new Date(engine.createdAtMs).toISOString(),
      }
      : null,
    rows,
    dns,
    routes,
    problems: disagreements({ chosen, engine, rows, routes, asked: host !== undefined }),
  };
}

function dnsView(report: DnsNames, address: string): DnsView | null {
  for (const { name, containers } of report.names) {
    const found = containers.find((one) => one.address === address);
    if (found) return { name, answered: found.answered, why: found.why };
  }
  return null;
}

function routesOf(
  engine: ObservedContainer | undefined,
  host: ObservedHost | undefined,
): RouteView[] {
  return (engine?.labels?.proxy ?? []).map((route) => {
    const target = `${engine?.address || engine?.labels?.address}:${route.app_port}`;
    const targets = host?.proxyState?.get(route.name);
    const listed = host?.proxyState === undefined ? null : targets?.includes(target) ?? false;
    return { route: route.name, target, listed };
  });
}

function disagreements(facts: {
  readonly chosen: Candidate;
  readonly engine: ObservedContainer | undefined;
  readonly rows: Readonly<Record<string, ContainerStatus | null>>;
  readonly routes: readonly RouteView[];
  readonly asked: boolean;
}): string[] {
  const { chosen, engine, rows, routes, asked } = facts;
  const found: string[] = [];
  const having = Object.entries(rows).filter(([, row]) => row !== null);
  if (asked && !engine) found.push(`${chosen.server} has no such container any more`);
  if (asked && !engine?.running && having.length > 0) {
    found.push(`it does not run, yet ${having.map(([name]) => name).join(", ")} have a row of it`);
  }
  const lacking = Object.entries(rows).filter(([, row]) => row === null).map(([name]) => name);
  if (having.length > 0 && lacking.length > 0) {
    found.push(
      `no row of it on ${lacking.join(", ")}: gossip takes a moment, see network db stats`,
    );
  }
  const addresses = new Set(having.map(([, row]) => row?.ip));
  if (engine?.address) addresses.add(engine.address);
  if (addresses.size > 1) found.push(`its address differs: ${[...addresses].sort().join(", ")}`);
  for (const { route, listed } of routes) {
    if (listed === false && engine?.running) found.push(`the proxy does not list it for ${route}`);
  }
  return found;
}
