/** Which WireGuard sessions live, by watching their handshakes, and what follows for keys. Pure. */
import type { PeerSeed } from "@jiji/core/cluster";
import type { Secret } from "@jiji/core/runtime";
import type { WireguardState } from "./wg_show.ts";

/**
 * A session whose last handshake is older than this carries nothing. Source: the WireGuard paper,
 * section 6.1 (Reject-After-Time).
 */
export const SESSION_DEAD_MS = 180_000;

/** A peer's last handshake, and since when this daemon has seen no later one, monotonic ms. */
export interface Session {
  readonly handshakeAtMs: number | undefined;
  readonly sinceMs: number;
}

/** Sessions by public key. */
export type Sessions = ReadonlyMap<string, Session>;

/**
 * Takes a look at every handshake. Times are this process's own: handshakes are stamped by a clock
 * that may be another than the daemon's, or be set back.
 */
export function watchSessions(
  before: Sessions,
  wireguard: WireguardState,
  nowMs: number,
): Map<string, Session> {
  return new Map(wireguard.peers.map(({ publicKey, handshakeAtMs }) => {
    const known = before.get(publicKey);
    const same = known !== undefined && known.handshakeAtMs === handshakeAtMs;
    return [publicKey, same ? known : { handshakeAtMs, sinceMs: nowMs }];
  }));
}

/** For how long a session has been dead, milliseconds; undefined while it lives. */
export function deadForMs(session: Session | undefined, nowMs: number): number | undefined {
  if (session === undefined) return 0;
  const unchangedMs = nowMs - session.sinceMs;
  if (session.handshakeAtMs === undefined) return unchangedMs;
  return unchangedMs >= SESSION_DEAD_MS ? unchangedMs - SESSION_DEAD_MS : undefined;
}

/** A peer's keys, and which of them holds its block. */
export interface PeerKeys {
  readonly keys: readonly string[];
  readonly active: string;
}

/**
 * The keys a peer may come with: its own and the one it is about to change to. The block is with the
 * one that shook hands last: whoever has changed is heard with its new key, before any gossip.
 */
export function keysOf(peer: PeerSeed, wireguard: WireguardState): PeerKeys {
  const { public_key: current, next_key: next } = peer;
  if (next === undefined) return { keys: [current], active: current };
  const at = (key: string) =>
    wireguard.peers.find((one) => one.publicKey === key)?.handshakeAtMs ?? -1;
  const hasChanged = at(next) >= 0 && at(next) >= at(current);
  return { keys: [current, next], active: hasChanged ? next : current };
}

/** What decides about preshared keys. */
export interface PskFacts {
  readonly self: string;
  /** Name of this server's secret; undefined when it has none. */
  readonly secretId: string | undefined;
  /** Preshared key with each server, by name. */
  readonly pairKeys: ReadonlyMap<string, Secret>;
  readonly sessions: Sessions;
  /** Monotonic. */
  readonly nowMs: number;
}

/** While nobody answers, one side keeps to its choice for this long, milliseconds … */
const LEADER_STAYS_MS = 60_000;
/** … then tries the other one for this long; four handshakes are tried in it. */
const LEADER_TRIES_MS = 20_000;
/** The other side changes this often meanwhile; two handshakes are tried in it. */
const FOLLOWER_MS = 10_000;

/**
 * The preshared key that the next handshake with a peer takes; undefined for none. Both sides use it
 * once both are known to have the same secret. One of them may learn that later, or never when the
 * way was cut just then: so when no session lives, both try with and without, one slowly and one
 * fast, and meet within {@link LEADER_STAYS_MS}. A living session is not touched by such tries.
 */
export function wantedPsk(peer: PeerSeed, facts: PskFacts): Secret | undefined {
  const pair = facts.pairKeys.get(peer.server_id);
  if (facts.secretId === undefined || pair === undefined) return undefined;
  const prefers = peer.psk === facts.secretId;
  const keys = [peer.public_key, ...peer.next_key === undefined ? [] : [peer.next_key]];
  const dead = keys.map((key) => deadForMs(facts.sessions.get(key), facts.nowMs));
  const sinceMs = dead.includes(undefined) ? undefined : Math.min(...dead.map((ms) => ms ?? 0));
  const tries = sinceMs !== undefined && triesOther(sinceMs, facts.self < peer.server_id);
  return prefers !== tries ? pair : undefined;
}

function triesOther(deadMs: number, leads: boolean): boolean {
  if (leads) return deadMs % (LEADER_STAYS_MS + LEADER_TRIES_MS) >= LEADER_STAYS_MS;
  return Math.floor(deadMs / FOLLOWER_MS) % 2 === 1;
}
