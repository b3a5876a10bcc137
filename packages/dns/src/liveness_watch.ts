/** Follows the daemon's liveness report. */
import { parseLiveness, silentServers } from "@jiji/core/cluster";
import type { Clock } from "@jiji/core/runtime";

/** The report is read this often, milliseconds, also where the kernel tells of changes. */
export const LIVENESS_POLL_MS = 1_000;

/** Ports of {@link watchLiveness}. */
export interface LivenessWatchOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly onSilent: (servers: ReadonlySet<string>) => void;
}

/**
 * Reads the report on every change of its folder and each {@link LIVENESS_POLL_MS}. A report that
 * is missing, stale or malformed silences nobody.
 */
export async function watchLiveness(options: LivenessWatchOptions): Promise<void> {
  const { path, clock, signal, onSilent } = options;
  let watcher: Deno.FsWatcher | undefined;
  let wake = Promise.withResolvers<void>();
  const stop = () => {
    wake.resolve();
    watcher?.close();
  };
  signal.addEventListener("abort", stop, { once: true });
  while (!signal.aborted) {
    onSilent(silentServers(parseLiveness(await readText(path)), clock.nowMs()));
    watcher ??= watchFolder(path, () => wake.resolve());
    const turn = new AbortController();
    const timer = clock.sleep(LIVENESS_POLL_MS, { signal: turn.signal }).catch(() => undefined);
    await Promise.race([wake.promise, timer]);
    turn.abort();
    wake = Promise.withResolvers();
    if (signal.aborted) wake.resolve();
  }
}

async function readText(path: string): Promise<string> {
  return await Deno.readTextFile(path).catch(() => "");
}

/** Calls `onChange` when the file is replaced; undefined while its folder does not exist. */
function watchFolder(path: string, onChange: () => void): Deno.FsWatcher | undefined {
  try {
    const watcher = Deno.watchFs(path.slice(0, path.lastIndexOf("/")) || "/", { recursive: false });
    (async () => {
      for await (const event of watcher) {
        if (event.kind !== "access" && event.paths.includes(path)) onChange();
      }
    })().catch(() => undefined);
    return watcher;
  } catch {
    return undefined;
  }
}
