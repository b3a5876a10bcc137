/**
 * Telling a removed server that it was removed: it may have been off, and the mesh that would have
 * told it is closed to it. Its key stays known to WireGuard for a while, for one address alone, and
 * everything from that address is dropped: words go to it, nothing comes back. Pure.
 */
import * as v from "valibot";
import { MESH_INTERFACE, type PeerSeed, SERVER_NAME, SERVER_PATHS } from "@jiji/core/cluster";
import type { ServerRow } from "@jiji/core/corrosion";
import { cidrsOverlap, parseCidr, serverAddress } from "@jiji/core/net";
import type { Argv } from "@jiji/core/runtime";
import { isWithin } from "./mesh/claims.ts";
import type { WireguardState } from "./mesh/wg_show.ts";

/** For so long after its removal a server is told when it comes back, milliseconds. */
export const FAREWELL_MS: number = 30 * 24 * 3_600_000;
/** More removed servers are not told; the last ones go first. */
export const FAREWELLS_MAX = 16;
/** A removed server with a handshake this recent is there and is told, milliseconds. */
const THERE_MS = 180_000;

/** A removed server that is to be told. */
export interface Farewell {
  readonly serverId: string;
  readonly publicKey: string;
  /** Its own address in the mesh, the only one that leads to it. */
  readonly address: string;
  readonly removedAtMs: number;
  /** Name of the secret its preshared keys are made from; undefined when it told none. */
  readonly psk: string | undefined;
}

/** Removed servers to tell: none whose key or address a member has now. */
export function planFarewells(
  rows: Iterable<ServerRow>,
  o: {
    readonly nowMs: number;
    readonly members: readonly Pick<PeerSeed, "public_key" | "block">[];
    readonly clusterCidr: string;
  },
): Farewell[] {
  const cluster = parseCidr(o.clusterCidr);
  const keys = new Set(o.members.map((member) => member.public_key));
  const blocks = o.members.flatMap((member) => parseCidr(member.block) ?? []);
  const farewells = [...rows].flatMap((row): Farewell[] => {
    const block = parseCidr(row.subnet);
    if (row.removedAtMs === null || !block || keys.has(row.wireguardPubkey)) return [];
    if (o.nowMs - row.removedAtMs > FAREWELL_MS) return [];
    if (!isWithin(block, cluster)) return [];
    if (blocks.some((other) => cidrsOverlap(other, block))) return [];
    return [{
      serverId: row.id,
      publicKey: row.wireguardPubkey,
      address: serverAddress(block),
      removedAtMs: row.removedAtMs,
      psk: row.doc.psk,
    }];
  }).sort((a, b) => b.removedAtMs - a.removedAtMs || (a.serverId < b.serverId ? -1 : 1));
  // A key leads to one address and an address to one key: of two that claim either the last is told.
  const taken = new Set<string>();
  return farewells.filter(({ address, publicKey }) => {
    const isFree = !taken.has(address) && !taken.has(publicKey);
    if (isFree) taken.add(address).add(publicKey);
    return isFree;
  }).slice(0, FAREWELLS_MAX);
}

/** Those that are there now, by their last handshake. */
export function presentFarewells(
  farewells: readonly Farewell[],
  wireguard: WireguardState,
  nowMs: number,
): Farewell[] {
  const seenMs = new Map(wireguard.peers.map((peer) => [peer.publicKey, peer.handshakeAtMs]));
  return farewells.filter((one) => nowMs - (seenMs.get(one.publicKey) ?? 0) <= THERE_MS);
}

/** Whether one of these keys had a handshake since the last look: its server is back. */
export function isBack(
  told: ReadonlySet<string>,
  looks: {
    readonly before: WireguardState | undefined;
    readonly now: WireguardState;
  },
): boolean {
  const before = new Map(looks.before?.peers.map((peer) => [peer.publicKey, peer.handshakeAtMs]));
  return looks.now.peers.some(({ publicKey, handshakeAtMs }) =>
    told.has(publicKey) && handshakeAtMs !== undefined && handshakeAtMs !== before.get(publicKey)
  );
}

/** What other duties saw lately of what farewells need; undefined: nobody has looked. */
export interface FarewellSight {
  readonly wireguard?: WireguardState | undefined;
  readonly dropRules?: readonly string[] | undefined;
}

/** Whether each has its rule and its key leads to one address, and no rule is left of others. */
export function areInPlace(farewells: readonly Farewell[], sight: FarewellSight): boolean {
  const { wireguard, dropRules } = sight;
  if (farewells.length === 0) return (dropRules ?? []).length === 0;
  if (!wireguard || !dropRules) return false;
  const allowed = new Map(wireguard.peers.map((peer) => [peer.publicKey, peer.allowedIps.join()]));
  const wanted = new Set(farewells.map(({ address }) => address));
  return dropRules.every((address) => wanted.has(address)) &&
    farewells.every(({ address, publicKey }) =>
      dropRules.includes(address) && allowed.get(publicKey) === `${address}/32`
    );
}

/** The rule that drops everything a removed server sends, before it reaches any of ours. */
export function argvDropRule(verb: "-C" | "-I" | "-D", address: string): Argv {
  const rule = ["-i", MESH_INTERFACE, "-s", `${address}/32`, "-j", "DROP"];
  return ["iptables", "-w", "5", "-t", "raw", verb, "PREROUTING", ...rule];
}

/** Addresses in rules of ours, from `iptables -t raw -S PREROUTING`. */
export function parseDropRules(text: string): string[] {
  const rule = new RegExp(`^-A PREROUTING -s ([0-9.]+)/32 -i ${MESH_INTERFACE} -j DROP$`, "gm");
  return [...text.matchAll(rule)].map((match) => match[1]!);
}

/** Where the pair's preshared key lies while `wg` reads it, 0600 on tmpfs. */
export const FAREWELL_KEY_FILE: string = `${SERVER_PATHS.run}/farewell.key`;

/** Leaves WireGuard one address for the key of a removed server. */
export function argvNarrowPeer(farewell: Farewell, o: { readonly hasKey: boolean }): Argv {
  const { publicKey, address } = farewell;
  const key = ["preshared-key", o.hasKey ? FAREWELL_KEY_FILE : "/dev/null"];
  return ["wg", "set", MESH_INTERFACE, "peer", publicKey, ...key, "allowed-ips", `${address}/32`];
}

const WordSchema = v.object({
  jiji: v.literal(1),
  kind: v.literal("removed"),
  server: v.pipe(v.string(), v.regex(SERVER_NAME)),
  removed_at_ms: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(8.64e15)),
});

/** What a removed server is told. */
export type FarewellWord = v.InferOutput<typeof WordSchema>;

/** No word is longer, octets. */
const WORD_BYTES_MAX = 512;

/** The word's bytes. */
export function encodeFarewell(farewell: Farewell): Uint8Array<ArrayBuffer> {
  const word: FarewellWord = {
    jiji: 1,
    kind: "removed",
    server: farewell.serverId,
    removed_at_ms: farewell.removedAtMs,
  };
  return new TextEncoder().encode(JSON.stringify(word));
}

/** The word in these bytes, or undefined: anyone can send to a UDP port. */
export function decodeFarewell(bytes: Uint8Array): FarewellWord | undefined {
  if (bytes.length > WORD_BYTES_MAX) return undefined;
  try {
    const parsed = v.safeParse(WordSchema, JSON.parse(new TextDecoder().decode(bytes)));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Whether a server believes that it was removed: the word names it, comes from a peer's own address
 * (which WireGuard vouches for), and no member answers it any more. Who has been away longer than
 * this server may say so of one that was added again; the others answer it then.
 */
export function believesFarewell(
  word: FarewellWord,
  o: {
    readonly self: string;
    readonly from: string;
    readonly peers: readonly PeerSeed[];
    readonly silent: ReadonlySet<string>;
  },
): boolean {
  const isPeer = o.peers.some((peer) => {
    const block = parseCidr(peer.block);
    return block !== undefined && serverAddress(block) === o.from;
  });
  return word.server === o.self && isPeer &&
    o.peers.every((peer) => o.silent.has(peer.server_id));
}
