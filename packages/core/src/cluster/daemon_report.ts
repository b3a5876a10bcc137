import * as v from "valibot";

/** Shape of a {@link DaemonReport}. */
export const DaemonReportSchema = v.object({
  format: v.literal(1),
  version: v.string(),
  started_at_ms: v.number(),
  /** The oldest schema that a member's daemon knows: columns of later ones must not be written. */
  cluster_schema: v.number(),
  /** Whether it may be cut off from most of the cluster: then it removes no rows of others. */
  partition: v.object({ partitioned: v.boolean(), reason: v.string() }),
  /** Whether the operator removed this server. */
  stands_down: v.boolean(),
  /** Rows that do not parse, by table. */
  malformed_rows: v.record(v.string(), v.number()),
  corrosion: v.object({
    answers: v.boolean(),
    restarts: v.number(),
    rejoins: v.number(),
    /** Other members that it gossips with; null when it does not tell. */
    members: v.nullable(v.number()),
    /** Versions of other servers' rows that it knows it lacks; null when it does not tell. */
    missing_versions: v.nullable(v.number()),
    /** Servers that answer probes but whose rows are late. */
    late: v.array(v.string()),
    free_bytes: v.nullable(v.number()),
  }),
  /** Clocks of other servers less this one's, milliseconds, as their heartbeats show them. */
  clock_ahead_ms: v.record(v.string(), v.number()),
  duties: v.array(v.object({
    name: v.string(),
    runs: v.number(),
    failures: v.number(),
    /** All runs together, seconds. */
    seconds: v.number(),
    last_ms: v.number(),
    /** Why the last run failed; null when it did not. */
    error: v.nullable(v.string()),
  })),
  /** What an operator should know, one sentence each; nothing here stops a server from serving. */
  notices: v.array(v.string()),
});

/** What the running jiji-daemon knows of itself, told on its status port. */
export type DaemonReport = v.InferOutput<typeof DaemonReportSchema>;

/**
 * The report in `text`.
 *
 * @throws {Error} naming the first field that is wrong.
 */
export function parseDaemonReport(text: string): DaemonReport {
  const parsed = v.safeParse(DaemonReportSchema, JSON.parse(text));
  if (parsed.success) return parsed.output;
  const issue = parsed.issues[0];
  throw new Error(`report of jiji-daemon: ${v.getDotPath(issue) ?? "top level"}: ${issue.message}`);
}
