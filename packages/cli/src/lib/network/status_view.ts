import { isLinked, type ServerStatus } from "@jiji/core";
import type { ServerConfiguration } from "../configuration/servers.ts";

/** A link from one server to another, as the first sees it. */
export interface LinkView {
  /** Whether the other answers probes. */
  readonly linked: boolean;
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
  readonly state: "member" | "not a member" | "unreachable";
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

/** Joins what each server told; servers that told nothing appear as the others see them. */
export function linkMatrix(
  servers: ReadonlyMap<string, ServerConfiguration>,
  statuses: ReadonlyMap<string, ServerStatus>,
  nowMs: number,
): StatusView {
  const rows = new Map(
    [...statuses.values()].flatMap((status) => status.servers ?? []).map((row) => [row.id, row]),
  );
  const containers = new Map(
    [...statuses.values()].flatMap((status) => status.containers ?? []).map((row) => [row.id, row]),
  );
  const names = [...new Set([...servers.keys(), ...rows.keys()])]
    .filter((name) => (rows.get(name)?.removedAtMs ?? null) === null);
  return {
    servers: names.map((name) => {
      const status = statuses.get(name);
      const row = rows.get(name);
      const known = statuses.size > 0 && [...statuses.values()].some((one) => one.containers);
      return {
        name,
        address: servers.get(name)?.host ?? row?.hostname ?? "",
        state: !status ? "unreachable" : status.server_id === null ? "not a member" : "member",
        block: row?.subnet ?? null,
        links: status ? linksOf(status, names) : {},
        containers: known
          ? [...containers.values()].filter((container) => container.serverId === name).length
          : null,
        nat: row?.doc.nat ?? null,
        version: row?.doc.version ?? status?.version ?? null,
        seen: row ? seenText(nowMs - row.lastSeenMs) : "never",
      };
    }),
  };
}

function linksOf(status: ServerStatus, names: readonly string[]): Record<string, LinkView> {
  const links: Record<string, LinkView> = {};
  for (const name of names) {
    if (name === status.server_id) continue;
    // A server that is about to change its key has two entries; one of them holds its block.
    const peer = status.peers?.filter((candidate) => candidate.server_id === name)
      .sort((a, b) => b.allowed_ips.length - a.allowed_ips.length)[0];
    const rttMs = status.liveness?.rtt_ms[name] ?? null;
    links[name] = {
      linked: isLinked(status.liveness ?? undefined, { id: name, peers: names.length - 1 }),
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
