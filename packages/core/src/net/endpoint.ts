import { normalizeIp } from "./ip.ts";

/** Where a peer listens. */
export interface Endpoint {
  /** Canonical IPv4 or IPv6 address, or a host name. */
  readonly host: string;
  readonly port: number;
}

/** Host names as RFC 1123 section 2.1 has them, with at least one letter. */
const HOST_NAME =
  /^(?=.{1,253}$)(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i;

/** `1.2.3.4:51820`, `[2001:db8::1]:51820` or `name:51820`; undefined for anything else. */
export function parseEndpoint(text: string): Endpoint | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^[\]:]+)):(\d{1,5})$/i.exec(text);
  const port = Number(match?.[3]);
  const address = match?.[1] ?? match?.[2];
  if (address === undefined || !(port >= 1 && port <= 65535)) return undefined;
  const ip = normalizeIp(address);
  if (ip !== undefined) {
    return ip.includes(":") === (match?.[1] !== undefined) ? { host: ip, port } : undefined;
  }
  return match?.[1] === undefined && HOST_NAME.test(address)
    ? { host: address.toLowerCase(), port }
    : undefined;
}

/** Text form; IPv6 addresses get their brackets. */
export function renderEndpoint(endpoint: Endpoint): string {
  const host = endpoint.host.includes(":") ? `[${endpoint.host}]` : endpoint.host;
  return `${host}:${endpoint.port}`;
}
