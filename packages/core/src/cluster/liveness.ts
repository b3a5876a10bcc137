import * as v from "valibot";
import { SERVER_NAME } from "./names.ts";

/** Up to this many peers a server probes all of them; beyond, some, and it hears of the rest. */
export const PROBE_ALL_MAX = 32;

/** A report older than this says nothing: the daemon is gone and everybody counts as alive. */
export const LIVENESS_STALE_MS: number = 10_000;

/** Shape of a {@link LivenessReport}. */
export const LivenessSchema = v.object({
  format: v.literal(1),
  written_at_ms: v.number(),
  /** Servers that missed their last probes, by name. */
  silent: v.array(v.pipe(v.string(), v.regex(SERVER_NAME))),
  /** Servers whose kernels answer and whose daemons have not for seconds. Absent: none. */
  daemonless: v.optional(v.array(v.pipe(v.string(), v.regex(SERVER_NAME)))),
  /** Last round trip of each answering server, milliseconds. */
  rtt_ms: v.record(v.string(), v.number()),
  /** Share of the last probes to each server that got no answer, 0 to 1. Absent: not told. */
  loss: v.optional(v.record(v.string(), v.number())),
  /** Largest packet on the way to each server, octets. Absent: not told. */
  mtu: v.optional(v.record(v.string(), v.number())),
});

/** Who answers this server's probes: `/run/jiji/liveness.json`. */
export type LivenessReport = v.InferOutput<typeof LivenessSchema>;

/** The report in `text`, or undefined when it is not one. */
export function parseLiveness(text: string): LivenessReport | undefined {
  try {
    const parsed = v.safeParse(LivenessSchema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/** Servers to leave out of answers at `nowMs`; none when the report is missing or stale. */
export function silentServers(
  report: LivenessReport | undefined,
  nowMs: number,
): ReadonlySet<string> {
  if (!report || Math.abs(nowMs - report.written_at_ms) > LIVENESS_STALE_MS) return new Set();
  return new Set(report.silent);
}

/**
 * Whether a report shows that a server answers, be it its kernel alone. Where everyone probes
 * everyone, only an answer does; in larger clusters nobody's complaint will do, since most were never
 * asked by this server.
 */
export function isLinked(
  report: LivenessReport | undefined,
  peer: { readonly id: string; readonly peers: number },
): boolean {
  if (!report || report.silent.includes(peer.id)) return false;
  return peer.peers > PROBE_ALL_MAX || report.rtt_ms[peer.id] !== undefined ||
    isDaemonless(report, peer.id);
}

/** Whether a server's kernel answers and its daemon does not. */
export function isDaemonless(report: LivenessReport | undefined, serverId: string): boolean {
  return report?.daemonless?.includes(serverId) ?? false;
}
