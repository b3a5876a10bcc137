import * as v from "valibot";
import { parseReport } from "./parse_report.ts";

const StateStatsSchema = v.object({
  format: v.literal(1),
  server_id: v.nullable(v.string()),
  /** What its Corrosion calls itself, e.g. `klukai 0.1.4`; null when it does not tell. */
  corrosion: v.nullable(v.string()),
  /** `SCHEMA_VERSION` of its jiji-daemon. */
  schema: v.number(),
  /** Rows by table. */
  rows: v.record(v.string(), v.number()),
  /** Servers that were removed, among the rows of `servers`. */
  removed_servers: v.array(v.string()),
  database_bytes: v.nullable(v.number()),
  /** Other members that it gossips with; null when it does not tell. */
  members: v.nullable(v.number()),
  /** Versions of others' rows that it knows it lacks; null when it does not tell. */
  missing_versions: v.nullable(v.number()),
  /** Last version of each writer that it has, by the writer's id; null when it does not tell. */
  heads: v.nullable(v.record(v.string(), v.number())),
});

/** What `jiji-daemon db stats` prints: the state as one server has it. */
export type StateStats = v.InferOutput<typeof StateStatsSchema>;

/**
 * The statistics in `text`.
 *
 * @throws {Error} naming the first field that is wrong.
 */
export function parseStateStats(text: string): StateStats {
  return parseReport(text, { schema: StateStatsSchema, name: "jiji-daemon db stats" });
}

const QueryResultSchema = v.object({
  columns: v.array(v.string()),
  rows: v.array(v.array(v.unknown())),
  /** Whether there were more rows than are shown. */
  cut: v.boolean(),
});

/** What `jiji-daemon db query` prints. */
export type QueryResult = v.InferOutput<typeof QueryResultSchema>;

/**
 * The result in `text`.
 *
 * @throws {Error} naming the first field that is wrong.
 */
export function parseQueryResult(text: string): QueryResult {
  return parseReport(text, { schema: QueryResultSchema, name: "jiji-daemon db query" });
}

const StaleRowsSchema = v.object({
  format: v.literal(1),
  server_id: v.string(),
  /** Why nothing may be removed now; null when something may. */
  refusal: v.nullable(v.string()),
  rows: v.array(v.object({
    table: v.picklist(["servers", "containers", "services"]),
    /** Short text that names the row for people. */
    row: v.string(),
    server: v.string(),
    reason: v.string(),
  })),
  /** Whether they were removed. */
  removed: v.boolean(),
});

/** What `jiji-daemon gc` prints. */
export type StaleRows = v.InferOutput<typeof StaleRowsSchema>;

/**
 * The stale rows in `text`.
 *
 * @throws {Error} naming the first field that is wrong.
 */
export function parseStaleRows(text: string): StaleRows {
  return parseReport(text, { schema: StaleRowsSchema, name: "jiji-daemon gc" });
}
