import {
  CONTAINER_COLUMNS,
  containerCells,
  type ContainerRow,
  SERVER_COLUMNS,
  serverCells,
  type ServerRow,
  type SqlValue,
} from "./rows.ts";

/** A statement with bound parameters; values never become SQL text. */
export type Statement = readonly [sql: string, params: readonly SqlValue[]];

/**
 * All servers, tombstones included. Daemon and dns use this very text, so that Corrosion keeps one
 * subscription for both (each distinct text costs a file and memory; peers.md 4.2).
 */
export const SELECT_SERVERS: Statement = [`SELECT ${SERVER_COLUMNS} FROM servers`, []];

/** All containers; see {@link SELECT_SERVERS}. */
export const SELECT_CONTAINERS: Statement = [`SELECT ${CONTAINER_COLUMNS} FROM containers`, []];

/**
 * Writes a server's own row. It leaves `removed_at` alone: a daemon cannot bring itself back after
 * the operator has removed it.
 */
export function upsertServer(row: Omit<ServerRow, "removedAtMs">): Statement {
  return [
    `INSERT INTO servers (id, hostname, subnet, wireguard_ip, wireguard_pubkey, management_ip,
      endpoints, last_seen, doc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET hostname = excluded.hostname, subnet = excluded.subnet,
      wireguard_ip = excluded.wireguard_ip, wireguard_pubkey = excluded.wireguard_pubkey,
      management_ip = excluded.management_ip, endpoints = excluded.endpoints,
      last_seen = excluded.last_seen, doc = excluded.doc`,
    serverCells(row),
  ];
}

/** Marks a server as removed, for ever unless it is added again; the first moment stays. */
export function tombstoneServer(id: string, removedAtMs: number): Statement {
  const sql = "UPDATE servers SET removed_at = ? WHERE id = ? AND removed_at IS NULL";
  return [sql, [removedAtMs, id]];
}

/** Takes back a server's tombstone; the operator's word only, when a removed server is added again. */
export function reviveServer(id: string): Statement {
  return ["UPDATE servers SET removed_at = NULL WHERE id = ?", [id]];
}

/** Heartbeat of a server's own row, Unix ms. */
export function touchServer(id: string, lastSeenMs: number): Statement {
  return ["UPDATE servers SET last_seen = ? WHERE id = ?", [lastSeenMs, id]];
}

/** Writes a container's row; only the daemon of `row.serverId` does. */
export function upsertContainer(row: ContainerRow): Statement {
  return [
    `INSERT INTO containers (id, project, service, server_id, instance_id, name, version, ip,
      ports, started_at, health_status, unhealthy_since)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET project = excluded.project, service = excluded.service,
      server_id = excluded.server_id, instance_id = excluded.instance_id, name = excluded.name,
      version = excluded.version, ip = excluded.ip, ports = excluded.ports,
      started_at = excluded.started_at, health_status = excluded.health_status,
      unhealthy_since = excluded.unhealthy_since`,
    containerCells(row),
  ];
}

/** Removes a container's row; only its own server's daemon does. */
export function deleteContainer(id: string, serverId: string): Statement {
  return ["DELETE FROM containers WHERE id = ? AND server_id = ?", [id, serverId]];
}

/** Says that this server runs (project, service); written by that server's daemon. */
export function upsertService(
  key: { readonly project: string; readonly service: string },
  serverId: string,
): Statement {
  return [
    "INSERT INTO services (project, name, server_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    [key.project, key.service, serverId],
  ];
}
