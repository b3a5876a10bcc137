/** Duty: a copy of the state each day, a week of them. */
import { SERVER_PATHS } from "@jiji/core/cluster";
import { type DaemonContext, mustRun } from "../daemon_context.ts";

const DAY_MS = 24 * 3_600_000;
/** Days whose copies are kept; each day of the week has its own file. */
const KEPT_DAYS = 7;
/** Copies lie where Corrosion may write: it makes them itself. */
const FOLDER = `${SERVER_PATHS.corrosionState}/backups`;
/** When the last copy was made, Unix ms as text. */
const MEMORY_FILE = `${SERVER_PATHS.daemonState}/backup`;

/** Pause until the state is there, milliseconds. */
const SOON_MS = 10_000;

/** Keeps copies of the state on the server itself. */
export class BackupDuty {
  readonly #context: DaemonContext;
  #lastMs: number | undefined;

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /** One copy, when the last is a day old. The state must be there to be copied. */
  async run(signal: AbortSignal): Promise<number | void> {
    const { view, clock, files, logger } = this.#context;
    if (!view.filled.servers) return SOON_MS;
    this.#lastMs ??= Number(await files.read(MEMORY_FILE)) || 0;
    const nowMs = clock.nowMs();
    // A clock that was set back must not stop the copies.
    if (Math.abs(nowMs - this.#lastMs) < DAY_MS) return;
    const fresh = `${FOLDER}/fresh.db`;
    const file = `${FOLDER}/state-${Math.floor(nowMs / DAY_MS) % KEPT_DAYS}.db`;
    const corrosion = [`${SERVER_PATHS.bin}/corrosion`, "-c", SERVER_PATHS.corrosionConfig];
    const tmpdir = `TMPDIR=${SERVER_PATHS.corrosionState}/tmp`;
    for (
      const argv of [
        ["mkdir", "-p", "-m", "700", FOLDER],
        ["rm", "-f", fresh],
        ["env", tmpdir, ...corrosion, "backup", fresh],
        ["chmod", "600", fresh],
        ["mv", "-f", fresh, file],
      ]
    ) await mustRun(this.#context, ["runuser", "-u", "jiji", "--", ...argv], signal);
    await files.replace(MEMORY_FILE, `${nowMs}\n`, { mode: 0o600 });
    this.#lastMs = nowMs;
    logger.info("state copied", { file });
  }
}
