/** `jiji-daemon servers`: adding a server to the cluster and listing those it has. */
import * as v from "valibot";
import { blockHolders, parsePeerSeeds, type PeerSeed, SERVER_PATHS } from "@jiji/core/cluster";
import {
  type CorrosionApi,
  parseServerRow,
  reviveServer,
  SELECT_SERVERS,
  type ServerRow,
  tombstoneServer,
  upsertServer,
} from "@jiji/core/corrosion";
import type { Files } from "../daemon_context.ts";
import { PEER_CACHE_FILE } from "../duties/topology.ts";
import {
  parseRemovedServers,
  parseRevivals,
  recordRevival,
  REMOVED_FILE,
  rowOfSeed,
  SELECT_REVIVALS,
} from "../state/removed_servers.ts";
import { cidrsOverlap, normalizeIp, parseCidr, serverAddress } from "@jiji/core/net";
import { type Clock, JijiError, UsageError, waitFor } from "@jiji/core/runtime";

/** What joins: a peer with its host name. */
const NewcomerSchema = v.looseObject({ hostname: v.optional(v.string(), "") });

/** Corrosion gets this long to show the row that was written, milliseconds. */
const SHOWN_TIMEOUT_MS = 5_000;

/**
 * The row of a newcomer, described as JSON: a `PeerSeed` with `hostname`.
 *
 * @throws {UsageError} when the text is not that.
 */
export function parseNewcomer(text: string, nowMs: number): Omit<ServerRow, "removedAtMs"> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new UsageError("standard input is not JSON");
  }
  const seed = parsePeerSeeds(JSON.stringify({ format: 1, peers: [json] }))[0];
  const newcomer = v.safeParse(NewcomerSchema, json);
  const block = seed && parseCidr(seed.block);
  const managementIp = seed && normalizeIp(seed.management_ip);
  if (!seed || !block || managementIp === undefined || !newcomer.success) {
    throw new UsageError(
      "standard input is not a server: it needs server_id, public_key, block, " +
        "management_ip, endpoints and hostname",
    );
  }
  return {
    id: seed.server_id,
    hostname: newcomer.output.hostname.replace(/[^A-Za-z0-9._-]/g, "-").slice(0, 253),
    subnet: seed.block,
    wireguardIp: serverAddress(block),
    wireguardPubkey: seed.public_key,
    managementIp,
    endpoints: seed.endpoints,
    lastSeenMs: nowMs,
    doc: seed.psk === undefined ? {} : { psk: seed.psk },
  };
}

/** Why a newcomer cannot join beside these servers, or undefined when it can. */
export function newcomerConflict(
  newcomer: Pick<ServerRow, "id" | "subnet" | "wireguardPubkey">,
  rows: readonly ServerRow[],
): string | undefined {
  const block = parseCidr(newcomer.subnet);
  const others = rows.filter((row) => row.id !== newcomer.id);
  const holders = new Set(blockHolders(rows));
  for (const row of others) {
    const other = holders.has(row) ? parseCidr(row.subnet) : undefined;
    if (block && other && cidrsOverlap(block, other)) {
      return `block ${newcomer.subnet} overlaps ${row.subnet} of ${row.id}`;
    }
    if (row.removedAtMs === null && row.wireguardPubkey === newcomer.wireguardPubkey) {
      return `its WireGuard key is that of ${row.id}`;
    }
  }
  return undefined;
}

/**
 * Writes the newcomer's row, taking back an earlier removal, and waits until it can be read.
 *
 * @throws {JijiError} when it conflicts with another server or cannot be read back.
 */
export async function addServer(
  newcomer: Omit<ServerRow, "removedAtMs">,
  ports: { readonly api: CorrosionApi; readonly clock: Clock },
): Promise<void> {
  const rows = await listServers(ports.api);
  const reason = newcomerConflict(newcomer, rows);
  if (reason !== undefined) throw new JijiError(`server ${newcomer.id} cannot join: ${reason}`);
  const removedAtMs = rows.find((row) => row.id === newcomer.id)?.removedAtMs ?? null;
  const earlier = parseRevivals(await ports.api.query(SELECT_REVIVALS)).get(newcomer.id) ?? [];
  await ports.api.execute([
    upsertServer(newcomer),
    reviveServer(newcomer.id),
    ...(removedAtMs === null ? [] : [recordRevival(newcomer.id, { removedAtMs, earlier })]),
  ]);
  const shown = await waitFor(async () => {
    const row = (await listServers(ports.api)).find((one) => one.id === newcomer.id);
    return row?.wireguardPubkey === newcomer.wireguardPubkey ? row : undefined;
  }, { clock: ports.clock, timeoutMs: SHOWN_TIMEOUT_MS, everyMs: 50 });
  if (!shown) throw new JijiError(`corrosion took the row of ${newcomer.id} but does not show it`);
}

/**
 * Marks a server as removed, on the operator's word: the others drop it from their mesh. One that has
 * no row, because every database was lost while it was off, gets one from what peers remember of it.
 *
 * @param removal the moment, Unix ms; now unless another member was told before.
 * @returns when it was removed, Unix ms, and whether it was a member until now.
 * @throws {UsageError} when no server has this name; {JijiError} when it cannot be read back.
 */
export async function removeServer(
  removal: { readonly id: string; readonly atMs?: number | undefined },
  ports: { readonly api: CorrosionApi; readonly clock: Clock; readonly files: Files },
): Promise<{ readonly removedAtMs: number; readonly wasMember: boolean }> {
  const { id, atMs = ports.clock.nowMs() } = removal;
  const written = (await listServers(ports.api)).find((one) => one.id === id);
  const row = written ?? await rememberedServer(id, ports.files);
  if (row === undefined) throw new UsageError(`the cluster has no server ${id}`);
  if (row.removedAtMs !== null) return { removedAtMs: row.removedAtMs, wasMember: false };
  await ports.api.execute([...(written ? [] : [upsertServer(row)]), tombstoneServer(id, atMs)]);
  const shown = await waitFor(async () => {
    const now = (await listServers(ports.api)).find((one) => one.id === id);
    return now?.removedAtMs ?? undefined;
  }, { clock: ports.clock, timeoutMs: SHOWN_TIMEOUT_MS, everyMs: 50 });
  if (!shown) throw new JijiError(`corrosion was told that ${id} left but does not show it`);
  return { removedAtMs: shown, wasMember: true };
}

/** A server without a row, by the daemon's own files: that it was removed, or how peers reach it. */
async function rememberedServer(id: string, files: Files): Promise<ServerRow | undefined> {
  const removed = parseRemovedServers(await files.read(REMOVED_FILE) ?? "");
  const seed = (await readPeerFiles(files)).findLast((one) => one.server_id === id);
  return removed.find((one) => one.id === id) ?? (seed && rowOfSeed(seed, null));
}

/** Peers in the daemon's files; what was learned last comes last. */
export async function readPeerFiles(files: Files): Promise<PeerSeed[]> {
  const texts = await Promise.all([files.read(SERVER_PATHS.peerSeed), files.read(PEER_CACHE_FILE)]);
  return texts.flatMap((text) => parsePeerSeeds(text ?? ""));
}

/** Every server's row, tombstones included; malformed ones are left out. */
export async function listServers(api: CorrosionApi): Promise<ServerRow[]> {
  return (await api.query(SELECT_SERVERS)).flatMap((cells) => {
    const row = parseServerRow(cells);
    return "refused" in row ? [] : [row];
  }).sort((a, b) => a.id < b.id ? -1 : 1);
}

/** The list for a person. */
export function renderServers(rows: readonly ServerRow[]): string {
  return rows.map((row) =>
    `${row.id} ${row.subnet} ${row.managementIp} ${row.endpoints.join(",") || "-"}` +
    (row.removedAtMs === null ? "" : " (removed)")
  ).join("\n");
}
