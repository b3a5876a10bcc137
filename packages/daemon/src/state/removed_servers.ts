/**
 * What this server remembers of servers that the operator removed, so that no loss of Corrosion's
 * databases takes one of them back. Pure.
 */
import * as v from "valibot";
import { parsePeerSeeds, type PeerSeed, SERVER_PATHS } from "@jiji/core/cluster";
import {
  type ServerRow,
  type Statement,
  tombstoneServer,
  upsertServer,
} from "@jiji/core/corrosion";
import { parseCidr, serverAddress } from "@jiji/core/net";

/** File of the daemon's memory of removed servers. */
export const REMOVED_FILE: string = `${SERVER_PATHS.daemonState}/removed.json`;

/** More removed servers are not remembered; the oldest go first. */
export const REMOVED_MAX = 500;

/** The state must have been whole for this long before a lost tombstone is written again, ms. */
export const RESTORE_AFTER_MS = 60_000;

/** Prefix of the keys in `cluster_metadata` under which a removal is taken back. */
const REVIVED = "revived/";

const FileSchema = v.object({
  format: v.literal(1),
  servers: v.array(v.looseObject({ removed_at_ms: v.number() })),
});

/** Removed servers in the file's text; malformed ones are left out, other text gives none. */
export function parseRemovedServers(text: string): ServerRow[] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return [];
  }
  const parsed = v.safeParse(FileSchema, json);
  if (!parsed.success) return [];
  return parsed.output.servers.flatMap(({ removed_at_ms: removedAtMs, ...rest }) => {
    const seed = parsePeerSeeds(JSON.stringify({ format: 1, peers: [rest] }))[0];
    return seed ? [rowOfSeed(seed, removedAtMs)] : [];
  });
}

/** The row of a server of which no more is known than what peers are told of each other. */
export function rowOfSeed(seed: PeerSeed, removedAtMs: number | null): ServerRow {
  return {
    id: seed.server_id,
    hostname: "",
    subnet: seed.block,
    wireguardIp: serverAddress(parseCidr(seed.block)!),
    wireguardPubkey: seed.public_key,
    managementIp: seed.management_ip,
    endpoints: seed.endpoints,
    lastSeenMs: 0,
    doc: seed.psk === undefined ? {} : { psk: seed.psk },
    removedAtMs,
  };
}

/** The file's text; equal servers give equal text. */
export function renderRemovedServers(servers: readonly ServerRow[]): string {
  const sorted = [...servers].sort((a, b) => a.id < b.id ? -1 : 1);
  return JSON.stringify(
    {
      format: 1,
      servers: sorted.map((row) => ({
        server_id: row.id,
        public_key: row.wireguardPubkey,
        block: row.subnet,
        management_ip: row.managementIp,
        endpoints: row.endpoints,
        ...(row.doc.psk === undefined ? {} : { psk: row.doc.psk }),
        removed_at_ms: row.removedAtMs,
      })),
    },
    null,
    2,
  ) + "\n";
}

/** The rows, and what is remembered of servers that have none. */
export function withRemembered(
  rows: Iterable<ServerRow>,
  removed: readonly ServerRow[],
): ServerRow[] {
  const all = new Map(removed.map((row) => [row.id, row]));
  for (const row of rows) all.set(row.id, row);
  return [...all.values()];
}

/** Rows beside what is remembered. */
export interface MemoryInput {
  readonly self: string;
  readonly removed: readonly ServerRow[];
  readonly rows: ReadonlyMap<string, ServerRow>;
  /** Removals that were taken back, by server: when they had been. */
  readonly revived: ReadonlyMap<string, readonly number[]>;
  /** Whether the state has been whole and the cluster together for {@link RESTORE_AFTER_MS}. */
  readonly settled: boolean;
}

/** What to remember from now on, and the tombstones to write again. */
export interface MemoryPlan {
  readonly removed: readonly ServerRow[];
  readonly writes: readonly Statement[];
}

/**
 * Learns removals from rows, forgets those that were taken back, and restores those that the state
 * lost. A row without tombstone whose removal is remembered is one of a server that was added again
 * when it has another key or its removal was taken back; otherwise the state was lost and the server
 * wrote itself. When that is not sure, nothing is written.
 */
export function planMemory(input: MemoryInput): MemoryPlan {
  const removed = new Map<string, ServerRow>();
  const writes: Statement[] = [];
  for (const known of input.removed) {
    const row = input.rows.get(known.id);
    const revived = input.revived.get(known.id);
    if (row && row.removedAtMs !== null) continue;
    if (revived?.includes(known.removedAtMs ?? 0)) continue;
    if (row && row.wireguardPubkey !== known.wireguardPubkey) continue;
    removed.set(known.id, known);
    const isSelf = known.id === input.self;
    // Of itself a server knows it for sure, and has nobody to ask.
    if (isSelf && row) writes.push(tombstoneServer(known.id, known.removedAtMs ?? 0));
    if (!input.settled || revived !== undefined || isSelf) continue;
    if (!row) writes.push(upsertServer(known));
    writes.push(tombstoneServer(known.id, known.removedAtMs ?? 0));
  }
  for (const row of input.rows.values()) if (row.removedAtMs !== null) removed.set(row.id, row);
  const newest = [...removed.values()]
    .sort((a, b) => (b.removedAtMs ?? 0) - (a.removedAtMs ?? 0) || (a.id < b.id ? -1 : 1))
    .slice(0, REMOVED_MAX);
  return { removed: newest, writes };
}

/** Servers whose removal is remembered while their row says nothing of it. */
export function doubtful(input: Pick<MemoryInput, "removed" | "rows">): string[] {
  return input.removed.filter((row) => (input.rows.get(row.id)?.removedAtMs ?? null) === null)
    .map((row) => row.id);
}

/** Which removals were taken back; see {@link parseRevivals}. */
export const SELECT_REVIVALS: Statement = [
  "SELECT key, value FROM cluster_metadata WHERE key LIKE ?",
  [`${REVIVED}%`],
];

/** Removals taken back, by server, in rows of {@link SELECT_REVIVALS}. */
export function parseRevivals(rows: readonly (readonly unknown[])[]): Map<string, number[]> {
  const revived = new Map<string, number[]>();
  for (const [key, value] of rows) {
    if (typeof key !== "string" || typeof value !== "string") continue;
    const times = value.split(",").map(Number).filter(Number.isFinite);
    revived.set(key.slice(REVIVED.length), times);
  }
  return revived;
}

/** So many removals of one server are known as taken back. */
const REVIVALS_MAX = 20;

/** Says that a removal was taken back, for daemons that remember it. */
export function recordRevival(
  id: string,
  o: { readonly removedAtMs: number; readonly earlier: readonly number[] },
): Statement {
  const times = [...new Set([...o.earlier, o.removedAtMs])].slice(-REVIVALS_MAX);
  return [
    "INSERT INTO cluster_metadata (key, value) VALUES (?, ?) " +
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    [`${REVIVED}${id}`, times.join(",")],
  ];
}
