/** When a peer is tried at another of its endpoints. Pure. */
import type { PeerSeed } from "@jiji/core/cluster";
import type { Argv } from "@jiji/core/runtime";
import { orderEndpoints } from "./peer_reconciler.ts";
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

/** Since when each silent peer has been tried where it is now, Unix ms by key. */
export type TrialStarts = ReadonlyMap<string, number>;

/** What the monitor decided, and what it must remember. */
export interface MonitorPlan {
  readonly rotations: readonly Rotation[];
  readonly trials: TrialStarts;
}

/**
 * Peers that do not answer where they are looked for, with the endpoint to try next: round robin
 * through all that are known, {@link ENDPOINT_TRY_MS} each. A peer that answers, or has no other
 * endpoint, is left alone.
 */
export function planRotations(
  peers: readonly PeerSeed[],
  wireguard: WireguardState,
  o: {
    readonly nowMs: number;
    readonly trials: TrialStarts;
    /** Servers that do not answer probes: known long before WireGuard gives a session up. */
    readonly silent: ReadonlySet<string>;
    readonly ownEndpoints: readonly string[];
  },
): MonitorPlan {
  const live = new Map(wireguard.peers.map((peer) => [peer.publicKey, peer]));
  const rotations: Rotation[] = [];
  const trials = new Map<string, number>();
  for (const peer of peers) {
    const current = live.get(peer.public_key);
    const answers = isFresh(current?.handshakeAtMs, o.nowMs) && !o.silent.has(peer.server_id);
    if (!current || answers) continue;
    const sinceMs = o.trials.get(peer.public_key) ?? o.nowMs;
    trials.set(peer.public_key, sinceMs);
    if (o.nowMs - sinceMs < ENDPOINT_TRY_MS) continue;
    const endpoints = orderEndpoints(peer.endpoints, o.ownEndpoints);
    const next = endpoints[(endpoints.indexOf(current.endpoint ?? "") + 1) % endpoints.length];
    if (next === undefined || next === current.endpoint) continue;
    trials.set(peer.public_key, o.nowMs);
    rotations.push({ publicKey: peer.public_key, serverId: peer.server_id, endpoint: next });
  }
  return { rotations, trials };
}

function isFresh(handshakeAtMs: number | undefined, nowMs: number): boolean {
  return handshakeAtMs !== undefined && nowMs - handshakeAtMs <= HANDSHAKE_STALE_MS;
}

/** The command of a rotation. */
export function argvRotation(rotation: Rotation, device: string): Argv {
  return ["wg", "set", device, "peer", rotation.publicKey, "endpoint", rotation.endpoint];
}
