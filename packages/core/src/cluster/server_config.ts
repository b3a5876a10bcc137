import * as v from "valibot";
import { parseCidr } from "../net/ip.ts";
import { normalizeIp } from "../net/ip.ts";
import { SERVER_NAME } from "./names.ts";

const CidrText = v.pipe(
  v.string(),
  v.check((text) => parseCidr(text) !== undefined, "not an IPv4 network"),
);
const IpText = v.pipe(
  v.string(),
  v.check((text) => normalizeIp(text) === text, "not an address"),
);
const Port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535));

/**
 * Who is asked for this server's address as the internet sees it. Source: the services' own pages;
 * each answers with nothing but the address.
 */
export const PUBLIC_IP_SOURCES: readonly string[] = [
  "https://api.ipify.org",
  "https://ipv4.icanhazip.com",
  "https://ipinfo.io/ip",
  "https://api6.ipify.org",
  "https://ipv6.icanhazip.com",
];

/** Shape of `/etc/jiji/server.json`: what this server is, decided once when it joined. */
export const ServerConfigSchema = v.object({
  format: v.literal(1),
  /** Name of the server in the configuration; also its row id and instance name. */
  server_id: v.pipe(v.string(), v.regex(SERVER_NAME)),
  engine: v.picklist(["docker", "podman"]),
  cluster_cidr: CidrText,
  /** This server's block; its first address is the server's own. */
  block: CidrText,
  management_ip: v.pipe(v.string(), v.check((ip) => normalizeIp(ip) === ip, "not canonical")),
  wireguard_public_key: v.string(),
  wireguard_port: Port,
  /** `ip:port` texts where other servers reach WireGuard, best first. */
  endpoints: v.array(v.string()),
  /**
   * URLs that answer the caller's own address in plain text; the first valid answer counts. Absent:
   * {@link PUBLIC_IP_SOURCES}; empty: nobody is asked.
   */
  public_ip_sources: v.optional(
    v.pipe(v.array(v.pipe(v.string(), v.regex(/^https?:\/\/[!-~]{1,200}$/))), v.maxLength(8)),
  ),
  /** Resolvers that are asked for names of a domain, instead of the host's. Absent: none. */
  dns_forward: v.optional(v.record(v.string(), v.array(IpText))),
  service_domain: v.pipe(v.string(), v.regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/)),
});

/** This server's place in the cluster. */
export type ServerConfig = v.InferOutput<typeof ServerConfigSchema>;

/**
 * The configuration in `text`.
 *
 * @throws {Error} naming the first field that is wrong.
 */
export function parseServerConfig(text: string): ServerConfig {
  const parsed = v.safeParse(ServerConfigSchema, JSON.parse(text));
  if (parsed.success) return parsed.output;
  const issue = parsed.issues[0];
  throw new Error(`server.json: ${v.getDotPath(issue) ?? "top level"}: ${issue.message}`);
}
