/** Duty: this server's own row. */
import { heartbeatEveryMs, ownRow, planHeartbeat } from "../state/corrosion_client.ts";
import type { DaemonContext } from "../daemon_context.ts";

/** Writes this server's row and its heartbeat. */
export class HeartbeatDuty {
  readonly #context: DaemonContext;
  readonly #hostname: string;
  #wroteAtMs = -Infinity;

  constructor(context: DaemonContext, hostname: string) {
    this.#context = context;
    this.#hostname = hostname;
  }

  /**
   * One heartbeat, when it is due or the row is wrong; a removed server says so once and is silent.
   * Whoever wakes this duty because another's row has changed makes nobody write.
   */
  async run(): Promise<number> {
    const { view, config, clock, api, facts, logger } = this.#context;
    if (!view.filled.servers) return 500;
    const members = [...view.servers.values()].filter((row) => row.removedAtMs === null);
    const everyMs = heartbeatEveryMs(members.length);
    const wanted = ownRow(config, {
      hostname: this.#hostname,
      nowMs: clock.nowMs(),
      endpoints: facts.endpoints,
      doc: { ...view.servers.get(config.server_id)?.doc, ...facts.doc },
    });
    // A server that lost its state still knows that it was removed.
    const isRemoved = facts.removed.some((row) =>
      row.id === config.server_id && row.wireguardPubkey === config.wireguard_public_key
    );
    const plan = isRemoved
      ? { kind: "standDown" } as const
      : planHeartbeat(wanted, view.servers.get(config.server_id));
    if (plan.kind === "standDown") {
      if (!facts.standsDown) {
        logger.warn("this server was removed from the cluster: standing down", {
          server: config.server_id,
        });
      }
      facts.standsDown = true;
      return everyMs;
    }
    facts.standsDown = false;
    const restMs = this.#wroteAtMs + everyMs - clock.monotonicMs();
    if (plan.kind === "beat" && restMs > 0) return restMs;
    await api.execute([plan.statement]);
    this.#wroteAtMs = clock.monotonicMs();
    return everyMs;
  }
}
