import { normalizeIp } from "./ip.ts";
import { invariant } from "../runtime/assert.ts";

/** A WireGuard public key: 32 bytes in base64. Source: wg(8), section CONFIGURATION FILE FORMAT. */
const WIREGUARD_KEY = /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/;

/** Whether `text` is a WireGuard key in its only canonical base64 form. */
export function isWireguardKey(text: string): boolean {
  return WIREGUARD_KEY.test(text);
}

/**
 * A server's IPv6 identity in `fdcc::/16`: the prefix, then the first 14 bytes of the SHA-256 of
 * its WireGuard public key. Canonical form (RFC 5952).
 */
export async function managementIp(publicKey: string): Promise<string> {
  invariant(isWireguardKey(publicKey), "managementIp needs a WireGuard public key");
  const key = Uint8Array.from(atob(publicKey), (character) => character.charCodeAt(0));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", key));
  const groups = Array.from(
    { length: 7 },
    (_, group) => ((digest[group * 2]! << 8) | digest[group * 2 + 1]!).toString(16),
  );
  const ip = normalizeIp(`fdcc:${groups.join(":")}`);
  invariant(ip !== undefined, "the derived address parses");
  return ip;
}
