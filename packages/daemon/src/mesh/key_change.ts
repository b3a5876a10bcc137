/** Changing a server's WireGuard key without losing the mesh. Pure. */
import * as v from "valibot";
import { type PeerSeed, renderPeerSeeds } from "@jiji/core/cluster";
import type { ServerRow } from "@jiji/core/corrosion";
import { normalizeIp } from "@jiji/core/net";
import { seedOf } from "./peer_reconciler.ts";
import type { WireguardState } from "./wg_show.ts";
import { keysOf } from "./sessions.ts";

/**
 * Members that do not take this next key for the server's yet, by name. Those of `peers` that have no
 * row are among them: a state that was lost shows few rows, and nobody's silence is consent.
 */
export function missingAccepts(
  rows: Iterable<ServerRow>,
  o: { readonly self: string; readonly nextKey: string; readonly peers: readonly PeerSeed[] },
): string[] {
  const all = [...rows];
  const names = new Set(all.map((row) => row.id));
  const unknown = o.peers.map((peer) => peer.server_id).filter((id) => !names.has(id));
  const silent = all
    .filter((row) => row.removedAtMs === null && row.id !== o.self)
    .filter((row) => !row.doc.accepts?.includes(o.nextKey))
    .map((row) => row.id);
  return [...silent, ...unknown].sort();
}

/** Servers that change their key before this one does, by name: one at a time. */
export function changingBefore(rows: Iterable<ServerRow>, self: string): string[] {
  return [...rows]
    .filter((row) => row.removedAtMs === null && row.id < self && row.doc.next_key !== undefined)
    .map((row) => row.id).sort();
}

/** Next keys among peers that every member but their owner accepts: a change is due any moment. */
export function isChangeDue(rows: readonly ServerRow[], peers: readonly PeerSeed[]): boolean {
  return peers.some(({ server_id: self, next_key: nextKey }) =>
    nextKey !== undefined && missingAccepts(rows, { self, nextKey, peers: [] }).length === 0
  );
}

const ConfigFile = v.looseObject({ wireguard_public_key: v.string(), management_ip: v.string() });

/**
 * `server.json` with another key and identity, all else as it was.
 *
 * @throws {Error} when the text is not the file's.
 */
export function withKey(
  text: string,
  next: { readonly publicKey: string; readonly managementIp: string },
): string {
  const file: unknown = JSON.parse(text);
  v.parse(ConfigFile, file);
  const changed = {
    // In the file's own order, so that the next server init finds it as it would write it.
    ...(file as Record<string, unknown>),
    wireguard_public_key: next.publicKey,
    management_ip: next.managementIp,
  };
  return JSON.stringify(changed, null, 2) + "\n";
}

/** A text with identities of servers replaced: former ones by present ones. */
export function withIdentities(text: string, identities: ReadonlyMap<string, string>): string {
  let result = text;
  for (const [former, present] of identities) {
    // Nothing that could belong to a longer address may stand beside it.
    const escaped = former.replace(/[.]/g, "\\.");
    const whole = new RegExp(`(?<![0-9a-f:])${escaped}(?![0-9a-f:])`, "g");
    result = result.replace(whole, present);
  }
  return result;
}

/** A server that was heard with its next key. */
export interface Moved {
  readonly serverId: string;
  /** Identity of the key it had. */
  readonly former: string;
  readonly present: string;
}

/** Servers whose block is with their next key. */
export function movedPeers(
  peers: readonly PeerSeed[],
  wireguard: WireguardState,
  identities: ReadonlyMap<string, string>,
): Moved[] {
  return peers.flatMap((peer): Moved[] => {
    const present = identities.get(peer.next_key ?? "");
    const former = normalizeIp(peer.management_ip);
    if (present === undefined || former === undefined) return [];
    if (keysOf(peer, wireguard).active !== peer.next_key) return [];
    return [{ serverId: peer.server_id, former, present }];
  });
}

/** What must follow when servers have changed their keys. */
export interface FollowPlan {
  /** Former identities and the present ones. */
  readonly identities: ReadonlyMap<string, string>;
  /** New text of `/etc/jiji/peers.json`; undefined while it is right. */
  readonly seeds: string | undefined;
}

/**
 * Compares the seeds written when this server joined with the rows. `moved` are servers that were
 * heard with their next key: their rows may not come before this server finds them there.
 */
export function planFollow(
  seeds: readonly PeerSeed[],
  rows: readonly ServerRow[],
  moved: readonly Moved[],
): FollowPlan {
  const live = new Map(
    rows.filter((row) => row.removedAtMs === null).map((row) => [row.id, row]),
  );
  const identities = new Map(moved.map(({ former, present }) => [former, present]));
  const followed = seeds.map((seed) => {
    const row = live.get(seed.server_id);
    if (!row) return seed;
    // A next key outlives database and cache here: its server may change while this one has neither.
    const isSame = row.wireguardPubkey === seed.public_key && row.doc.next_key === seed.next_key;
    if (isSame) return seed;
    const former = normalizeIp(seed.management_ip);
    if (former !== undefined && former !== row.managementIp) {
      identities.set(former, row.managementIp);
    }
    return seedOf(row);
  });
  const changed = followed.some((seed, index) => seed !== seeds[index]);
  return { identities, seeds: changed ? renderPeerSeeds(followed) : undefined };
}
