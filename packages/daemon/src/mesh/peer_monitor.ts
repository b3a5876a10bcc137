/** When a peer is tried at another of its endpoints. Pure. */
import type { PeerSeed } from "@jiji/core/cluster";
import type { Argv } from "@jiji/core/runtime";
import { orderEndpoints } from "./mesh_plan.ts";
import { keysOf, type Session, type Sessions } from "./sessions.ts";
import type { WireguardState } from "./wg_show.ts";

/**
 * A session without a handshake for this long is dead. Source: the WireGuard paper, section 6.1:
 * keys are refused 180 s after the handshake, renewal is tried for 90 s; plus 5 s.
 */
export const HANDSHAKE_STALE_MS = 275_000;
/** How long one endpoint is given, milliseconds: WireGuard tries a handshake every 5 s. */
export const ENDPOINT_TRY_MS = 20_000;

/** A peer's next endpoint. */
export interface Rotation {
  readonly publicKey: string;
  readonly serverId: string;
  readonly endpoint: string;
}

/** Since when each silent peer has been tried where it is now, monotonic ms by server. */
export type TrialStarts = ReadonlyMap<string, number>;

/** What the monitor decided, and what it must remember. */
export interface MonitorPlan {
  readonly rotations: readonly Rotation[];
  readonly trials: TrialStarts;
  /** Where each peer answered last, by server: perhaps an endpoint that only WireGuard knows. */
  readonly answered: ReadonlyMap<string, string>;
}

/**
 * Peers that do not answer where they are looked for, with the endpoint to try next: round robin
 * through all that are known and the one that worked last, {@link ENDPOINT_TRY_MS} each. A peer that
 * answers is left alone, wherever it is: behind a NAT only WireGuard knows where that is.
 */
export function planRotations(
  peers: readonly PeerSeed[],
  wireguard: WireguardState,
  o: {
    /** Monotonic. */
    readonly nowMs: number;
    readonly trials: TrialStarts;
    readonly sessions: Sessions;
    readonly answered: ReadonlyMap<string, string>;
    /** Servers that do not answer probes: known long before WireGuard gives a session up. */
    readonly silent: ReadonlySet<string>;
    readonly ownEndpoints: readonly string[];
  },
): MonitorPlan {
  const live = new Map(wireguard.peers.map((peer) => [peer.publicKey, peer]));
  const rotations: Rotation[] = [];
  const trials = new Map<string, number>();
  const answered = new Map<string, string>();
  for (const peer of peers) {
    const { server_id: serverId } = peer;
    const publicKey = keysOf(peer, wireguard).active;
    const current = live.get(publicKey);
    const last = o.answered.get(serverId);
    if (!current) continue;
    if (isFresh(o.sessions.get(publicKey), o.nowMs) && !o.silent.has(serverId)) {
      if (current.endpoint !== undefined) answered.set(serverId, current.endpoint);
      continue;
    }
    if (last !== undefined) answered.set(serverId, last);
    const sinceMs = o.trials.get(serverId) ?? o.nowMs;
    trials.set(serverId, sinceMs);
    if (o.nowMs - sinceMs < ENDPOINT_TRY_MS) continue;
    const known = orderEndpoints(peer.endpoints, o.ownEndpoints);
    const endpoints = last === undefined || known.includes(last) ? known : [...known, last];
    const next = endpoints[(endpoints.indexOf(current.endpoint ?? "") + 1) % endpoints.length];
    if (next === undefined || next === current.endpoint) continue;
    trials.set(serverId, o.nowMs);
    rotations.push({ publicKey, serverId, endpoint: next });
  }
  return { rotations, trials, answered };
}

function isFresh(session: Session | undefined, nowMs: number): boolean {
  return session?.handshakeAtMs !== undefined && nowMs - session.sinceMs <= HANDSHAKE_STALE_MS;
}

/** Says to WireGuard where peers are. Source: wg(8), `set`. */
export function argvEndpoints(
  device: string,
  peers: readonly { readonly publicKey: string; readonly endpoint: string }[],
): Argv {
  const words = peers.flatMap((one) => ["peer", one.publicKey, "endpoint", one.endpoint]);
  return ["wg", "set", device, ...words];
}
