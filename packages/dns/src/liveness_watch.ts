/** Follows the daemon's liveness report. */
import { type LivenessReport, parseLiveness, silentServers } from "@jiji/core/cluster";
import type { Clock } from "@jiji/core/runtime";

/**
 * The report is looked at this often, milliseconds, beside the looks that the daemon asks for when a
 * server falls silent or speaks again. The daemon writes it each second; a watch on its folder costs
 * several times as much as looking (0.3 % of a core, seen with strace).
 */
export const LIVENESS_POLL_MS = 500;

/** Ports of {@link LivenessWatch}. */
export interface LivenessWatchOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly onSilent: (servers: ReadonlySet<string>) => void;
}

/** Reads the report when it was replaced. One that is missing, stale or malformed silences nobody. */
export class LivenessWatch {
  readonly #options: LivenessWatchOptions;
  #seen: string | undefined;
  #report: LivenessReport | undefined;

  constructor(options: LivenessWatchOptions) {
    this.#options = options;
  }

  /** Looks each {@link LIVENESS_POLL_MS} until the signal aborts. */
  async run(): Promise<void> {
    const { clock, signal } = this.#options;
    while (!signal.aborted) {
      this.look();
      await clock.sleep(LIVENESS_POLL_MS, { signal }).catch(() => undefined);
    }
  }

  /** Looks now. */
  look(): void {
    const { path, clock, onSilent } = this.#options;
    const mark = markOf(path);
    if (mark?.text !== this.#seen) {
      const report = mark === undefined ? undefined : parseLiveness(readText(path));
      // The daemon's clock may be wrong: when the file was written tells how old the report is.
      this.#report = report && mark && { ...report, written_at_ms: mark.writtenAtMs };
      this.#seen = mark?.text;
    }
    onSilent(silentServers(this.#report, clock.nowMs()));
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
