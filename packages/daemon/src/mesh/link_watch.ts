/** Notices at once when an interface that jiji keeps goes away, or the host's addresses change. */
import { CONTAINER_BRIDGE, MESH_INTERFACE } from "@jiji/core/cluster";
import { type Argv, messageOf } from "@jiji/core/runtime";
import type { DaemonContext } from "../daemon_context.ts";

/** Every change to an interface or its addresses, one a line. Source: ip-monitor(8). */
export const ARGV_LINK_MONITOR: Argv = ["ip", "-o", "monitor", "link", "address"];
/** Whoever restarts an interface on purpose brings it back within this time, milliseconds. */
export const LINK_GRACE_MS = 500;
/** Pause before the monitor is started again, milliseconds; duties look by themselves as well. */
const MONITOR_RETRY_MS = 10_000;

/** The duty that brings an interface back. */
const KEEPERS: ReadonlyMap<string, string> = new Map([
  [CONTAINER_BRIDGE, "network"],
  [MESH_INTERFACE, "topology"],
]);

/** Name of the interface that a line of the monitor says is gone or switched off, or undefined. */
export function parseLostLink(line: string): string | undefined {
  const match = /^(Deleted )?\d+: ([^\s:@]+)(?:@[^\s:]+)?: <([^>]*)>/.exec(line);
  if (!match) return undefined;
  const [, deleted, name, flags = ""] = match;
  return deleted !== undefined || !flags.split(",").includes("UP") ? name : undefined;
}

/** Whether a line of the monitor tells of an address that others could reach, new or gone. */
export function isAddressChange(line: string): boolean {
  return /^(Deleted )?\d+: \S+ +inet6? \S+ .*\bscope global\b/.test(line);
}

/**
 * Wakes the duty that keeps an interface when that is lost, and the one that knows the host's
 * addresses when they change, until the signal aborts.
 */
export async function watchLinks(context: DaemonContext, signal: AbortSignal): Promise<void> {
  const { process, clock, logger, wake } = context;
  while (!signal.aborted) {
    try {
      for await (const line of process.lines(ARGV_LINK_MONITOR, { signal })) {
        if (isAddressChange(line)) wake("addresses");
        const duty = KEEPERS.get(parseLostLink(line) ?? "");
        if (duty === undefined) continue;
        clock.sleep(LINK_GRACE_MS, { signal }).then(() => wake(duty), () => undefined);
      }
    } catch (error) {
      if (!signal.aborted) logger.debug("link monitor failed", { error: messageOf(error) });
    }
    await clock.sleep(MONITOR_RETRY_MS, { signal }).catch(() => undefined);
  }
}
