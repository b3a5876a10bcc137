/** Which rows of other servers may be removed. Pure. */
import type { ContainerRow, ServerRow } from "@jiji/core/corrosion";
import { judgePartition } from "./split_brain.ts";

/** Rows outlive their server's tombstone by this long, milliseconds: it may be added again. */
export const COLLECT_AFTER_MS = 10 * 60_000;
/** Rows removed in one run. */
export const COLLECT_MAX = 100;

/** What the collector knows. */
export interface CollectionInput {
  readonly self: string;
  /** The mesh's members, this server included: rows may name others that were never let in. */
  readonly members: readonly string[];
  readonly servers: Iterable<ServerRow>;
  readonly containers: Iterable<ContainerRow>;
  readonly silent: ReadonlySet<string>;
  readonly nowMs: number;
}

/** What it decided, with the reason. */
export interface CollectionPlan {
  readonly deletes: readonly { readonly id: string; readonly serverId: string }[];
  readonly reason: string;
}

/**
 * Container rows of servers that the operator removed. Nothing else is ever collected: silence and
 * age are no evidence. One server does it, the first by name of those that answer, and none while it
 * may be cut off.
 */
export function planCollection(input: CollectionInput): CollectionPlan {
  const servers = [...input.servers];
  const { members } = input;
  const verdict = judgePartition({ members, self: input.self, silent: input.silent });
  if (verdict.partitioned) return { deletes: [], reason: `cut off: ${verdict.reason}` };
  const collector = members.filter((id) => id === input.self || !input.silent.has(id)).sort()[0];
  if (collector !== input.self) {
    return { deletes: [], reason: `${collector ?? "nobody"} collects` };
  }
  const gone = new Set(
    servers.filter((row) =>
      row.removedAtMs !== null && input.nowMs - row.removedAtMs >= COLLECT_AFTER_MS
    ).map((row) => row.id),
  );
  const deletes = [...input.containers]
    .filter((row) => gone.has(row.serverId))
    .map((row) => ({ id: row.id, serverId: row.serverId }))
    .sort((a, b) => a.id < b.id ? -1 : 1)
    .slice(0, COLLECT_MAX);
  return { deletes, reason: verdict.reason };
}
