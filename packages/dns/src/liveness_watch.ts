/** Follows the daemon's liveness report. */
import { type LivenessReport, parseLiveness, silentServers } from "@jiji/core/cluster";
import type { Clock } from "@jiji/core/runtime";

/**
 * The report is looked at this often, milliseconds. The daemon writes it each second; a watch on its
 * folder costs several times as much as looking (0.3 % of a core, seen with strace).
 */
export const LIVENESS_POLL_MS = 500;

/** Ports of {@link watchLiveness}. */
export interface LivenessWatchOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly onSilent: (servers: ReadonlySet<string>) => void;
}

/**
 * Looks at the report each {@link LIVENESS_POLL_MS} and reads it when it was replaced. A report that
 * is missing, stale or malformed silences nobody.
 */
export async function watchLiveness(options: LivenessWatchOptions): Promise<void> {
  const { path, clock, signal, onSilent } = options;
  let seen: string | undefined;
  let report: LivenessReport | undefined;
  while (!signal.aborted) {
    const mark = markOf(path);
    if (mark?.text !== seen) {
      report = mark === undefined ? undefined : parseLiveness(readText(path));
      // The daemon's clock may be wrong: when the file was written tells how old the report is.
      if (report && mark) report = { ...report, written_at_ms: mark.writtenAtMs };
      seen = mark?.text;
    }
    onSilent(silentServers(report, clock.nowMs()));
    await clock.sleep(LIVENESS_POLL_MS, { signal }).catch(() => undefined);
  }
}

/** What differs between two reports: the file, and when it was written. */
function markOf(path: string): { text: string; writtenAtMs: number } | undefined {
  try {
    // A page of memory (tmpfs): asking for it is quicker than waiting for another thread to.
    const { ino, mtime, size } = Deno.statSync(path);
    const writtenAtMs = mtime?.getTime() ?? 0;
    return { text: `${ino} ${writtenAtMs} ${size}`, writtenAtMs };
  } catch {
    return undefined;
  }
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}
