/** Where other servers can reach this one. Pure. */
import * as v from "valibot";
import {
  type Endpoint,
  isInternalInterface,
  isPublicIp,
  normalizeIp,
  parseEndpoint,
  renderEndpoint,
} from "@jiji/core/net";
import type { Argv } from "@jiji/core/runtime";

/** More endpoints than this are not told: peers would try the first ones over and over anyway. */
export const ENDPOINTS_MAX = 12;

/** All interfaces with their addresses and MTU. Source: ip-address(8). */
export const ARGV_ADDRESSES: Argv = ["ip", "-j", "addr", "show"];

/** An interface of this server. */
export interface HostInterface {
  readonly name: string;
  readonly mtu: number;
  /** Canonical addresses of global scope, without temporary and deprecated ones. */
  readonly addresses: readonly string[];
}

const Interfaces = v.array(v.looseObject({
  ifname: v.optional(v.string(), ""),
  mtu: v.optional(v.number(), 0),
  addr_info: v.optional(
    v.array(v.looseObject({
      local: v.optional(v.string(), ""),
      scope: v.optional(v.string(), ""),
      temporary: v.optional(v.boolean(), false),
      deprecated: v.optional(v.boolean(), false),
    })),
    [],
  ),
}));

/** Interfaces in the output of {@link ARGV_ADDRESSES}. @throws {Error} when it is something else. */
export function parseInterfaces(text: string): HostInterface[] {
  const parsed = v.safeParse(Interfaces, JSON.parse(text));
  if (!parsed.success) throw new Error("ip addr: unexpected output");
  return parsed.output.map(({ ifname, mtu, addr_info }) => ({
    name: ifname,
    mtu,
    addresses: addr_info.flatMap(({ local, scope, temporary, deprecated }) => {
      const ip = normalizeIp(local);
      return ip === undefined || scope !== "global" || temporary || deprecated ? [] : [ip];
    }),
  }));
}

/** Addresses that others may reach, in the order of the interfaces. */
export function usableAddresses(interfaces: readonly HostInterface[]): string[] {
  return interfaces.filter(({ name }) => !isInternalInterface(name))
    .flatMap(({ addresses }) => addresses);
}

/** The public address in a source's answer, or undefined: the answer may be anything. */
export function parsePublicAddress(answer: string): string | undefined {
  const ip = normalizeIp(answer.trim().slice(0, 64));
  return ip !== undefined && isPublicIp(ip) ? ip : undefined;
}

/** What is known of this server's addresses. */
export interface OwnAddresses {
  /** Of its own interfaces; undefined while they could not be read. */
  readonly local: readonly string[] | undefined;
  /** As the internet sees it, of either family. */
  readonly seen: readonly string[];
}

/**
 * This server's endpoints, best first: the one the operator reaches it at, as the internet sees it,
 * then its interfaces'. Of those written when it joined the ones that no interface has any more
 * leave; the operator's stays, since it may be a name or lead through a NAT.
 */
export function planEndpoints(
  written: readonly string[],
  known: OwnAddresses,
  port: number,
): string[] {
  const [first, ...rest] = written.flatMap((text) => parseEndpoint(text) ?? []);
  const { local } = known;
  const at = (host: string): Endpoint => ({ host, port });
  const endpoints = [
    ...(first ? [first] : []),
    ...known.seen.map(at),
    ...(local === undefined ? rest : local.map(at)),
  ];
  return [...new Set(endpoints.map(renderEndpoint))].slice(0, ENDPOINTS_MAX);
}

/** Whether something between this server and the internet translates its IPv4 address. */
export function isBehindNat(known: OwnAddresses): boolean | undefined {
  const seen = known.seen.find((ip) => !ip.includes(":"));
  if (seen === undefined || known.local === undefined) return undefined;
  return !known.local.includes(seen);
}
