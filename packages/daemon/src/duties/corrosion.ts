/** Duty: Corrosion answers, is in step with the others', and has room to write. */
import { SERVER_PATHS, SERVER_UNITS } from "@jiji/core/cluster";
import { isOk, messageOf } from "@jiji/core/runtime";
import { heartbeatLateMs } from "../state/corrosion_client.ts";
import {
  CORROSION_SILENT_MS,
  DISK_FREE_MIN,
  judgeReplication,
  parseDiskSpace,
  parseMembers,
  reasonApart,
  REPLICATION_UNSEEN,
  type ReplicationHealth,
  type ReplicationSight,
} from "../state/corrosion_health.ts";
import { judgeService, SERVICE_UNSEEN, type ServiceHealth } from "../state/service_health.ts";
import { type DaemonContext, mustRun, tryRun } from "../daemon_context.ts";

/** Replication and disk are looked at this often, milliseconds: it costs a process each. */
const DEEP_LOOK_EVERY_MS = 60_000;

const SELECT_MISSING = 'SELECT coalesce(sum("end" - start + 1), 0) FROM __corro_bookkeeping_gaps';

const CORROSION = `${SERVER_PATHS.bin}/corrosion`;

/** What the duty found out, for status and metrics. */
export interface CorrosionReport {
  readonly answers: boolean;
  /** Restarts and joins since the daemon's start. */
  readonly restarts: number;
  readonly rejoins: number;
  /** Undefined before the first deep look. */
  readonly sight: ReplicationSight | undefined;
  readonly freeBytes: number | undefined;
  /** One sentence each, with what to do. */
  readonly problems: readonly string[];
}

/** Restarts a Corrosion that has stopped answering, and joins one that lost the others anew. */
export class CorrosionDuty {
  readonly #context: DaemonContext;
  #state: ServiceHealth = SERVICE_UNSEEN;
  #replication: ReplicationHealth = REPLICATION_UNSEEN;
  #deepAtMs = -Infinity;
  readonly #answeringSinceMs = new Map<string, number>();
  #report: CorrosionReport = {
    answers: false,
    restarts: 0,
    rejoins: 0,
    sight: undefined,
    freeBytes: undefined,
    problems: [],
  };

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /** What the last looks found. */
  get report(): CorrosionReport {
    return this.#report;
  }

  /** One question; now and then a deeper look. */
  async run(signal: AbortSignal): Promise<void> {
    const { api, clock, view } = this.#context;
    // One that answers but lets nobody follow its tables is of no use either.
    const answers = view.unfollowed.size === 0 &&
      await api.query(["SELECT count(*) FROM cluster_metadata", []]).then(() => true, () => false);
    const nowMs = clock.monotonicMs();
    const look = { answers, nowMs, silentMs: CORROSION_SILENT_MS };
    const { state, restart } = judgeService(this.#state, look);
    this.#state = state;
    this.#report = { ...this.#report, answers };
    if (restart) return await this.#restart("it does not answer", signal);
    this.#noteAnswering(nowMs);
    if (nowMs - this.#deepAtMs < DEEP_LOOK_EVERY_MS) return;
    await this.#lookDeep(answers, signal);
    // While it does not answer every look is a deep one.
    if (answers) this.#deepAtMs = nowMs;
  }

  async #lookDeep(answers: boolean, signal: AbortSignal): Promise<void> {
    const { clock, facts } = this.#context;
    const freeBytes = await this.#freeBytes(signal);
    const sight = answers ? await this.#look(signal) : undefined;
    const reason = sight && reasonApart(sight);
    this.#setProblems({ freeBytes, sight, reason });
    if (!sight || facts.standsDown) return;
    const judged = judgeReplication(this.#replication, { reason, nowMs: clock.monotonicMs() });
    this.#replication = judged.state;
    if (judged.remedy === "restart") await this.#restart(reason ?? "", signal);
    if (judged.remedy === "rejoin") await this.#rejoin(reason ?? "", signal);
  }

  async #look(signal: AbortSignal): Promise<ReplicationSight> {
    const { api } = this.#context;
    const argv = [CORROSION, "-c", SERVER_PATHS.corrosionConfig, "cluster", "members"] as const;
    const [members, missing] = await Promise.all([
      tryRun(this.#context, argv, signal),
      // A table of its own that another build of Corrosion may not have.
      api.query([SELECT_MISSING, []]).then((rows) => Number(rows[0]?.[0]), () => undefined),
    ]);
    return {
      members: isOk(members) ? parseMembers(members.stdout) : undefined,
      missingVersions: Number.isFinite(missing) ? missing : undefined,
      ...this.#heartbeats(),
    };
  }

  /** Who answers probes, and whose rows are late for that. */
  #heartbeats(): { readonly answering: readonly string[]; readonly late: readonly string[] } {
    const { view, clock } = this.#context;
    const nowMs = clock.monotonicMs();
    const lateMs = heartbeatLateMs(this.#answeringSinceMs.size + 1);
    const answering = [...this.#answeringSinceMs.keys()].sort();
    const late = answering.filter((id) => {
      const sinceMs = this.#answeringSinceMs.get(id) ?? nowMs;
      return nowMs - Math.max(sinceMs, view.heard.get(id)?.atMs ?? -Infinity) > lateMs;
    });
    return { answering, late };
  }

  #noteAnswering(nowMs: number): void {
    const { facts } = this.#context;
    const answering = new Set(
      facts.peers.map((peer) => peer.server_id).filter((id) => !facts.silent.has(id)),
    );
    for (const id of this.#answeringSinceMs.keys()) {
      if (!answering.has(id)) this.#answeringSinceMs.delete(id);
    }
    for (const id of answering) {
      if (!this.#answeringSinceMs.has(id)) this.#answeringSinceMs.set(id, nowMs);
    }
  }

  async #freeBytes(signal: AbortSignal): Promise<number | undefined> {
    const argv = ["df", "--output=avail,size", "-B1", SERVER_PATHS.corrosionState] as const;
    const result = await tryRun(this.#context, argv, signal);
    return isOk(result) ? parseDiskSpace(result.stdout)?.freeBytes : undefined;
  }

  #setProblems(found: {
    readonly freeBytes: number | undefined;
    readonly sight: ReplicationSight | undefined;
    readonly reason: string | undefined;
  }): void {
    const { freeBytes, sight, reason } = found;
    const problems: string[] = [];
    if (freeBytes !== undefined && freeBytes < DISK_FREE_MIN) {
      problems.push(
        `only ${
          Math.floor(freeBytes / 1024 / 1024)
        } MiB free under ${SERVER_PATHS.corrosionState}: ` +
          "make room, e.g. with jiji services prune; containers serve on",
      );
    }
    if (reason !== undefined) problems.push(`state: ${reason}`);
    else if (sight && sight.late.length > 0) {
      problems.push(
        `state: late rows of ${sight.late.join(", ")}: look at ${SERVER_UNITS.corrosion} there`,
      );
    }
    const before = this.#report.problems.join();
    this.#report = { ...this.#report, sight, freeBytes, problems };
    if (problems.length > 0 && problems.join() !== before) {
      this.#context.logger.warn("corrosion is not well", { problems });
    }
  }

  async #restart(reason: string, signal: AbortSignal): Promise<void> {
    const { logger } = this.#context;
    this.#report = { ...this.#report, restarts: this.#report.restarts + 1 };
    logger.error("restarting corrosion", { reason, restarts: this.#report.restarts });
    await mustRun(this.#context, ["systemctl", "restart", SERVER_UNITS.corrosion], signal);
  }

  async #rejoin(reason: string, signal: AbortSignal): Promise<void> {
    const { logger } = this.#context;
    this.#report = { ...this.#report, rejoins: this.#report.rejoins + 1 };
    logger.warn("corrosion joins the cluster anew", { reason });
    const argv = [CORROSION, "-c", SERVER_PATHS.corrosionConfig, "cluster", "rejoin"] as const;
    // One that fails is followed by a restart, should it be needed.
    await mustRun(this.#context, argv, signal).catch((error) =>
      logger.warn("joining anew failed", { error: messageOf(error) })
    );
  }
}
