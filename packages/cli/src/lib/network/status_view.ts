import { isDaemonless, isLinked, type ServerStatus } from "@jiji/core";
import type { ServerConfiguration } from "../configuration/servers.ts";

/** A link from one server to another, as the first sees it. */
export interface LinkView {
  /** Whether the other answers, be it its kernel alone. */
  readonly linked: boolean;
  /** Whether only its kernel does: its jiji-daemon does not run, or hangs. */
  readonly daemonless: boolean;
  /** Last round trip, milliseconds. */
  readonly rttMs: number | null;
  /** WireGuard endpoint in use. */
  readonly endpoint: string | null;
  readonly handshakeAgeSeconds: number | null;
  /** Share of the last probes that got no answer, 0 to 1; null when not told. */
  readonly loss: number | null;
  /** Largest packet on the way, octets; null when not told. */
  readonly mtu: number | null;
  /** Whether handshakes take a preshared key; null when not told. */
  readonly psk: boolean | null;
}

/** A server in `jiji network status`. */
export interface ServerView {
  readonly name: string;
  /** As the configuration has it. */
  readonly address: string;
  readonly state: "member" | "not a member" | "unreachable" | "not asked";
  readonly block: string | null;
  /** Links by server name, without itself. */
  readonly links: Readonly<Record<string, LinkView>>;
  /** Containers it runs, by the first view that knows; null when nobody does. */
  readonly containers: number | null;
  /** Whether others see it at an address that is not its own; null when it can't tell. */
  readonly nat: boolean | null;
  /** Version of its jiji-daemon; null when nobody knows. */
  readonly version: string | null;
  /** Age of its last heartbeat in words. */
  readonly seen: string;
}

/** The cluster as its reachable servers see it together. */
export interface StatusView {
  readonly servers: readonly ServerView[];
}

/**
 * Joins what each server told; servers that told nothing appear as the others see them.
 *
 * @param o.asked servers that were chosen to be asked; default: all.
 */
export function linkMatrix(
  servers: ReadonlyMap<string, ServerConfiguration>,
  statuses: ReadonlyMap<string, ServerStatus>,
  o: { readonly nowMs: number; readonly asked?: ReadonlySet<string> },
): StatusView {
  const rows = freshestRows(statuses);
  const names = [...new Set([...servers.keys(), ...rows.keys()])]
    .filter((name) => (rows.get(name)?.row.removedAtMs ?? null) === null);
  return {
    servers: names.map((name) => {
      const status = statuses.get(name);
      const row = rows.get(name)?.row;
      return {
        name,
        address: servers.get(name)?.host ?? row?.hostname ?? "",
        state: status
          ? status.server_id === null ? "not a member" : "member"
          : o.asked?.has(name) ?? true
          ? "unreachable"
          : "not asked",
        block: row?.subnet ?? null,
        links: status ? linksOf(status, { self: name, names }) : {},
        containers: containersOf(name, [
          ...status ? [status] : [],
          ...rows.has(name) ? [rows.get(name)!.by] : [],
          ...statuses.values(),
        ]),
        nat: row?.doc.nat ?? null,
        version: row?.doc.version ?? status?.version ?? null,
        seen: row ? seenText(o.nowMs - row.lastSeenMs) : "never",
      };
    }),
  };
}

/** A server's row, and in whose state it was found. */
interface FoundRow {
  readonly row: NonNullable<ServerStatus["servers"]>[number];
  readonly by: ServerStatus;
}

/**
 * The newest row of each server. Whoever is cut off has old ones of the others, and its own is new to
 * nobody else: what others have of a server goes first.
 */
function freshestRows(statuses: ReadonlyMap<string, ServerStatus>): Map<string, FoundRow> {
  const found = new Map<string, FoundRow & { readonly isOwn: boolean }>();
  for (const [name, by] of [...statuses].sort(([a], [b]) => a < b ? -1 : 1)) {
    for (const row of by.servers ?? []) {
      const other = found.get(row.id);
      const isOwn = row.id === name;
      const isBetter = !other || Number(other.isOwn) - Number(isOwn) > 0 ||
        (other.isOwn === isOwn && row.lastSeenMs > other.row.lastSeenMs);
      if (isBetter) found.set(row.id, { row, by, isOwn });
    }
  }
  return found;
}

/** By the first of these that knows; null when none does. */
function containersOf(name: string, views: readonly ServerStatus[]): number | null {
  const containers = views.find((view) => view.containers)?.containers;
  if (!containers) return null;
  return containers.filter((container) => container.serverId === name).length;
}

function linksOf(
  status: ServerStatus,
  o: { readonly self: string; readonly names: readonly string[] },
): Record<string, LinkView> {
  const links: Record<string, LinkView> = {};
  for (const name of o.names) {
    if (name === o.self) continue;
    // A server that is about to change its key has two entries; one of them holds its block.
    const peer = status.peers?.filter((candidate) => candidate.server_id === name)
      .sort((a, b) => b.allowed_ips.length - a.allowed_ips.length)[0];
    const rttMs = status.liveness?.rtt_ms[name] ?? null;
    links[name] = {
      linked: isLinked(status.liveness ?? undefined, { id: name, peers: o.names.length - 1 }),
      daemonless: isDaemonless(status.liveness ?? undefined, name),
      rttMs,
      endpoint: peer?.endpoint ?? null,
      handshakeAgeSeconds: peer?.handshake_age_s ?? null,
      loss: peer?.loss ?? null,
      mtu: peer?.mtu ?? null,
      psk: peer?.psk ?? null,
    };
  }
  return links;
}

/** A heartbeat comes every 10 s; twice that is still now. */
function seenText(ageMs: number): string {
  if (ageMs < 20_000) return "now";
  if (ageMs < 120_000) return `${Math.round(ageMs / 1000)} s ago`;
  if (ageMs < 7_200_000) return `${Math.round(ageMs / 60_000)} min ago`;
  return `${Math.round(ageMs / 3_600_000)} h ago`;
}
