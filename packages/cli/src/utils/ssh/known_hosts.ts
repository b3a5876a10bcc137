import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { dirname } from "node:path";

/** One line of a known_hosts file. Source: sshd(8), section SSH_KNOWN_HOSTS FILE FORMAT. */
export interface KnownHost {
  readonly file: string;
  /** 1-based. */
  readonly line: number;
  readonly revoked: boolean;
  /** Comma-separated patterns, or `|1|salt|hash`. */
  readonly hosts: string;
  /** E.g. `ssh-ed25519`. */
  readonly keyType: string;
  /** The key in base64. */
  readonly key: string;
}

/** A host key as a server presents it. */
export interface PresentedKey {
  readonly host: string;
  readonly port: number;
  /** Wire form. Source: RFC 4253 section 6.6. */
  readonly blob: Uint8Array;
}

/** What the files say of a presented key. */
export type HostKeyVerdict =
  | { readonly kind: "known" }
  | { readonly kind: "unknown" }
  | { readonly kind: "changed" | "revoked"; readonly entry: KnownHost };

/** Entries of a known_hosts file. Lines that are not entries, and certificate authorities, are
 * left out: we do not negotiate host certificates. Pure. */
export function parseKnownHosts(text: string, file: string): KnownHost[] {
  return text.split(/\r?\n/).flatMap((line, index) => {
    const words = line.trim().split(/\s+/);
    const marker = words[0]?.startsWith("@") ? words.shift() : undefined;
    const [hosts, keyType, key] = words;
    if (hosts === undefined || hosts.startsWith("#") || keyType === undefined) return [];
    if (key === undefined || !/^[A-Za-z0-9+/]+=*$/.test(key)) return [];
    if (marker !== undefined && marker !== "@revoked") return [];
    return [{ file, line: index + 1, revoked: marker === "@revoked", hosts, keyType, key }];
  });
}

/** How a host is written in known_hosts: `name`, or `[name]:port` when the port is not 22. */
export function knownHostName(host: string, port: number): string {
  return port === 22 ? host.toLowerCase() : `[${host.toLowerCase()}]:${port}`;
}

/** Whether an entry speaks of a host written as {@link knownHostName} does. Pure. */
export function entryMatches(entry: KnownHost, name: string): boolean {
  if (entry.hosts.startsWith("|1|")) return hashedNameMatches(entry.hosts, name);
  let matched = false;
  for (const pattern of entry.hosts.toLowerCase().split(",")) {
    if (pattern.startsWith("!")) {
      if (patternMatches(pattern.slice(1), name)) return false;
    } else if (patternMatches(pattern, name)) matched = true;
  }
  return matched;
}

/**
 * Types of the keys recorded for a host, in the order of the files. When there are any, only these
 * may be offered: a server with several keys must not look as if its key had changed. Pure.
 */
export function recordedKeyTypes(
  entries: readonly KnownHost[],
  at: { readonly host: string; readonly port: number },
): string[] {
  const name = knownHostName(at.host, at.port);
  const types = entries.filter((entry) => !entry.revoked && entryMatches(entry, name))
    .map((entry) => entry.keyType);
  return [...new Set(types)];
}

/**
 * Judges a presented key. Any recorded key for the host that differs counts as a change, also of
 * another type: else whoever sits in between would only need a key of a type we have not seen.
 * As ssh(1) does, a key recorded for the name without port counts for other ports too. Pure.
 */
export function judgeHostKey(
  entries: readonly KnownHost[],
  presented: PresentedKey,
): HostKeyVerdict {
  const { host, port, blob } = presented;
  const key = toBase64(blob);
  const same = (entry: KnownHost) => stripPadding(entry.key) === stripPadding(key);
  const plain = knownHostName(host, 22);
  const here = entries.filter((entry) => entryMatches(entry, knownHostName(host, port)));
  const nearby = entries.filter((entry) => entryMatches(entry, plain));
  const revoked = [...here, ...nearby].find((entry) => entry.revoked && same(entry));
  if (revoked !== undefined) return { kind: "revoked", entry: revoked };
  const recorded = here.filter((entry) => !entry.revoked);
  if (recorded.some(same)) return { kind: "known" };
  const changed = recorded.find((entry) => entry.keyType === keyTypeOf(blob)) ?? recorded[0];
  if (changed !== undefined) return { kind: "changed", entry: changed };
  return nearby.some((entry) => !entry.revoked && same(entry))
    ? { kind: "known" }
    : { kind: "unknown" };
}

/** Type of a key in wire form, e.g. `ssh-ed25519`; empty when it is malformed. */
export function keyTypeOf(blob: Uint8Array): string {
  if (blob.length < 4) return "";
  const length = new DataView(blob.buffer, blob.byteOffset).getUint32(0);
  const type = new TextDecoder().decode(blob.subarray(4, 4 + Math.min(length, 64)));
  return /^[\w@.-]+$/.test(type) ? type : "";
}

/** `SHA256:…` as ssh-keygen(1) -l prints it. */
export function fingerprint(key: Uint8Array | string): string {
  const bytes = typeof key === "string" ? Uint8Array.from(atob(key), byteOf) : key;
  return `SHA256:${stripPadding(createHash("sha256").update(bytes).digest("base64"))}`;
}

/** The line that records a key. Pure. */
export function renderKnownHost(presented: PresentedKey): string {
  const { host, port, blob } = presented;
  return `${knownHostName(host, port)} ${keyTypeOf(blob)} ${toBase64(blob)}\n`;
}

/** Entries of every file that exists, in order. */
export async function readKnownHosts(files: readonly string[]): Promise<KnownHost[]> {
  const entries = await Promise.all(files.map(async (file) => {
    try {
      return parseKnownHosts(await Deno.readTextFile(file), file);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  }));
  return entries.flat();
}

/**
 * Adds a key with one appending write, so that two programs do not mix their lines. The file is
 * made with 0600, its folder with 0700.
 */
export function recordHostKey(file: string, presented: PresentedKey): void {
  Deno.mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  const line = renderKnownHost(presented);
  using handle = Deno.openSync(file, { read: true, append: true, create: true, mode: 0o600 });
  const { size } = handle.statSync();
  let lead = "";
  if (size > 0) {
    const last = new Uint8Array(1);
    handle.seekSync(-1, Deno.SeekMode.End);
    handle.readSync(last);
    if (last[0] !== 0x0a) lead = "\n";
  }
  handle.writeSync(new TextEncoder().encode(lead + line));
}

function hashedNameMatches(hashed: string, name: string): boolean {
  const [, , salt = "", hash = ""] = hashed.split("|");
  const expected = Uint8Array.from(safeAtob(hash), byteOf);
  const actual = createHmac("sha1", Uint8Array.from(safeAtob(salt), byteOf)).update(name).digest();
  return expected.length === actual.length && timingSafeEqual(expected, actual);
}

function patternMatches(pattern: string, name: string): boolean {
  const source = pattern.split("").map((character) =>
    character === "*"
      ? ".*"
      : character === "?"
      ? "."
      : character.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")
  ).join("").replace(/(\.\*)+/g, ".*");
  return new RegExp(`^${source}$`).test(name);
}

function safeAtob(text: string): string {
  try {
    return atob(text);
  } catch {
    return "";
  }
}

function byteOf(character: string): number {
  return character.charCodeAt(0);
}

function toBase64(bytes: Uint8Array): string {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

function stripPadding(base64: string): string {
  return base64.replace(/=+$/, "");
}
