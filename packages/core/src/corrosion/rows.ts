import * as v from "valibot";
import { PROJECT_NAME, SERVER_NAME, SERVICE_NAME } from "../cluster/names.ts";
import type { PeerSeed } from "../cluster/peer_seed.ts";
import { normalizeIp, parseCidr, parseIpv4 } from "../net/ip.ts";
import { parseEndpoint } from "../net/endpoint.ts";
import { isWireguardKey } from "../net/management_ip.ts";
import { parseServerDoc, renderServerDoc, type ServerDoc } from "./server_doc.ts";

export { parseServerDoc, renderServerDoc, type ServerDoc } from "./server_doc.ts";

/** A value of SQLite as Corrosion's JSON has it. */
export type SqlValue = string | number | null;

/** States of a container: `starting` has not been healthy yet, `degraded` failed once or twice. */
export const HEALTH_STATUSES = ["starting", "healthy", "degraded", "unhealthy"] as const;

/** State of a container in `containers.health_status`. */
export type HealthStatus = (typeof HEALTH_STATUSES)[number];

/** A server as its own daemon describes it. Parsed: every field is safe to use. */
export interface ServerRow {
  readonly id: string;
  readonly hostname: string;
  /** The server's block, CIDR notation. */
  readonly subnet: string;
  readonly wireguardIp: string;
  readonly wireguardPubkey: string;
  readonly managementIp: string;
  /** `ip:port`, best first. */
  readonly endpoints: readonly string[];
  /** Heartbeat, Unix ms by the server's own clock. */
  readonly lastSeenMs: number;
  /** Further facts; empty when the server told none. */
  readonly doc: ServerDoc;
  /** Tombstone, Unix ms; null while the server belongs to the cluster. */
  readonly removedAtMs: number | null;
}

/** A container as the daemon of its server describes it. Parsed. */
export interface ContainerRow {
  readonly id: string;
  readonly project: string;
  readonly service: string;
  readonly serverId: string;
  readonly instance: string;
  readonly name: string;
  readonly version: string;
  readonly ip: string;
  /** `3000/tcp`. */
  readonly ports: readonly string[];
  /** Unix ms. */
  readonly startedAtMs: number;
  readonly health: HealthStatus;
  readonly unhealthySinceMs: number | null;
}

/** Columns that {@link parseServerRow} expects, in order. */
export const SERVER_COLUMNS: string =
  "id, hostname, subnet, wireguard_ip, wireguard_pubkey, management_ip, endpoints, last_seen, " +
  "doc, removed_at";

/** Columns that {@link parseContainerRow} expects, in order. */
export const CONTAINER_COLUMNS: string =
  "id, project, service, server_id, instance_id, name, version, ip, ports, started_at, health_status, unhealthy_since";

const Instant = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(8.64e15));
const Ipv4 = v.pipe(v.string(), v.check((text) => parseIpv4(text) !== undefined));
const ContainerName = v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,200}$/));

function jsonList(isItem: (item: string) => boolean) {
  return v.pipe(
    v.string(),
    v.maxLength(8_192),
    v.rawTransform<string, string[]>(({ dataset, addIssue, NEVER }) => {
      try {
        const list: unknown = JSON.parse(dataset.value);
        if (Array.isArray(list)) {
          return list.filter((item): item is string => typeof item === "string" && isItem(item));
        }
      } catch {
        // Not JSON: reported below.
      }
      addIssue({ message: "not a JSON list" });
      return NEVER;
    }),
  );
}

const ServerTuple = v.tuple([
  v.pipe(v.string(), v.regex(SERVER_NAME)),
  v.pipe(v.string(), v.regex(/^[A-Za-z0-9._-]{0,253}$/)),
  v.pipe(v.string(), v.check((text) => parseCidr(text) !== undefined)),
  Ipv4,
  v.pipe(v.string(), v.check(isWireguardKey)),
  v.pipe(v.string(), v.check((ip) => ip.includes(":") && normalizeIp(ip) !== undefined)),
  jsonList((item) => parseEndpoint(item) !== undefined),
  Instant,
  v.string(),
  v.nullable(Instant),
]);

const ContainerTuple = v.tuple([
  v.pipe(v.string(), v.regex(/^[a-f0-9]{12,64}$/)),
  v.pipe(v.string(), v.regex(PROJECT_NAME)),
  v.pipe(v.string(), v.regex(SERVICE_NAME)),
  v.pipe(v.string(), v.regex(SERVER_NAME)),
  v.pipe(v.string(), v.regex(/^[a-z0-9-]{0,63}$/)),
  ContainerName,
  // Shown as it is: nothing that a terminal would obey.
  v.pipe(v.string(), v.maxLength(200), v.regex(/^[^\p{Cc}]*$/u)),
  Ipv4,
  jsonList((item) => /^\d{1,5}\/(tcp|udp)$/.test(item)),
  Instant,
  v.picklist(HEALTH_STATUSES),
  v.nullable(Instant),
]);

/** The server in these cells ({@link SERVER_COLUMNS}), or the reason why they are refused. */
export function parseServerRow(
  cells: readonly unknown[],
): ServerRow | { readonly refused: string } {
  const parsed = v.safeParse(ServerTuple, cells);
  if (!parsed.success) return { refused: refusal("servers", SERVER_COLUMNS, parsed.issues[0]) };
  const [id, hostname, subnet, wireguardIp, wireguardPubkey, managementIp, endpoints, seen] =
    parsed.output;
  const doc = parseServerDoc(parsed.output[8]);
  return {
    id,
    hostname,
    subnet,
    wireguardIp,
    wireguardPubkey: doc.key ?? wireguardPubkey,
    managementIp: doc.identity ?? normalizeIp(managementIp) ?? managementIp,
    endpoints,
    lastSeenMs: seen,
    doc,
    removedAtMs: parsed.output[9],
  };
}

/** The container in these cells ({@link CONTAINER_COLUMNS}), or why they are refused. */
export function parseContainerRow(
  cells: readonly unknown[],
): ContainerRow | { readonly refused: string } {
  const parsed = v.safeParse(ContainerTuple, cells);
  if (!parsed.success) {
    return { refused: refusal("containers", CONTAINER_COLUMNS, parsed.issues[0]) };
  }
  const [id, project, service, serverId, instance, name, version, ip, ports, started, health, bad] =
    parsed.output;
  return {
    id,
    project,
    service,
    serverId,
    instance,
    name,
    version,
    ip,
    ports,
    startedAtMs: started,
    health,
    unhealthySinceMs: bad,
  };
}

/** Cells of a server in the order of {@link SERVER_COLUMNS}, all but its tombstone. */
export function serverCells(row: Omit<ServerRow, "removedAtMs">): SqlValue[] {
  return [
    row.id,
    row.hostname,
    row.subnet,
    row.wireguardIp,
    row.wireguardPubkey,
    row.managementIp,
    JSON.stringify(row.endpoints),
    row.lastSeenMs,
    renderServerDoc(row.doc),
  ];
}

/** Cells of a container in the order of {@link CONTAINER_COLUMNS}: undoes {@link parseContainerRow}. */
export function containerCells(row: ContainerRow): SqlValue[] {
  return [
    row.id,
    row.project,
    row.service,
    row.serverId,
    row.instance,
    row.name,
    row.version,
    row.ip,
    JSON.stringify(row.ports),
    row.startedAtMs,
    row.health,
    row.unhealthySinceMs,
  ];
}

/** Names the column and quotes what is in it; others than characters to print are left out. */
function refusal(table: string, columns: string, issue: v.BaseIssue<unknown>): string {
  const index = Number(issue.path?.[0]?.key ?? -1);
  const column = columns.split(", ")[index] ?? "row";
  const found = issue.received.replace(/[^\x20-\x7e]/g, "?").slice(0, 60);
  return `${table} row refused: ${column} can't be ${found}`;
}

/** The server of a row as files name it, for a start without Corrosion. */
export function seedOfRow(row: ServerRow): PeerSeed {
  const { psk, next_key } = row.doc;
  return {
    server_id: row.id,
    public_key: row.wireguardPubkey,
    block: row.subnet,
    management_ip: row.managementIp,
    endpoints: [...row.endpoints],
    ...(psk === undefined ? {} : { psk }),
    ...(next_key === undefined ? {} : { next_key }),
  };
}
