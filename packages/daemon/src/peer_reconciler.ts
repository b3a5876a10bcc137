/**
 * Which peers and routes this server must have, and the steps that lead there. Pure. A peer leaves
 * only on evidence: its server's tombstone, or a new key in its server's own row.
 */
import { MESH_MTU_MIN, type PeerSeed, type ServerConfig } from "@jiji/core/cluster";
import type { ServerRow } from "@jiji/core/corrosion";
import {
  normalizePrefix,
  parseCidr,
  parseEndpoint,
  parseIpv4,
  renderEndpoint,
  serverAddress,
} from "@jiji/core/net";
import { type Argv, assertNever } from "@jiji/core/runtime";
import { Claims } from "./claims.ts";
import type { Routes } from "./mesh/path_mtu.ts";
import type { WireguardState } from "./wg_show.ts";

/** Keeps NAT mappings open, seconds. Source: wg(8), PersistentKeepalive. */
export const KEEPALIVE_S = 25;

/** What is known of the mesh's members, from three places. */
export interface Membership {
  /** Rows of Corrosion, tombstones included; they win. */
  readonly rows: readonly ServerRow[];
  /** Peers told when this server joined. */
  readonly seeds: readonly PeerSeed[];
  /** Peers this daemon saw before, for a start without Corrosion. */
  readonly cache: readonly PeerSeed[];
}

/** A claim that was not granted, for the log. */
export interface Conflict {
  readonly serverId: string;
  readonly reason: string;
}

/** Who the peers are. */
export interface Topology {
  /** Sorted by name. */
  readonly peers: readonly PeerSeed[];
  /** Public keys that must go, with the reason. */
  readonly gone: readonly { readonly publicKey: string; readonly reason: string }[];
  /** Blocks and identities of servers that are gone, canonical prefixes. */
  readonly gonePrefixes: readonly string[];
  readonly conflicts: readonly Conflict[];
}

type Self = Pick<
  ServerConfig,
  "server_id" | "wireguard_public_key" | "block" | "management_ip" | "endpoints"
>;

/**
 * Merges rows, seeds and cache. Of two servers that claim one key or overlapping addresses the one
 * in `holders` (the keys WireGuard has now) stays, else the first by name: a late or forged row
 * takes nothing from a peer that works.
 */
export function planTopology(
  self: Self,
  known: Membership,
  holders: ReadonlySet<string>,
): Topology {
  const rows = new Map(known.rows.map((row) => [row.id, row]));
  const candidates = new Map<string, PeerSeed>();
  const remembered = [...known.cache, ...known.seeds];
  for (const seed of remembered) {
    if (!rows.has(seed.server_id)) candidates.set(seed.server_id, seed);
  }
  for (const row of known.rows) if (row.removedAtMs === null) candidates.set(row.id, seedOf(row));
  candidates.delete(self.server_id);
  const sorted = [...candidates.values()].sort((a, b) =>
    Number(holders.has(b.public_key)) - Number(holders.has(a.public_key)) ||
    (a.server_id < b.server_id ? -1 : 1)
  );
  const claims = new Claims();
  claims.grant({ ...self, public_key: self.wireguard_public_key });
  const granted: PeerSeed[] = [];
  const conflicts: Conflict[] = [];
  for (const peer of sorted) {
    const reason = claims.grant(peer);
    if (reason === undefined) granted.push(peer);
    else conflicts.push({ serverId: peer.server_id, reason });
  }
  const live = new Set(granted.map((peer) => peer.public_key));
  return {
    peers: granted.sort((a, b) => a.server_id < b.server_id ? -1 : 1),
    gone: goneKeys(rows, remembered).filter((one) => !live.has(one.publicKey)),
    gonePrefixes: gonePrefixes(known.rows, granted),
    conflicts,
  };
}

function seedOf(row: ServerRow): PeerSeed {
  return {
    server_id: row.id,
    public_key: row.wireguardPubkey,
    block: row.subnet,
    management_ip: row.managementIp,
    endpoints: [...row.endpoints],
  };
}

function goneKeys(
  rows: ReadonlyMap<string, ServerRow>,
  remembered: readonly PeerSeed[],
): { publicKey: string; reason: string }[] {
  const gone = new Map<string, string>();
  for (const row of rows.values()) {
    if (row.removedAtMs !== null) gone.set(row.wireguardPubkey, `${row.id} was removed`);
  }
  for (const seed of remembered) {
    const row = rows.get(seed.server_id);
    if (!row) continue;
    if (row.removedAtMs !== null) gone.set(seed.public_key, `${row.id} was removed`);
    else if (row.wireguardPubkey !== seed.public_key) {
      gone.set(seed.public_key, `${row.id} has a new key`);
    }
  }
  return [...gone].map(([publicKey, reason]) => ({ publicKey, reason }));
}

function gonePrefixes(rows: readonly ServerRow[], peers: readonly PeerSeed[]): string[] {
  const live = new Set(peers.flatMap(allowedIps));
  return rows.filter((row) => row.removedAtMs !== null)
    .flatMap((row) => allowedIps(seedOf(row)))
    .filter((prefix) => !live.has(prefix));
}

/** What WireGuard lets a peer send and receive: its block and its identity. Canonical, sorted. */
export function allowedIps(peer: Pick<PeerSeed, "block" | "management_ip">): string[] {
  return [peer.block, peer.management_ip]
    .map((prefix) => normalizePrefix(prefix))
    .filter((prefix) => prefix !== undefined)
    .sort();
}

/** A change to the mesh. */
export type MeshStep =
  | {
    readonly kind: "setPeer";
    readonly publicKey: string;
    readonly allowedIps: readonly string[];
    readonly endpoint: string | undefined;
    readonly cause: string;
  }
  | { readonly kind: "removePeer"; readonly publicKey: string; readonly cause: string }
  | {
    readonly kind: "replaceRoute";
    readonly prefix: string;
    /** Source address of this server; undefined for identities, which have their own. */
    readonly source: string | undefined;
    /** Largest packet on this way, octets; undefined: as the interface has it. */
    readonly mtu?: number | undefined;
    readonly cause: string;
  }
  | { readonly kind: "removeRoute"; readonly prefix: string; readonly cause: string };

/** What the kernel has now. */
export interface MeshObserved {
  readonly wireguard: WireguardState;
  /** Canonical prefixes that are routed to the mesh interface. */
  readonly routes: Routes;
  /** What is known of the ways to servers, octets by name; undefined when nobody looks. */
  readonly mtu?: ReadonlyMap<string, number> | undefined;
}

/** Steps from the observed mesh to the wanted one; none when they agree. */
export function planMesh(self: Self, topology: Topology, observed: MeshObserved): MeshStep[] {
  const steps: MeshStep[] = [];
  const live = new Map(observed.wireguard.peers.map((peer) => [peer.publicKey, peer]));
  for (const { publicKey, reason } of topology.gone) {
    if (live.has(publicKey)) steps.push({ kind: "removePeer", publicKey, cause: reason });
  }
  for (const peer of topology.peers) {
    const current = live.get(peer.public_key);
    const allowed = allowedIps(peer);
    const same = current?.allowedIps.join() === allowed.join() &&
      current.keepaliveS === KEEPALIVE_S;
    const endpoint = current?.endpoint === undefined
      ? orderEndpoints(peer.endpoints, self.endpoints)[0]
      : undefined;
    if (same && (current.endpoint !== undefined || endpoint === undefined)) continue;
    steps.push({
      kind: "setPeer",
      publicKey: peer.public_key,
      allowedIps: allowed,
      endpoint,
      cause: current ? `${peer.server_id} differs` : `${peer.server_id} is new`,
    });
  }
  return [...steps, ...planRoutes(self, topology, observed)];
}

function planRoutes(
  self: Self,
  topology: Topology,
  observed: MeshObserved,
): MeshStep[] {
  const { routes } = observed;
  const block = parseCidr(self.block);
  const source = block && serverAddress(block);
  const missing = topology.peers.flatMap((peer) =>
    allowedIps(peer).flatMap((prefix): MeshStep[] => {
      const there = routes.get(prefix);
      const mtu = wantedMtu(peer, { prefix, observed });
      if (there !== undefined && (mtu === undefined || mtu === there)) return [];
      return [{
        kind: "replaceRoute",
        prefix,
        source: prefix.includes(":") ? undefined : source,
        mtu,
        cause: there === undefined
          ? `no route to ${peer.server_id}`
          : `the way to ${peer.server_id} carries ${mtu} octets`,
      }];
    })
  );
  const gone = topology.gonePrefixes.filter((prefix) => routes.has(prefix)).map((
    prefix,
  ): MeshStep => ({
    kind: "removeRoute",
    prefix,
    cause: "its server was removed",
  }));
  return [...missing, ...gone];
}

/**
 * MTU of a route: blocks have what is known of the way, the least that any way has before it is
 * known. Identities have the interface's, so that probes of any size can be sent there.
 */
function wantedMtu(
  peer: PeerSeed,
  o: { readonly prefix: string; readonly observed: MeshObserved },
): number | undefined {
  const { prefix, observed } = o;
  if (observed.mtu === undefined || prefix.includes(":")) return undefined;
  return observed.mtu.get(peer.server_id) ?? (observed.routes.get(prefix) || MESH_MTU_MIN);
}

/**
 * A peer's endpoints, best first: those in the same private /24 as one of ours (the same local
 * network), then the others in their owner's order. Malformed ones are left out.
 */
export function orderEndpoints(theirs: readonly string[], ours: readonly string[]): string[] {
  const near = new Set(ours.map(privateNetwork).filter((network) => network !== undefined));
  const usable = theirs.flatMap((text) => {
    const endpoint = parseEndpoint(text);
    return endpoint ? [renderEndpoint(endpoint)] : [];
  });
  const isNear = (text: string) => near.has(privateNetwork(text) ?? "");
  return [...usable.filter(isNear), ...usable.filter((text) => !isNear(text))];
}

/** `10.1.2` of a private address (RFC 1918), undefined for others. */
function privateNetwork(endpoint: string): string | undefined {
  const host = parseEndpoint(endpoint)?.host ?? "";
  const isPrivate = /^(10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.)/.test(host);
  return isPrivate && parseIpv4(host) !== undefined
    ? host.split(".").slice(0, 3).join(".")
    : undefined;
}

/** The command of a step. */
export function argvMeshStep(step: MeshStep, device: string): Argv {
  switch (step.kind) {
    case "setPeer":
      return [
        "wg",
        "set",
        device,
        "peer",
        step.publicKey,
        "persistent-keepalive",
        String(KEEPALIVE_S),
        ...(step.endpoint === undefined ? [] : ["endpoint", step.endpoint]),
        "allowed-ips",
        step.allowedIps.join(","),
      ];
    case "removePeer":
      return ["wg", "set", device, "peer", step.publicKey, "remove"];
    case "replaceRoute":
      return [
        "ip",
        ...(step.prefix.includes(":") ? ["-6"] : []),
        "route",
        "replace",
        step.prefix,
        "dev",
        device,
        ...(step.source === undefined ? [] : ["src", step.source]),
        ...(step.mtu === undefined ? [] : ["mtu", `${step.mtu}`]),
      ];
    case "removeRoute":
      return [
        "ip",
        ...(step.prefix.includes(":") ? ["-6"] : []),
        "route",
        "del",
        step.prefix,
        "dev",
        device,
      ];
    default:
      return assertNever(step);
  }
}
