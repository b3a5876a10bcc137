/** Which rows the operator may remove with `jiji network gc`, and why. Pure. */
import type { ServerRow, Statement } from "@jiji/core/corrosion";
import { judgePartition } from "./split_brain.ts";

/** A silent server's container is stale after being unhealthy for this long, seconds. */
export const STALE_THRESHOLD_S = 180;
/** All rows of a server are stale after it has been silent for this long, seconds. */
export const OFFLINE_THRESHOLD_S = 600;
/** Reasons are cut to this, characters. */
const REASON_MAX = 100;
/** Rows removed in one transaction. */
const STATEMENTS_MAX = 100;

/** A container as its row's cells say, however malformed the rest of it is. */
export interface ContainerFacts {
  readonly id: unknown;
  readonly name: unknown;
  readonly serverId: unknown;
  readonly unhealthySinceMs: unknown;
  /** Why the row does not parse; undefined when it does. */
  readonly refused: string | undefined;
}

/** A row of `services`. */
export interface ServiceFacts {
  readonly project: unknown;
  readonly name: unknown;
  readonly serverId: unknown;
}

/** What is known. */
export interface StaleInput {
  readonly self: string;
  readonly servers: readonly ServerRow[];
  /** Rows of servers that do not parse: key and reason. */
  readonly malformedServers: readonly { readonly id: unknown; readonly refused: string }[];
  readonly containers: readonly ContainerFacts[];
  readonly services: readonly ServiceFacts[];
  /** Members that do not answer this server's probes. */
  readonly silent: ReadonlySet<string>;
  readonly nowMs: number;
  readonly staleMs: number;
  readonly offlineMs: number;
}

/** A row that may go. */
export interface StaleRow {
  readonly table: "servers" | "containers" | "services";
  readonly row: string;
  readonly server: string;
  readonly reason: string;
  readonly statement: Statement;
}

/** What may go, and why nothing may go now. */
export interface StalePlan {
  readonly rows: readonly StaleRow[];
  readonly refusal: string | undefined;
}

/**
 * Rows that nobody keeps: of removed and unknown servers, malformed ones, and those of servers that
 * have been silent for long. A server that comes back writes its own again. Rows of servers that
 * answer are theirs alone. While this server may be cut off, silence means nothing: all is refused.
 */
export function planStale(input: StaleInput): StalePlan {
  const members = input.servers.filter((row) => row.removedAtMs === null).map((row) => row.id);
  const verdict = judgePartition({ members, self: input.self, silent: input.silent });
  const containers = input.containers.flatMap((facts): StaleRow[] => {
    const reason = facts.refused === undefined
      ? reasonFor(facts, input)
      : `malformed: ${plain(facts.refused)}`;
    if (reason === undefined) return [];
    return [{
      table: "containers",
      row: `${shown(facts.name)} ${shown(facts.id).slice(0, 12)}`,
      server: shown(facts.serverId),
      reason,
      statement: ["DELETE FROM containers WHERE id = ?", [facts.id as string]],
    }];
  });
  const servers = input.malformedServers.map(({ id, refused }): StaleRow => ({
    table: "servers",
    row: shown(id),
    server: shown(id),
    reason: `malformed: ${plain(refused)}`,
    statement: ["DELETE FROM servers WHERE id = ?", [id as string]],
  }));
  const services = input.services.flatMap((facts): StaleRow[] => {
    const reason = reasonFor({ ...facts, unhealthySinceMs: null }, input);
    if (reason === undefined) return [];
    const key = [facts.project, facts.name, facts.serverId] as string[];
    return [{
      table: "services",
      row: `${shown(facts.project)}/${shown(facts.name)}`,
      server: shown(facts.serverId),
      reason,
      statement: ["DELETE FROM services WHERE project = ? AND name = ? AND server_id = ?", key],
    }];
  });
  const order = (a: StaleRow, b: StaleRow) =>
    a.server === b.server ? (a.row < b.row ? -1 : 1) : (a.server < b.server ? -1 : 1);
  return {
    rows: [...servers.sort(order), ...containers.sort(order), ...services.sort(order)],
    refusal: verdict.partitioned
      ? `this server may be cut off (${verdict.reason}): what it does not hear of may live`
      : undefined,
  };
}

function reasonFor(
  facts: { readonly serverId: unknown; readonly unhealthySinceMs: unknown },
  input: StaleInput,
): string | undefined {
  const { nowMs, silent } = input;
  const server = input.servers.find((row) => row.id === facts.serverId);
  if (!server) return "its server is unknown";
  if (server.removedAtMs !== null) return "its server was removed";
  if (!silent.has(server.id)) return undefined;
  const silentMs = nowMs - server.lastSeenMs;
  if (silentMs > input.offlineMs) return `its server was last seen ${seconds(silentMs)} ago`;
  if (typeof facts.unhealthySinceMs !== "number") return undefined;
  const unhealthyMs = nowMs - facts.unhealthySinceMs;
  return unhealthyMs > input.staleMs
    ? `unhealthy for ${seconds(unhealthyMs)}, and its server is silent`
    : undefined;
}

function seconds(durationMs: number): string {
  return `${Math.round(durationMs / 1_000)} s`;
}

/** A cell for people: anyone may have written it. */
function shown(cell: unknown): string {
  const text = typeof cell === "string" ? cell : JSON.stringify(cell) ?? "";
  return /^[\x20-\x7e]*$/.test(text) ? text.slice(0, 60) : JSON.stringify(text.slice(0, 60));
}

/** A reason quotes what was written. */
function plain(reason: string): string {
  return reason.replace(/^[a-z]+ row refused: /, "").replace(/[^\x20-\x7e]/g, "?")
    .slice(0, REASON_MAX);
}

/** The plan as transactions. */
export function staleTransactions(rows: readonly StaleRow[]): Statement[][] {
  return Array.from(
    { length: Math.ceil(rows.length / STATEMENTS_MAX) },
    (_, index) =>
      rows.slice(index * STATEMENTS_MAX, (index + 1) * STATEMENTS_MAX).map((row) => row.statement),
  );
}
