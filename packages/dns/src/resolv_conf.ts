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
