/**
 * Who the peers of this server are. Pure. A peer leaves only on evidence: its server's tombstone, or a new key in its server's own row.
 */
import type { PeerSeed, ServerConfig } from "@jiji/core/cluster";
import { seedOfRow, type ServerRow } from "@jiji/core/corrosion";
import { normalizePrefix } from "@jiji/core/net";
import { Claims } from "./claims.ts";

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

/** This server, as far as it matters for the mesh. */
export interface Self extends
  Pick<
    ServerConfig,
    "server_id" | "cluster_cidr" | "wireguard_public_key" | "block" | "management_ip"
  > {
  readonly endpoints: readonly string[];
}

/**
 * Merges rows, seeds and cache. Of two servers that claim one key or overlapping addresses the one
 * in `holders` (the keys WireGuard has now) stays, else the one that seeds or cache have with that
 * block and key, else the first by name: a late or forged row, or a clone, takes nothing from a peer
 * that works or that did before a loss of power.
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
    if (rows.has(seed.server_id)) continue;
    candidates.set(seed.server_id, withLatest(seed, candidates.get(seed.server_id)));
  }
  for (const row of known.rows) if (row.removedAtMs === null) candidates.set(row.id, seedOf(row));
  candidates.delete(self.server_id);
  const before = new Map([...known.seeds, ...known.cache].map((seed) => [seed.server_id, seed]));
  const sorted = [...candidates.values()].sort((a, b) =>
    Number(holders.has(b.public_key)) - Number(holders.has(a.public_key)) ||
    sameAsBefore(b, before) - sameAsBefore(a, before) ||
    (a.server_id < b.server_id ? -1 : 1)
  );
  const claims = new Claims(self.cluster_cidr);
  claims.grant({ ...self, public_key: self.wireguard_public_key });
  const granted: PeerSeed[] = [];
  const conflicts: Conflict[] = [];
  for (const peer of sorted) {
    const reason = claims.grant(peer);
    if (reason === undefined) granted.push(peer);
    else conflicts.push({ serverId: peer.server_id, reason });
  }
  const peers = granted.map((peer) => withoutClaimedNext(peer, { granted, self }))
    .sort((a, b) => a.server_id < b.server_id ? -1 : 1);
  const live = new Set(peers.flatMap((peer) => [peer.public_key, peer.next_key ?? ""]));
  return {
    peers,
    gone: goneKeys(rows, remembered).filter((one) => !live.has(one.publicKey)),
    gonePrefixes: gonePrefixes(known, granted),
    conflicts,
  };
}

/** How much of what a peer claims it had already when this server wrote its files. */
function sameAsBefore(peer: PeerSeed, before: ReadonlyMap<string, PeerSeed>): number {
  const known = before.get(peer.server_id);
  if (!known) return 0;
  return Number(known.block === peer.block) + Number(known.public_key === peer.public_key);
}

/** A seed from when this server joined, with what was learnt of the same key since. */
function withLatest(seed: PeerSeed, cached: PeerSeed | undefined): PeerSeed {
  if (cached?.public_key !== seed.public_key) return seed;
  const { psk, next_key } = cached;
  return {
    ...seed,
    ...(psk === undefined ? {} : { psk }),
    ...(next_key === undefined ? {} : { next_key }),
  };
}

/** A next key that is somebody else's is no claim to anything. */
function withoutClaimedNext(
  peer: PeerSeed,
  o: { readonly granted: readonly PeerSeed[]; readonly self: Self },
): PeerSeed {
  const { next_key, ...rest } = peer;
  const isTaken = next_key === undefined || next_key === o.self.wireguard_public_key ||
    o.granted.some((other) =>
      other.public_key === next_key || (other !== peer && other.next_key === next_key)
    );
  return isTaken ? rest : peer;
}

/** Seeds made from rows: rows stay the same objects as long as nothing changes. */
const seeds = new WeakMap<ServerRow, PeerSeed>();

/** The peer in a row; the same object for the same row. */
export function seedOf(row: ServerRow): PeerSeed {
  const known = seeds.get(row);
  if (known) return known;
  const seed = seedOfRow(row);
  seeds.set(row, seed);
  return seed;
}

function goneKeys(
  rows: ReadonlyMap<string, ServerRow>,
  remembered: readonly PeerSeed[],
): { publicKey: string; reason: string }[] {
  const gone = new Map<string, string>();
  for (const row of rows.values()) {
    if (row.removedAtMs === null) continue;
    for (const key of keysOfSeed(seedOf(row))) gone.set(key, `${row.id} was removed`);
  }
  for (const seed of remembered) {
    const row = rows.get(seed.server_id);
    if (!row) continue;
    const reason = row.removedAtMs === null ? "has another key" : "was removed";
    const kept = row.removedAtMs === null ? keysOfSeed(seedOf(row)) : [];
    for (const key of keysOfSeed(seed)) {
      if (!kept.includes(key)) gone.set(key, `${row.id} ${reason}`);
    }
  }
  return [...gone].map(([publicKey, reason]) => ({ publicKey, reason }));
}

function keysOfSeed(seed: PeerSeed): string[] {
  return seed.next_key === undefined ? [seed.public_key] : [seed.public_key, seed.next_key];
}

/** Of removed servers all, of servers with another key the former identity. */
function gonePrefixes(known: Membership, peers: readonly PeerSeed[]): string[] {
  const live = new Set(peers.flatMap(allowedIps));
  const rows = new Map(known.rows.map((row) => [row.id, row]));
  const removed = known.rows.filter((row) => row.removedAtMs !== null).map(seedOf);
  const former = [...known.cache, ...known.seeds].filter((seed) => {
    const row = rows.get(seed.server_id);
    return row !== undefined && row.managementIp !== seed.management_ip;
  }).map(({ management_ip }) => normalizePrefix(management_ip) ?? "");
  return [...new Set([...removed.flatMap(allowedIps), ...former])]
    .filter((prefix) => prefix !== "" && !live.has(prefix));
}

/** What WireGuard lets a peer send and receive: its block and its identity. Canonical, sorted. */
export function allowedIps(peer: Pick<PeerSeed, "block" | "management_ip">): string[] {
  return [peer.block, peer.management_ip]
    .map((prefix) => normalizePrefix(prefix))
    .filter((prefix) => prefix !== undefined)
    .sort();
}
