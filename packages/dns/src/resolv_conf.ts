/** Reading resolv.conf. Pure. Source: resolv.conf(5). */
import { normalizeIp } from "@jiji/core/net";

/** No more are asked for one query; glibc itself stops at three. */
export const RESOLVERS_MAX = 3;

/**
 * Addresses of the resolvers in `text`, in order, without `own` addresses: forwarding to ourselves
 * would never end.
 */
export function parseResolvConf(text: string, own: ReadonlySet<string>): string[] {
  const found: string[] = [];
  for (const line of text.split("\n")) {
    const match = /^\s*nameserver\s+(\S+)/.exec(line);
    const ip = match?.[1] === undefined ? undefined : normalizeIp(match[1]);
    if (ip !== undefined && !own.has(ip) && !found.includes(ip)) found.push(ip);
  }
  return found.slice(0, RESOLVERS_MAX);
}

/** Resolvers of some domains, by domain in lower case. */
export type SplitZones = Readonly<Record<string, readonly string[]>>;

/**
 * The resolvers that answer for `name`: those of the longest domain it lies in. Undefined where
 * none is set, and the host's own resolvers are asked.
 */
export function splitResolvers(name: string, zones: SplitZones): readonly string[] | undefined {
  for (let rest = name; rest !== "";) {
    if (Object.hasOwn(zones, rest)) return zones[rest];
    const dot = rest.indexOf(".");
    rest = dot < 0 ? "" : rest.slice(dot + 1);
  }
  return undefined;
}
