/** The steps that lead from the mesh as it is to the one that is wanted. Pure. */
import { MESH_MTU_MIN, type PeerSeed, SERVER_PATHS } from "@jiji/core/cluster";
import {
  normalizePrefix,
  parseCidr,
  parseEndpoint,
  parseIpv4,
  renderEndpoint,
  serverAddress,
} from "@jiji/core/net";
import { type Argv, assertNever } from "@jiji/core/runtime";
import { allowedIps, type Self, type Topology } from "./peer_reconciler.ts";
import type { WireguardPeer, WireguardState } from "./wg_show.ts";
import type { Routes } from "./path_mtu.ts";
import { keysOf, type PskFacts, wantedPsk } from "./sessions.ts";

/** Keeps NAT mappings open, seconds. Source: wg(8), PersistentKeepalive. */
export const KEEPALIVE_S = 25;
/**
 * The same for a key that its server is about to change to, seconds: each is a try, in case that both
 * servers have changed at once and the keys they had have nothing to say any more.
 */
const NEXT_KEEPALIVE_S = 5;

/** Where a preshared key lies while `wg` reads it, 0600 on tmpfs. Source: wg(8), preshared-key. */
export const PAIR_KEY_FILE: string = `${SERVER_PATHS.run}/pair.key`;

/** A change to the mesh. */
export type MeshStep =
  | {
    readonly kind: "setPeer";
    readonly serverId: string;
    readonly publicKey: string;
    readonly allowedIps: readonly string[];
    readonly endpoint: string | undefined;
    readonly keepaliveS: number;
    /** Whether its preshared key, which is in a file, is to be set, or taken away. */
    readonly psk?: "set" | "clear" | undefined;
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
  /** What decides about preshared keys; undefined: there are none. */
  readonly psk?: PskFacts | undefined;
  /** Identities of keys that servers are about to change to. */
  readonly identities?: ReadonlyMap<string, string> | undefined;
}

/** Steps from the observed mesh to the wanted one; none when they agree. */
export function planMesh(self: Self, topology: Topology, observed: MeshObserved): MeshStep[] {
  const steps: MeshStep[] = [];
  const live = new Map(observed.wireguard.peers.map((peer) => [peer.publicKey, peer]));
  for (const { publicKey, reason } of topology.gone) {
    if (live.has(publicKey)) steps.push({ kind: "removePeer", publicKey, cause: reason });
  }
  for (const peer of topology.peers) steps.push(...planPeer(self, peer, { ...observed, live }));
  return [...steps, ...planRoutes(self, topology, observed)];
}

/** A peer has an entry for each of its keys; the block is with one of them. */
function planPeer(
  self: Self,
  peer: PeerSeed,
  observed: MeshObserved & { readonly live: ReadonlyMap<string, WireguardPeer> },
): MeshStep[] {
  const { live } = observed;
  const { keys, active } = keysOf(peer, observed.wireguard);
  const wanted = observed.psk && wantedPsk(peer, observed.psk);
  const known = keys.map((key) => live.get(key)?.endpoint).find((one) => one !== undefined);
  const entries = keys.flatMap((key): MeshStep[] => {
    const identity = key === peer.public_key ? peer.management_ip : observed.identities?.get(key);
    if (identity === undefined) return [];
    const allowed = allowedIps({
      block: key === active ? peer.block : "",
      management_ip: identity,
    });
    const current = live.get(key);
    const keepaliveS = key === peer.next_key ? NEXT_KEEPALIVE_S : KEEPALIVE_S;
    const endpoint = current?.endpoint === undefined
      ? known ?? orderEndpoints(peer.endpoints, self.endpoints)[0]
      : undefined;
    const psk = current?.presharedKey?.reveal() === wanted?.reveal()
      ? undefined
      : wanted === undefined
      ? "clear"
      : "set";
    const same = current?.allowedIps.join() === allowed.join() &&
      current.keepaliveS === keepaliveS && psk === undefined;
    if (same && endpoint === undefined) return [];
    return [{
      kind: "setPeer",
      serverId: peer.server_id,
      publicKey: key,
      allowedIps: allowed,
      endpoint,
      keepaliveS,
      psk,
      cause: causeOf(peer, { key, active, current, psk }),
    }];
  });
  // Whoever gets the block first takes it from the other in the same instant.
  return entries.sort((a, b) =>
    Number(b.kind === "setPeer" && b.publicKey === active) -
    Number(a.kind === "setPeer" && a.publicKey === active)
  );
}

function causeOf(
  peer: PeerSeed,
  o: {
    readonly key: string;
    readonly active: string;
    readonly current: WireguardPeer | undefined;
    readonly psk: "set" | "clear" | undefined;
  },
): string {
  const { server_id } = peer;
  if (!o.current) {
    return o.key === peer.public_key ? `${server_id} is new` : `${server_id} is to change its key`;
  }
  if (o.key === o.active && o.key === peer.next_key && o.current.allowedIps.length < 2) {
    return `${server_id} has changed its key`;
  }
  return o.psk === undefined
    ? `${server_id} differs`
    : `${server_id}: handshakes ${o.psk === "set" ? "with" : "without"} a preshared key`;
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
    routedTo(peer, observed).flatMap((prefix): MeshStep[] => {
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
    cause: "no server has it any more",
  }));
  return [...missing, ...gone];
}

/** Prefixes that lead to a peer, the identity of its next key included. */
function routedTo(peer: PeerSeed, observed: MeshObserved): string[] {
  const next = observed.identities?.get(peer.next_key ?? "");
  return [
    ...allowedIps(peer),
    ...(next === undefined ? [] : [normalizePrefix(next) ?? ""].filter((one) => one !== "")),
  ];
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
        ...(step.psk === undefined
          ? []
          : ["preshared-key", step.psk === "set" ? PAIR_KEY_FILE : "/dev/null"]),
        "persistent-keepalive",
        String(step.keepaliveS),
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
