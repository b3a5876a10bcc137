import * as v from "valibot";
import { ServerDocSchema } from "../corrosion/server_doc.ts";
import { DaemonReportSchema } from "./daemon_report.ts";
import { LivenessSchema } from "./liveness.ts";
import { parseReport } from "./parse_report.ts";

const ServerSchema = v.object({
  id: v.string(),
  hostname: v.string(),
  subnet: v.string(),
  wireguardIp: v.string(),
  wireguardPubkey: v.string(),
  managementIp: v.string(),
  endpoints: v.array(v.string()),
  lastSeenMs: v.number(),
  /** Absent in reports of older servers. */
  doc: v.optional(ServerDocSchema, {}),
  removedAtMs: v.nullable(v.number()),
});

const ContainerSchema = v.object({
  id: v.string(),
  project: v.string(),
  service: v.string(),
  serverId: v.string(),
  instance: v.string(),
  name: v.string(),
  version: v.string(),
  ip: v.string(),
  ports: v.array(v.string()),
  startedAtMs: v.number(),
  health: v.picklist(["starting", "healthy", "degraded", "unhealthy"]),
  unhealthySinceMs: v.nullable(v.number()),
});

const PeerSchema = v.object({
  /** Name of the server with this key; null when no row or seed has it. */
  server_id: v.nullable(v.string()),
  public_key: v.string(),
  endpoint: v.nullable(v.string()),
  allowed_ips: v.array(v.string()),
  /** Seconds since the last handshake; null when there was none. */
  handshake_age_s: v.nullable(v.number()),
  rx_bytes: v.number(),
  tx_bytes: v.number(),
  // What follows is absent in reports of older servers.
  /** `direct` while it answers, else `none`; null for a key that its server does not use now. */
  link: v.optional(v.nullable(v.picklist(["direct", "none"]))),
  /** Last round trip, milliseconds; null without one. */
  rtt_ms: v.optional(v.nullable(v.number())),
  /** Share of the last probes that got no answer, 0 to 1. */
  loss: v.optional(v.nullable(v.number())),
  /** Largest packet on the way there, octets. */
  mtu: v.optional(v.nullable(v.number())),
  /** Whether handshakes take a preshared key. */
  psk: v.optional(v.boolean()),
});

const StatusSchema = v.object({
  format: v.literal(1),
  version: v.string(),
  /** Null when `/etc/jiji/server.json` is missing or malformed. */
  server_id: v.nullable(v.string()),
  /** Unix ms, the server's clock. */
  generated_at_ms: v.number(),
  /** Every row, tombstones included; null when Corrosion does not answer. */
  servers: v.nullable(v.array(ServerSchema)),
  containers: v.nullable(v.array(ContainerSchema)),
  /** WireGuard's view; null when the interface is missing. */
  peers: v.nullable(v.array(PeerSchema)),
  /** Null when the daemon has not written one. */
  liveness: v.nullable(LivenessSchema),
  /** systemd's word for each unit, e.g. `active`; null when systemctl does not answer. */
  units: v.nullable(v.record(v.string(), v.string())),
  /** One sentence each: what is wrong on this server. Empty when all is well. */
  problems: v.array(v.string()),
  /** What the running daemon knows; null when it does not answer, absent in older versions. */
  daemon: v.optional(v.nullable(DaemonReportSchema)),
});

/** What `jiji-daemon status --json` prints: all that one server knows, in one round trip. */
export type ServerStatus = v.InferOutput<typeof StatusSchema>;

/** A peer in {@link ServerStatus}. */
export type PeerStatus = v.InferOutput<typeof PeerSchema>;

/**
 * The status in `text`.
 *
 * @throws {Error} naming the first field that is wrong.
 */
export function parseServerStatus(text: string): ServerStatus {
  return parseReport(text, { schema: StatusSchema, name: "jiji-daemon status" });
}

const ProbeSchema = v.object({
  healthy: v.boolean(),
  /** The last ten tries, oldest first; `at_ms` counts from the start of the probe. */
  tries: v.array(v.object({ at_ms: v.number(), outcome: v.string() })),
  state: v.object({
    running: v.boolean(),
    exit_code: v.nullable(v.number()),
    oom_killed: v.boolean(),
    restarts: v.number(),
    /** The engine's own words, e.g. why it could not start; "" when it has none. */
    error: v.optional(v.string()),
  }),
  /** The container's last lines of output. */
  logs_tail: v.string(),
  // What follows is absent in reports of older servers.
  check: v.optional(v.object({
    kind: v.string(),
    port: v.optional(v.number()),
    path: v.optional(v.string()),
    host: v.optional(v.string()),
    command: v.optional(v.string()),
  })),
  /** Head of the last HTTP answer; null when there was none. */
  answer: v.optional(v.nullable(v.object({
    status: v.number(),
    /** Lower-case names; only those that tell something of a failed check. */
    headers: v.record(v.string(), v.string()),
    /** Beginning of the body, at most 300 characters. */
    body: v.string(),
  }))),
  /** Paths that answered with 2xx when the check's own was not found. */
  good_paths: v.optional(v.array(v.string())),
  /** What the container listens on; null when nobody could look, e.g. because it ended. */
  listening: v.optional(v.nullable(v.array(v.object({ ip: v.string(), port: v.number() })))),
});

/** What `jiji-daemon probe NAME` prints. */
export type ProbeReport = v.InferOutput<typeof ProbeSchema>;

/**
 * The probe report in `text`.
 *
 * @throws {Error} naming the first field that is wrong.
 */
export function parseProbeReport(text: string): ProbeReport {
  return parseReport(text, { schema: ProbeSchema, name: "jiji-daemon probe" });
}

const BarrierSchema = v.object({
  converged: v.boolean(),
  waited_ms: v.number(),
  /** Names that did not converge, with the addresses they still answer. */
  pending: v.array(v.object({
    name: v.string(),
    answers: v.array(v.string()),
    missing: v.array(v.string()),
    unwanted: v.array(v.string()),
    error: v.nullable(v.string()),
  })),
});

/** What `jiji-dns await` prints. */
export type BarrierReport = v.InferOutput<typeof BarrierSchema>;

/**
 * The barrier report in `text`.
 *
 * @throws {Error} naming the first field that is wrong.
 */
export function parseBarrierReport(text: string): BarrierReport {
  return parseReport(text, { schema: BarrierSchema, name: "jiji-dns await" });
}
