/** `jiji-daemon db` and `gc`: reading the state as this server has it, and tidying it. */
import {
  parseLiveness,
  type QueryResult,
  SERVER_PATHS,
  type ServerConfig,
  silentServers,
  type StaleRows,
  type StateStats,
} from "@jiji/core/cluster";
import {
  CONTAINER_COLUMNS,
  CORROSION_TIMEOUT_MS,
  type CorrosionAddress,
  type CorrosionApi,
  CorrosionError,
  parseContainerRow,
  parseServerRow,
  queryTable,
  SCHEMA_VERSION,
  SELECT_CONTAINERS,
  SELECT_SERVERS,
} from "@jiji/core/corrosion";
import { type Clock, isOk, type Process, UsageError } from "@jiji/core/runtime";
import { parseMembers } from "../state/corrosion_health.ts";
import type { Files } from "../daemon_context.ts";
import { type ContainerFacts, planStale, staleTransactions } from "../state/stale_rows.ts";
import { listServers } from "./servers.ts";

/** A query shows at most so many rows. */
export const QUERY_ROWS_MAX = 1_000;
/** Corrosion's own programs answer within this, milliseconds. */
const CLI_TIMEOUT_MS = 10_000;

const CORROSION = `${SERVER_PATHS.bin}/corrosion`;

/**
 * Runs one read-only statement. What may begin one is checked here, what it does by Corrosion.
 *
 * @throws {UsageError} for anything that does not only read, is wrong or takes too long;
 * {CorrosionError} when it fails.
 */
export async function queryState(
  sql: string,
  address: CorrosionAddress,
  { timeoutMs }: { readonly timeoutMs: number } = { timeoutMs: CORROSION_TIMEOUT_MS },
): Promise<QueryResult> {
  if (!/^\s*(select|with|values|explain)\b/i.test(sql)) {
    throw new UsageError("only a statement that reads is run: SELECT, WITH, VALUES or EXPLAIN", {
      hint: "the state has one writer a row, the server it is about; see jiji network gc",
    });
  }
  try {
    return await queryTable(address, [sql, []], { rowsMax: QUERY_ROWS_MAX, timeoutMs });
  } catch (error) {
    if (error instanceof CorrosionError && !error.isCut) throw new UsageError(error.message);
    // It began to answer: another server would be kept busy in vain as well.
    if (error instanceof DOMException && error.name === "TimeoutError") {
      throw new UsageError(
        `the statement takes longer than ${timeoutMs / 1_000} s, and Corrosion may be ` +
          "busy with it for some minutes yet",
        { hint: "ask for less: a WHERE, a LIMIT, no join without a condition" },
      );
    }
    throw error;
  }
}

/** Ports of the commands. */
export interface StatePorts {
  readonly config: ServerConfig | undefined;
  readonly api: CorrosionApi;
  readonly process: Process;
}

const COUNT_ROWS = `SELECT 'cluster_metadata', count(*) FROM cluster_metadata
  UNION ALL SELECT 'servers', count(*) FROM servers
  UNION ALL SELECT 'services', count(*) FROM services
  UNION ALL SELECT 'containers', count(*) FROM containers`;

/** What can be counted; tables of Corrosion's own may be missing in another build of it. */
export async function collectStats({ config, api, process }: StatePorts): Promise<StateStats> {
  const number = async (sql: string) => {
    const cell = await api.query([sql, []]).then((rows) => rows[0]?.[0], () => null);
    return typeof cell === "number" ? cell : null;
  };
  const cli = async (...args: readonly string[]) => {
    const result = await process.run([CORROSION, ...args], { timeoutMs: CLI_TIMEOUT_MS });
    return isOk(result) ? result.stdout : undefined;
  };
  const [counts, servers, bytes, missing, heads, members, version] = await Promise.all([
    api.query([COUNT_ROWS, []]),
    listServers(api),
    number("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"),
    number('SELECT coalesce(sum("end" - start + 1), 0) FROM __corro_bookkeeping_gaps'),
    api.query(["SELECT hex(site_id), db_version FROM crsql_db_versions", []]).catch(() => null),
    cli("-c", SERVER_PATHS.corrosionConfig, "cluster", "members"),
    cli("--version"),
  ]);
  return {
    format: 1,
    server_id: config?.server_id ?? null,
    corrosion: version?.trim() ?? null,
    schema: SCHEMA_VERSION,
    rows: Object.fromEntries(counts.map(([table, count]) => [String(table), Number(count)])),
    removed_servers: servers.filter((row) => row.removedAtMs !== null).map((row) => row.id),
    database_bytes: bytes,
    members: members === undefined ? null : parseMembers(members).length,
    missing_versions: missing,
    heads: heads &&
      Object.fromEntries(heads.map(([site, head]) => [String(site), Number(head)])),
  };
}

/** How stale rows are told, and whether they go. */
export interface CollectOptions {
  readonly config: ServerConfig;
  readonly api: CorrosionApi;
  readonly files: Files;
  readonly clock: Clock;
  readonly staleMs: number;
  readonly offlineMs: number;
  readonly force: boolean;
}

/** Finds stale rows and, when told and allowed, removes them. */
export async function collectStale(options: CollectOptions): Promise<StaleRows> {
  const { config, api, files, clock, force } = options;
  const nowMs = clock.nowMs();
  const [serverCells, containers, services, liveness] = await Promise.all([
    api.query(SELECT_SERVERS),
    api.query(SELECT_CONTAINERS),
    api.query(["SELECT project, name, server_id FROM services", []]),
    files.read(SERVER_PATHS.liveness),
  ]);
  const parsed = serverCells.map((cells) => ({ id: cells[0], row: parseServerRow(cells) }));
  const report = parseLiveness(liveness ?? "");
  const plan = planStale({
    self: config.server_id,
    servers: parsed.flatMap(({ row }) => "refused" in row ? [] : [row]),
    malformedServers: parsed.flatMap(({ id, row }) =>
      "refused" in row ? [{ id, refused: row.refused }] : []
    ),
    containers: containers.map(containerFacts),
    services: services.map(([project, name, serverId]) => ({ project, name, serverId })),
    silent: silentServers(report, nowMs),
    nowMs,
    staleMs: options.staleMs,
    offlineMs: options.offlineMs,
  });
  // Without a report everybody would count as alive, and nobody could say who is cut off.
  const refusal = report ? plan.refusal : "jiji-daemon does not run here: nobody knows who answers";
  const removed = force && refusal === undefined && plan.rows.length > 0;
  if (removed) {
    for (const statements of staleTransactions(plan.rows)) await api.execute(statements);
  }
  return {
    format: 1,
    server_id: config.server_id,
    refusal: refusal ?? null,
    rows: plan.rows.map(({ table, row, server, reason }) => ({ table, row, server, reason })),
    removed,
  };
}

const COLUMNS = CONTAINER_COLUMNS.split(", ");

function containerFacts(cells: readonly unknown[]): ContainerFacts {
  const cell = (column: string) => cells[COLUMNS.indexOf(column)];
  const row = parseContainerRow(cells);
  return {
    id: cell("id"),
    name: cell("name"),
    serverId: cell("server_id"),
    unhealthySinceMs: cell("unhealthy_since"),
    refused: "refused" in row ? row.refused : undefined,
  };
}
