/** Duties: this server's own row, and Corrosion itself. */
import { SERVER_UNITS } from "@jiji/core/cluster";
import { CORROSION_UNSEEN, type CorrosionHealth, judgeCorrosion } from "../corrosion_health.ts";
import { HEARTBEAT_EVERY_MS, ownRow, planHeartbeat } from "../corrosion_client.ts";
import { type DaemonContext, mustRun } from "../daemon_context.ts";

/** Writes this server's row and its heartbeat. */
export class HeartbeatDuty {
  readonly #context: DaemonContext;
  readonly #hostname: string;

  constructor(context: DaemonContext, hostname: string) {
    this.#context = context;
    this.#hostname = hostname;
  }

  /** One heartbeat; a removed server says so once and is silent. */
  async run(): Promise<number> {
    const { view, config, clock, api, facts, logger } = this.#context;
    if (!view.filled.servers) return 500;
    const wanted = ownRow(config, { hostname: this.#hostname, nowMs: clock.nowMs() });
    const plan = planHeartbeat(wanted, view.servers.get(config.server_id));
    if (plan.kind === "standDown") {
      if (!facts.standsDown) {
        logger.warn("this server was removed from the cluster: standing down", {
          server: config.server_id,
        });
      }
      facts.standsDown = true;
      return HEARTBEAT_EVERY_MS;
    }
    facts.standsDown = false;
    await api.execute([plan.statement]);
    return HEARTBEAT_EVERY_MS;
  }
}

/** Restarts a Corrosion that has stopped answering. */
export class CorrosionDuty {
  readonly #context: DaemonContext;
  #state: CorrosionHealth = CORROSION_UNSEEN;

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /** One question. */
  async run(signal: AbortSignal): Promise<void> {
    const { api, clock, logger } = this.#context;
    const answers = await api.query(["SELECT count(*) FROM cluster_metadata", []])
      .then(() => true, () => false);
    const { state, restart } = judgeCorrosion(this.#state, {
      answers,
      nowMs: clock.monotonicMs(),
    });
    this.#state = state;
    if (!restart) return;
    logger.error("corrosion does not answer: restarting it", { restarts: state.restarts });
    await mustRun(this.#context, ["systemctl", "restart", SERVER_UNITS.corrosion], signal);
  }
}
