import { type ParsedKey, utils } from "ssh2";
import type { Secret } from "@jiji/core/runtime";

/** A private key that can be used, or why it can't. */
export type KeyOutcome =
  | { readonly ok: true; readonly key: ParsedKey }
  | { readonly ok: false; readonly reason: string };

/** Bytes of a private scalar by curve. Source: SEC 1 v2.0 section C.4, SEC 2 v2.0 section 2. */
const SCALAR_BYTES: Readonly<Record<string, number>> = {
  "ecdsa-sha2-nistp256": 32,
  "ecdsa-sha2-nistp384": 48,
  "ecdsa-sha2-nistp521": 66,
};

/** Parses a private key in OpenSSH or PEM form. The reason never quotes the key. Pure. */
export function parsePrivateKey(text: string, passphrase: Secret | undefined): KeyOutcome {
  const parsed = utils.parseKey(text, passphrase?.reveal());
  if (parsed instanceof Error) return { ok: false, reason: reasonOf(parsed, passphrase) };
  const key = Array.isArray(parsed) ? parsed[0] as ParsedKey | undefined : parsed;
  if (key === undefined || !key.isPrivateKey()) {
    return { ok: false, reason: "it is not a private key" };
  }
  return { ok: true, key: withExactScalar(key) };
}

function reasonOf(error: Error, passphrase: Secret | undefined): string {
  const { message } = error;
  if (/no passphrase given/i.test(message)) return "it is encrypted; set key_passphrase";
  if (passphrase !== undefined && /integrity|bad passphrase|decrypt/i.test(message)) {
    return "key_passphrase does not open it";
  }
  return /unsupported key format|malformed/i.test(message)
    ? "it is not a private key in OpenSSH or PEM form (PKCS#8 is not supported)"
    : message.slice(0, 120);
}

/**
 * ssh2 hands on an ECDSA scalar as the multiple-precision integer that OpenSSH stores: one zero
 * octet longer when its top bit is set, shorter when it starts with zeros. The runtime's parser
 * takes exactly the curve's size only, so half of all P-256 keys failed.
 */
function withExactScalar(key: ParsedKey): ParsedKey {
  const bytes = SCALAR_BYTES[key.type];
  const pem = bytes === undefined ? undefined : key.getPrivatePEM();
  if (bytes === undefined || typeof pem !== "string") return key;
  const exact = rewriteScalar(pem, bytes);
  const parsed = exact === undefined ? undefined : utils.parseKey(exact);
  return parsed === undefined || parsed instanceof Error ? key : parsed;
}

/**
 * An EC private key in PEM with its scalar padded or cut to `bytes`; undefined when the text is
 * not one. Source: RFC 5915 section 3. Pure.
 */
export function rewriteScalar(pem: string, bytes: number): string | undefined {
  const match = /-----BEGIN EC PRIVATE KEY-----([\s\S]+)-----END EC PRIVATE KEY-----/.exec(pem);
  if (match?.[1] === undefined) return undefined;
  const der = Uint8Array.from(
    atob(match[1].replace(/\s/g, "")),
    (character) => character.charCodeAt(0),
  );
  const outer = readElement(der, 0);
  const version = outer && readElement(der, outer.start);
  const scalar = version && readElement(der, version.end);
  if (outer?.tag !== 0x30 || version?.tag !== 0x02 || scalar?.tag !== 0x04) return undefined;
  const value = der.subarray(scalar.start, scalar.end);
  const firstDigit = value.findIndex((byte) => byte !== 0);
  const digits = firstDigit < 0 ? value.subarray(value.length) : value.subarray(firstDigit);
  if (digits.length > bytes) return undefined;
  const padded = new Uint8Array(bytes);
  padded.set(digits, bytes - digits.length);
  const body = concat([
    der.subarray(outer.start, version.end),
    element(0x04, padded),
    der.subarray(scalar.end, outer.end),
  ]);
  const base64 = btoa(String.fromCharCode(...element(0x30, body)));
  const lines = base64.match(/.{1,64}/g) ?? [];
  return `-----BEGIN EC PRIVATE KEY-----\n${lines.join("\n")}\n-----END EC PRIVATE KEY-----\n`;
}

interface DerElement {
  readonly tag: number;
  /** Of the content. */
  readonly start: number;
  readonly end: number;
}

/** Source: ITU-T X.690 section 8.1. Lengths over 65,535 do not occur in keys. */
function readElement(der: Uint8Array, at: number): DerElement | undefined {
  const tag = der[at];
  const first = der[at + 1];
  if (tag === undefined || first === undefined) return undefined;
  const lengthBytes = first < 0x80 ? 0 : first - 0x80;
  if (lengthBytes > 2) return undefined;
  const length = lengthBytes === 0
    ? first
    : der.subarray(at + 2, at + 2 + lengthBytes).reduce((sum, byte) => sum * 256 + byte, 0);
  const start = at + 2 + lengthBytes;
  return start + length <= der.length ? { tag, start, end: start + length } : undefined;
}

function element(tag: number, content: Uint8Array): Uint8Array {
  const { length } = content;
  const header = length < 0x80
    ? [tag, length]
    : length < 0x100
    ? [tag, 0x81, length]
    : [tag, 0x82, length >> 8, length & 0xff];
  return concat([Uint8Array.from(header), content]);
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
