/** Duty: removes the rows that removed servers left behind. */
import { deleteContainer } from "@jiji/core/corrosion";
import type { DaemonContext } from "../daemon_context.ts";
import { planCollection } from "../state/garbage_collector.ts";

/** A daemon that has just started has not heard yet who is silent, milliseconds. */
const UNSURE_MS = 15_000;

/** Runs the collector over the present view. */
export class CollectionDuty {
  readonly #context: DaemonContext;
  #startedAtMs: number | undefined;

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /**
   * One run. Before both tables have been read whole nothing is known for sure, nor before the
   * others had time to answer probes.
   */
  async run(): Promise<void> {
    const { view, facts, config, clock, api, logger } = this.#context;
    this.#startedAtMs ??= clock.monotonicMs();
    if (clock.monotonicMs() - this.#startedAtMs < UNSURE_MS) return;
    if (!view.filled.servers || !view.filled.containers || facts.standsDown) return;
    const plan = planCollection({
      self: config.server_id,
      members: [config.server_id, ...facts.peers.map((peer) => peer.server_id)],
      servers: view.servers.values(),
      containers: view.containers.values(),
      silent: facts.silent,
      nowMs: clock.nowMs(),
    });
    if (plan.deletes.length === 0) return;
    await api.execute(plan.deletes.map((row) => deleteContainer(row.id, row.serverId)));
    logger.info("rows of removed servers collected", { ...plan });
  }
}
