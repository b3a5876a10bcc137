/** What this daemon writes about its own server. Pure. */
import type { ServerConfig } from "@jiji/core/cluster";
import {
  SCHEMA_VERSION,
  serverCells,
  type ServerDoc,
  type ServerRow,
  type Statement,
  touchServer,
  upsertServer,
} from "@jiji/core/corrosion";
import { VERSION } from "@jiji/core/runtime";
import { parseCidr, serverAddress } from "@jiji/core/net";

/** A server's heartbeat is never faster, milliseconds: it is for people, liveness has its own. */
export const HEARTBEAT_EVERY_MS = 10_000;

/** Heartbeats of a whole cluster each second at most: every one travels to every server. */
export const HEARTBEATS_PER_SECOND_MAX = 5;

/** Pause between two heartbeats of one server in a cluster of this size, milliseconds. */
export function heartbeatEveryMs(members: number): number {
  return Math.max(HEARTBEAT_EVERY_MS, Math.ceil(members * 1_000 / HEARTBEATS_PER_SECOND_MAX));
}

/**
 * After this long without a heartbeat of a server that answers probes its rows are late,
 * milliseconds: three were missed, and half a minute for Corrosion's slowest way of syncing.
 */
export function heartbeatLateMs(members: number): number {
  return 3 * heartbeatEveryMs(members) + 30_000;
}

/** This server's row as its configuration has it. */
export function ownRow(
  config: ServerConfig,
  o: {
    readonly hostname: string;
    readonly nowMs: number;
    readonly endpoints?: readonly string[] | undefined;
    readonly doc?: ServerDoc | undefined;
  },
): Omit<ServerRow, "removedAtMs"> {
  const block = parseCidr(config.block);
  if (!block) throw new Error(`server.json: block ${config.block} is not a network`);
  return {
    id: config.server_id,
    hostname: o.hostname.replace(/[^A-Za-z0-9._-]/g, "-").slice(0, 253),
    subnet: config.block,
    wireguardIp: serverAddress(block),
    wireguardPubkey: config.wireguard_public_key,
    managementIp: config.management_ip,
    endpoints: o.endpoints ?? config.endpoints,
    lastSeenMs: o.nowMs,
    doc: {
      ...o.doc,
      version: VERSION,
      schema: SCHEMA_VERSION,
      key: config.wireguard_public_key,
      identity: config.management_ip,
    },
  };
}

/** What the heartbeat must do. */
export type HeartbeatPlan =
  /** The operator removed this server: it says nothing more of itself. */
  | { readonly kind: "standDown" }
  /** The row is right; `beat` says that its server lives, which need not be said at once. */
  | { readonly kind: "write" | "beat"; readonly statement: Statement };

/** Writes the whole row when it differs from the one Corrosion has, else only the time. */
export function planHeartbeat(
  wanted: Omit<ServerRow, "removedAtMs">,
  present: ServerRow | undefined,
): HeartbeatPlan {
  if (present && present.removedAtMs !== null) return { kind: "standDown" };
  const same = present !== undefined && facts(present) === facts(wanted);
  return {
    kind: same ? "beat" : "write",
    statement: same ? touchServer(wanted.id, wanted.lastSeenMs) : upsertServer(wanted),
  };
}

/** All that the row says but when. */
function facts(row: Omit<ServerRow, "removedAtMs">): string {
  return JSON.stringify(serverCells({ ...row, lastSeenMs: 0 }));
}
