/** Whether Corrosion has the others' rows, and what to do when it has not. Pure. */

/** Corrosion may be silent this long before it is restarted, milliseconds. */
export const CORROSION_SILENT_MS = 30_000;

/** What Corrosion says of its own replication. */
export interface ReplicationLook {
  /** Identities (IPv6) of the other members it gossips with; undefined when it does not tell. */
  readonly members: readonly string[] | undefined;
  /** Versions of other servers' rows that it knows it lacks; undefined when it does not tell. */
  readonly missingVersions: number | undefined;
}

/** How far this server's state is from the others'. */
export interface ReplicationSight extends ReplicationLook {
  /** Members of the cluster that answer this server's probes. */
  readonly answering: readonly string[];
  /** Those of them whose heartbeats are late. */
  readonly late: readonly string[];
}

/** What is remembered between two looks. Monotonic milliseconds. */
export interface ReplicationHealth {
  /** Since when this server is alone with its state although others answer. */
  readonly apartSinceMs: number | undefined;
  /** Remedies since then. */
  readonly remedies: number;
  readonly remediedAtMs: number | undefined;
}

/** Before the first look. */
export const REPLICATION_UNSEEN: ReplicationHealth = {
  apartSinceMs: undefined,
  remedies: 0,
  remediedAtMs: undefined,
};

/** Corrosion gets this long to find the others by itself, milliseconds. */
export const APART_MS = 60_000;

/** Pauses between two remedies, milliseconds: each is twice the one before, up to the last. */
export const REMEDY_PAUSE_MS = { first: 60_000, max: 1_200_000 } as const;

/** Why this server's state is apart from the others', or undefined when it is not. */
export function reasonApart(sight: ReplicationSight): string | undefined {
  if (sight.answering.length === 0) return undefined;
  if (sight.members?.length === 0) {
    return `corrosion knows no other member, although ${sight.answering.length} answer probes`;
  }
  // Late rows of some are those servers' trouble; only late rows of all are ours.
  if (sight.late.length === sight.answering.length) {
    return `no heartbeat of ${sight.late.join(", ")} came in time, although they answer probes`;
  }
  return undefined;
}

/** The state after a look, and what to do: join anew first, restart when that did not help. */
export function judgeReplication(
  state: ReplicationHealth,
  look: { readonly reason: string | undefined; readonly nowMs: number },
): { readonly state: ReplicationHealth; readonly remedy: "rejoin" | "restart" | undefined } {
  if (look.reason === undefined) return { state: REPLICATION_UNSEEN, remedy: undefined };
  const apartSinceMs = state.apartSinceMs ?? look.nowMs;
  const pauseMs = Math.min(
    REMEDY_PAUSE_MS.first * 2 ** Math.max(0, state.remedies - 1),
    REMEDY_PAUSE_MS.max,
  );
  const due = look.nowMs - apartSinceMs >= APART_MS &&
    (state.remediedAtMs === undefined || look.nowMs - state.remediedAtMs >= pauseMs);
  if (!due) return { state: { ...state, apartSinceMs }, remedy: undefined };
  return {
    state: { apartSinceMs, remedies: state.remedies + 1, remediedAtMs: look.nowMs },
    remedy: state.remedies % 2 === 0 ? "rejoin" : "restart",
  };
}

/** Identities in the output of `corrosion cluster members`: JSON objects, one after another. */
export function parseMembers(text: string): string[] {
  return [...text.matchAll(/"addr":\s*"\[([0-9a-f:.]+)\]:\d+"/g)].map((match) => match[1]!);
}

/** A server's state needs at least this much room to stay writable, octets. */
export const DISK_FREE_MIN = 256 * 1024 * 1024;

/** Free and whole octets in the output of `df --output=avail,size -B1 FOLDER`. */
export function parseDiskSpace(
  text: string,
): { readonly freeBytes: number; readonly totalBytes: number } | undefined {
  const [free, total] = (text.trim().split("\n").at(-1) ?? "").trim().split(/\s+/).map(Number);
  if (!Number.isFinite(free) || !Number.isFinite(total)) return undefined;
  return { freeBytes: free!, totalBytes: total! };
}
