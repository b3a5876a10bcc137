import * as v from "valibot";
import { parseCidr } from "../net/ip.ts";
import { isWireguardKey } from "../net/management_ip.ts";
import { SERVER_NAME } from "./names.ts";

const PeerSchema = v.object({
  server_id: v.pipe(v.string(), v.regex(SERVER_NAME)),
  public_key: v.pipe(v.string(), v.check(isWireguardKey, "not a WireGuard key")),
  block: v.pipe(v.string(), v.check((text) => parseCidr(text) !== undefined, "not a network")),
  management_ip: v.string(),
  endpoints: v.array(v.string()),
  /** Which secret its preshared keys are made from; see `ServerDoc`. Absent: none known. */
  psk: v.optional(v.pipe(v.string(), v.regex(/^[a-f0-9]{16}$/))),
  /** Key that it is about to change to. */
  next_key: v.optional(v.pipe(v.string(), v.check(isWireguardKey))),
});

const FileSchema = v.object({ format: v.literal(1), peers: v.array(v.unknown()) });

/**
 * A peer as files know it: the seed written when the server joined (`/etc/jiji/peers.json`) and the
 * daemon's cache have this shape, so that a server finds its mesh before Corrosion is up.
 */
export type PeerSeed = v.InferOutput<typeof PeerSchema>;

/** Peers in `text`; malformed ones are left out, an unreadable file gives none. */
export function parsePeerSeeds(text: string): PeerSeed[] {
  let file: unknown;
  try {
    file = JSON.parse(text);
  } catch {
    return [];
  }
  const parsed = v.safeParse(FileSchema, file);
  if (!parsed.success) return [];
  return parsed.output.peers.flatMap((peer) => {
    const one = v.safeParse(PeerSchema, peer);
    return one.success ? [one.output] : [];
  });
}

/** File text for these peers, sorted by name so that equal peers give equal files. */
export function renderPeerSeeds(peers: readonly PeerSeed[]): string {
  const sorted = [...peers].sort((a, b) => a.server_id < b.server_id ? -1 : 1);
  return JSON.stringify({ format: 1, peers: sorted }, null, 2) + "\n";
}
