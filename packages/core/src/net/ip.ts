import ipaddr from "ipaddr.js";
import { JijiError } from "../runtime/errors.ts";

/** An IPv4 network: `base` is the first address as an unsigned 32-bit number. */
export interface Cidr {
  readonly base: number;
  /** Prefix length, 0–32. */
  readonly prefix: number;
}

/** Results kept of a function of one text: a daemon asks for the same addresses again and again. */
const REMEMBERED_MAX = 4_096;

/** The same function, which does not work out again what it was asked lately. */
function remembered<Result>(work: (text: string) => Result): (text: string) => Result {
  const known = new Map<string, Result>();
  return (text) => {
    const before = known.get(text);
    if (before !== undefined || known.has(text)) return before as Result;
    const result = work(text);
    if (known.size >= REMEMBERED_MAX) known.clear();
    if (text.length <= 64) known.set(text, result);
    return result;
  };
}

/**
 * Number of a dotted-quad IPv4 address, or undefined when `text` is not one (no short forms, no
 * leading zeros). By hand: daemons and resolvers read addresses all the time.
 */
export function parseIpv4(text: string): number | undefined {
  let value = 0;
  let octet = -1;
  let dots = 0;
  for (let at = 0; at < text.length; at++) {
    const digit = text.charCodeAt(at) - ZERO;
    if (digit >= 0 && digit <= 9) {
      if (octet === 0) return undefined;
      octet = octet < 0 ? digit : octet * 10 + digit;
      if (octet > 255) return undefined;
    } else {
      if (text[at] !== "." || octet < 0) return undefined;
      value = value * 256 + octet;
      octet = -1;
      dots += 1;
    }
  }
  return dots === 3 && octet >= 0 ? value * 256 + octet : undefined;
}

const ZERO = 48;

/** Dotted quad of an unsigned 32-bit number. */
export function renderIpv4(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

/** A network in CIDR notation, or undefined when `text` is not one or has host bits set. */
export const parseCidr: (text: string) => Cidr | undefined = remembered((text) => {
  const slash = text.indexOf("/");
  const base = slash < 0 ? undefined : parseIpv4(text.slice(0, slash));
  const length = text.slice(slash + 1);
  const prefix = /^\d{1,2}$/.test(length) ? Number(length) : Infinity;
  if (base === undefined || prefix > 32) return undefined;
  return base % 2 ** (32 - prefix) === 0 ? { base, prefix } : undefined;
});

/** CIDR notation of a network. */
export function renderCidr(cidr: Cidr): string {
  return `${renderIpv4(cidr.base)}/${cidr.prefix}`;
}

/** How many addresses a network has. */
export function cidrSize(cidr: Cidr): number {
  return 2 ** (32 - cidr.prefix);
}

/** Whether the network holds this address. */
export function cidrHas(cidr: Cidr, address: number): boolean {
  return address >= cidr.base && address < cidr.base + cidrSize(cidr);
}

/** Whether two networks share any address. */
export function cidrsOverlap(a: Cidr, b: Cidr): boolean {
  return a.base < b.base + cidrSize(b) && b.base < a.base + cidrSize(a);
}

/** Address number `index` of a network (0 is the network's own address). */
export function cidrAddress(cidr: Cidr, index: number): string {
  return renderIpv4(cidr.base + index);
}

/**
 * The server's own address inside its block: the first after the network address. The bridge, the
 * WireGuard interface and jiji-dns all answer there.
 */
export function serverAddress(block: Cidr): string {
  return cidrAddress(block, 1);
}

/**
 * The lowest block of `blockPrefix` inside `cluster` that overlaps none of `taken`. Pass the blocks
 * of every server row ever written, tombstones included, so that an address is never given twice.
 *
 * @throws {JijiError} when the cluster is full.
 */
export function allocateBlock(cluster: Cidr, blockPrefix: number, taken: readonly Cidr[]): Cidr {
  const step = 2 ** (32 - blockPrefix);
  for (let base = cluster.base; base < cluster.base + cidrSize(cluster); base += step) {
    const block = { base, prefix: blockPrefix };
    if (!taken.some((other) => cidrsOverlap(block, other))) return block;
  }
  throw new JijiError(
    `${renderCidr(cluster)} is full: all ${cidrSize(cluster) / step} blocks of /${blockPrefix} ` +
      "have been given out",
    { hint: "choose a larger network.cluster_cidr for a new cluster" },
  );
}

/** The proxy's pinned address: the second of the server's block. */
export function proxyAddress(block: Cidr): string {
  return cidrAddress(block, 2);
}

/**
 * An address of a block for a new container: the one after the highest in use, so that an address
 * just given back is not another service's while answers with it are still cached; the lowest free
 * one when the end is reached. Never the network, server, proxy or broadcast address, never one of
 * `taken` (dotted quads).
 *
 * @throws {JijiError} when the block has no address left.
 */
export function allocateContainerAddress(block: Cidr, taken: ReadonlySet<string>): string {
  const first = 3;
  const last = cidrSize(block) - 2;
  let next = first;
  for (let index = last; index >= first; index--) {
    if (!taken.has(cidrAddress(block, index))) continue;
    next = index + 1;
    break;
  }
  const count = last - first + 1;
  for (let step = 0; step < count; step++) {
    const address = cidrAddress(block, first + (next - first + step) % count);
    if (!taken.has(address)) return address;
  }
  throw new JijiError(`block ${renderCidr(block)} has no container address left`);
}

/**
 * Hardware address of whatever has an IPv4 address, locally administered: who has the address next
 * has the same, so that no neighbour looks for it where the one before was. Source: IEEE 802-2014,
 * section 8.4 (bit 1 of the first octet).
 */
export function macOf(address: string): string {
  const octets = [0x02, 0x6a, ...renderIpv4(parseIpv4(address) ?? 0).split(".").map(Number)];
  return octets.map((octet) => octet.toString(16).padStart(2, "0")).join(":");
}

/** Canonical text of an IPv4 or IPv6 address for comparing, or undefined when it is neither. */
export function normalizeIp(text: string): string | undefined {
  const ipv4 = parseIpv4(text);
  return ipv4 === undefined ? normalizeIpv6(text) : renderIpv4(ipv4);
}

const normalizeIpv6 = remembered((text) =>
  ipaddr.IPv6.isValid(text) && !text.includes("%")
    ? ipaddr.IPv6.parse(text).toRFC5952String()
    : undefined
);

/** Canonical text of an IPv4 or IPv6 prefix (a bare address counts as one host), or undefined. */
export const normalizePrefix: (text: string) => string | undefined = remembered((text) => {
  const [address = "", length, ...rest] = text.trim().split("/");
  const ip = normalizeIp(address);
  if (ip === undefined || rest.length > 0) return undefined;
  const max = ip.includes(":") ? 128 : 32;
  if (length === undefined) return `${ip}/${max}`;
  return /^\d{1,3}$/.test(length) && Number(length) <= max ? `${ip}/${Number(length)}` : undefined;
});
