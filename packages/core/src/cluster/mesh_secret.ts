import { isWireguardKey } from "../net/management_ip.ts";
import { Secret } from "../runtime/secret.ts";

/**
 * The secret that all servers of a cluster share, from which the preshared key of each pair is made:
 * 32 bytes in base64. WireGuard mixes it into every handshake, so that what is recorded today stays
 * unreadable even to whoever can break its curve some day. Source: the WireGuard paper, section 5.2.
 */
export type MeshSecret = Secret;

/** The secret in the text of a file, or undefined when there is none. */
export function parseMeshSecret(text: string): MeshSecret | undefined {
  const word = text.trim();
  return isWireguardKey(word) ? new Secret(word) : undefined;
}

/** A new secret from 32 random bytes. */
export function makeMeshSecret(random: Uint8Array): MeshSecret {
  return new Secret(btoa(String.fromCharCode(...random.subarray(0, 32))));
}

function bytesOf(secret: MeshSecret): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(secret.reveal()), (character) => character.charCodeAt(0));
}

async function hmac(secret: MeshSecret, text: string): Promise<Uint8Array> {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", bytesOf(secret), algorithm, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(text)));
}

/** Name of a secret that tells nothing of it: servers with the same name have the same secret. */
export async function meshSecretId(secret: MeshSecret): Promise<string> {
  const bytes = await hmac(secret, "jiji: name of the mesh secret");
  return [...bytes.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * The preshared key of two servers, the same on both, whoever asks. It depends on their names and not
 * on their WireGuard keys, so that these can change one at a time.
 */
export async function pairKey(secret: MeshSecret, a: string, b: string): Promise<Secret> {
  const names = [a, b].sort().join(" ");
  const bytes = await hmac(secret, `jiji: preshared key of ${names}`);
  return new Secret(btoa(String.fromCharCode(...bytes)));
}
