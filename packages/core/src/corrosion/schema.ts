/** Version of the tables; a change is additive and raises it (see docs/architecture.md). */
export const SCHEMA_VERSION = 1;

/** Name of the schema file in Corrosion's schema folder. */
export const SCHEMA_FILE = "jiji.sql";

/**
 * The tables. One writer per row: a server's rows are written by that server's jiji-daemon alone.
 * Corrosion's rules (peers.md 4.2): primary keys NOT NULL, every other NOT NULL column has a
 * default, nothing unique but the key, no foreign keys. `doc` is JSON for later additions, so that
 * new facts need no new column (a node without a column refuses whole change-sets).
 */
export const SCHEMA_SQL: string = `-- jiji schema version ${SCHEMA_VERSION}
CREATE TABLE cluster_metadata (
  key TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL DEFAULT ''
);

CREATE TABLE servers (
  id TEXT NOT NULL PRIMARY KEY,
  hostname TEXT NOT NULL DEFAULT '',
  subnet TEXT NOT NULL DEFAULT '',
  wireguard_ip TEXT NOT NULL DEFAULT '',
  wireguard_pubkey TEXT NOT NULL DEFAULT '',
  management_ip TEXT NOT NULL DEFAULT '',
  endpoints TEXT NOT NULL DEFAULT '[]',
  last_seen INTEGER NOT NULL DEFAULT 0,
  removed_at INTEGER,
  doc TEXT NOT NULL DEFAULT '{}'
);

CREATE TABLE services (
  project TEXT NOT NULL,
  name TEXT NOT NULL,
  server_id TEXT NOT NULL,
  doc TEXT NOT NULL DEFAULT '{}',
  PRIMARY KEY (project, name, server_id)
);

CREATE TABLE containers (
  id TEXT NOT NULL PRIMARY KEY,
  project TEXT NOT NULL DEFAULT '',
  service TEXT NOT NULL DEFAULT '',
  server_id TEXT NOT NULL DEFAULT '',
  instance_id TEXT NOT NULL DEFAULT '',
  name TEXT NOT NULL DEFAULT '',
  version TEXT NOT NULL DEFAULT '',
  ip TEXT NOT NULL DEFAULT '',
  ports TEXT NOT NULL DEFAULT '[]',
  started_at INTEGER NOT NULL DEFAULT 0,
  health_status TEXT NOT NULL DEFAULT 'starting',
  unhealthy_since INTEGER,
  doc TEXT NOT NULL DEFAULT '{}'
);

CREATE INDEX servers_last_seen ON servers (last_seen);
CREATE INDEX containers_server_id ON containers (server_id);
CREATE INDEX containers_service ON containers (project, service);
`;
