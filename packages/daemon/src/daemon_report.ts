/** What the running daemon tells of itself. Pure. */
import { type DaemonReport, renderVersionSkew } from "@jiji/core/cluster";
import { SCHEMA_VERSION, type ServerRow } from "@jiji/core/corrosion";
import { VERSION } from "@jiji/core/runtime";
import type { ClusterView } from "./state/cluster_view.ts";
import type { CorrosionReport } from "./duties/corrosion.ts";
import type { DutyStats } from "./duty_loop.ts";
import type { Conflict } from "./mesh/peer_reconciler.ts";
import { judgePartition } from "./state/split_brain.ts";

/** Clocks that differ by more are told of, milliseconds: logs and leases of people go by them. */
const CLOCK_AHEAD_MAX_MS = 10_000;
/** So many malformed rows are named, and so many servers that were not let in. */
const NAMED_MAX = 3;

/** What the report is made from. */
export interface ReportSources {
  readonly self: string;
  readonly startedAtMs: number;
  readonly view: Pick<ClusterView, "servers" | "refused" | "heard">;
  /** The mesh's other members: rows may name servers that were never let in. */
  readonly peers: readonly string[];
  /** Servers that were not let in, since others have what they claim. */
  readonly conflicts: readonly Conflict[];
  readonly silent: ReadonlySet<string>;
  readonly standsDown: boolean;
  readonly corrosion: CorrosionReport;
  readonly duties: ReadonlyMap<string, DutyStats>;
}

/** The report. */
export function makeReport(sources: ReportSources): DaemonReport {
  const { self, view, silent, corrosion, standsDown } = sources;
  const known = new Set([self, ...sources.peers]);
  const members = [...view.servers.values()]
    .filter((row) => row.removedAtMs === null && known.has(row.id));
  const partition = judgePartition({ members: sources.peers, self, silent });
  const ahead = [...view.heard].filter(([id]) => id !== self && known.has(id))
    .map(([id, { clockAheadMs }]) => [id, Math.round(clockAheadMs)] as const)
    .sort(([a], [b]) => a < b ? -1 : 1);
  return {
    format: 1,
    version: VERSION,
    started_at_ms: sources.startedAtMs,
    cluster_schema: clusterSchema(members),
    partition,
    stands_down: standsDown,
    malformed_rows: {
      servers: view.refused.servers.size,
      containers: view.refused.containers.size,
    },
    corrosion: {
      answers: corrosion.answers,
      restarts: corrosion.restarts,
      rejoins: corrosion.rejoins,
      members: corrosion.sight?.members?.length ?? null,
      missing_versions: corrosion.sight?.missingVersions ?? null,
      late: [...corrosion.sight?.late ?? []],
      free_bytes: corrosion.freeBytes ?? null,
    },
    clock_ahead_ms: Object.fromEntries(ahead),
    duties: [...sources.duties].map(([name, stats]) => ({
      name,
      runs: stats.runs,
      failures: stats.failures,
      seconds: Math.round(stats.totalMs) / 1_000,
      last_ms: Math.round(stats.lastMs),
      error: stats.error ?? null,
    })),
    notices: [
      ...(standsDown ? ["this server was removed from the cluster: it stands down"] : []),
      ...(partition.partitioned
        ? [`it may be cut off (${partition.reason}): it removes no rows of others until then`]
        : []),
      ...malformedNotices(view),
      ...conflictNotices(sources.conflicts),
      ...corrosion.problems,
      ...clockNotices(ahead),
      ...skewNotices(members),
    ],
  };
}

/**
 * The oldest schema among these servers. A server without a column refuses whole change-sets that
 * touch it, so nobody writes one before every member has it. Source: peers.md 4.2, 4.4.
 */
export function clusterSchema(members: readonly ServerRow[]): number {
  return Math.min(SCHEMA_VERSION, ...members.map((row) => row.doc.schema ?? SCHEMA_VERSION));
}

function malformedNotices(view: ReportSources["view"]): string[] {
  return (["servers", "containers"] as const).flatMap((table) => {
    const rows = [...view.refused[table]];
    if (rows.length === 0) return [];
    const named = rows.slice(0, NAMED_MAX)
      .map(([key, reason]) => `${JSON.stringify(key)} (${reason})`).join(", ");
    const more = rows.length > NAMED_MAX ? ", …" : "";
    const word = rows.length === 1 ? "row" : "rows";
    return [`${rows.length} malformed ${word} in ${table} passed over: ${named}${more}`];
  });
}

function conflictNotices(conflicts: readonly Conflict[]): string[] {
  const more = conflicts.length > NAMED_MAX ? [`${conflicts.length - NAMED_MAX} more`] : [];
  const named = conflicts.slice(0, NAMED_MAX).map(({ serverId, reason }) =>
    `${serverId} (${reason})`
  );
  if (named.length === 0) return [];
  return [
    `not let into the mesh: ${[...named, ...more].join(", ")}. What to do with a copy of a ` +
    "server, jiji server init says; a stranger's row goes with jiji server remove",
  ];
}

function clockNotices(ahead: readonly (readonly [string, number])[]): string[] {
  return ahead.filter(([, ms]) => Math.abs(ms) > CLOCK_AHEAD_MAX_MS).map(([id, ms]) => {
    const seconds = Math.round(Math.abs(ms) / 1_000);
    return `the clock of ${id} is ${seconds} s ${ms > 0 ? "ahead" : "behind"}: is NTP on?`;
  });
}

function skewNotices(members: readonly ServerRow[]): string[] {
  const versions = members.map(({ id, doc }) => ({ server: id, version: doc.version }));
  const skew = renderVersionSkew(VERSION, versions);
  return skew === undefined ? [] : [`${skew}; jiji server init makes them equal`];
}
