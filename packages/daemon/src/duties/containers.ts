/** Duties 4: what runs here, how it is, and the rows that say so. */
import { PROXY_CONTAINER } from "@jiji/core/cluster";
import { type ContainerRow, upsertService } from "@jiji/core/corrosion";
import { isOk, messageOf } from "@jiji/core/runtime";
import { advanceHealth, believeRow, initialHealth } from "../engine/container_health.ts";
import { planRegistry, registryTransactions, rowOf } from "../engine/container_registry.ts";
import { type DaemonContext, mustRun, renderFailure, tryRun } from "../daemon_context.ts";
import { argvEvents, argvInspect, argvListIds } from "../engine/argv.ts";
import {
  applyEvents,
  type ContainerEvent,
  isTelling,
  parseEvent,
} from "../engine/container_events.ts";
import { type ObservedContainer, parseIds, parseInspected } from "../engine/containers.ts";
import { type CheckNetwork, runCheck } from "./checks.ts";

/** Containers inspected by one command; keeps the argument list short. */
const INSPECT_MAX = 200;
/** Everything is looked at this often, whatever events say, milliseconds. */
const WHOLE_LOOK_EVERY_MS = 30_000;
/** A container that is not healthy yet gets its row after this long, milliseconds. */
const STARTING_UNTOLD_MS = 1_500;
/** Checks under way at once. */
export const CHECKS_MAX = 32;
/** A write shows in the subscription within this time, milliseconds (seen: 0.3–0.6 s). */
const VIEW_LAG_MS = 3_000;
/** Services are announced again after this long: the state may have been lost, milliseconds. */
const ANNOUNCE_EVERY_MS = 600_000;
/** Pause before the event stream is opened again, milliseconds. */
const EVENTS_RETRY_MS = 1_000;

/** All of jiji's containers on this server, and its proxy. Who vanishes in between is left out. */
async function observeContainers(
  context: Pick<DaemonContext, "config" | "process">,
  signal?: AbortSignal,
): Promise<ObservedContainer[]> {
  const ids = parseIds(await mustRun(context, argvListIds(context.config.engine), signal));
  if (ids.length === 0) return [];
  return await inspectContainers([...ids, PROXY_CONTAINER], context, signal);
}

async function inspectContainers(
  ids: readonly string[],
  context: Pick<DaemonContext, "config" | "process">,
  signal?: AbortSignal,
): Promise<ObservedContainer[]> {
  const { engine } = context.config;
  const found: ObservedContainer[] = [];
  for (let at = 0; at < ids.length; at += INSPECT_MAX) {
    const argv = argvInspect(engine, ids.slice(at, at + INSPECT_MAX));
    const result = await tryRun(context, argv, signal);
    // Exit 1 with a list: one of the containers is gone, the others are described.
    if (!isOk(result) && !result.stdout.trimStart().startsWith("[")) {
      throw new Error(renderFailure(argv, result));
    }
    found.push(...parseInspected(result.stdout));
  }
  return found;
}

/** When kamal-proxy was started, Unix ms; undefined when it is not among them or does not run. */
function startOfProxy(containers: readonly ObservedContainer[]): number | undefined {
  return containers.find((one) => one.name === PROXY_CONTAINER && one.running)?.startedAtMs;
}

/** Looks at the engine's containers; follows its events, and looks at all of them on a timer. */
export class ContainersDuty {
  readonly #context: DaemonContext;
  readonly #onHealth: () => void;
  #events: ContainerEvent[] = [];
  #wholeAtMs = -Infinity;
  #isEngineNew = true;

  /** @param onHealth is called when it may have changed who is healthy. */
  constructor(context: DaemonContext, onHealth: () => void = () => undefined) {
    this.#context = context;
    this.#onHealth = onHealth;
  }

  /** Takes over the events since the last run; without any, or after a while, looks at everything. */
  async run(signal: AbortSignal): Promise<void> {
    const { facts, clock } = this.#context;
    const events = this.#events;
    this.#events = [];
    const nowMs = clock.monotonicMs();
    const isPart = events.length > 0 && nowMs - this.#wholeAtMs < WHOLE_LOOK_EVERY_MS;
    if (!isPart || !facts.containers) {
      const seen = await observeContainers(this.#context, signal);
      facts.proxyStartedAtMs = startOfProxy(seen);
      this.#adopt(seen);
      this.#wholeAtMs = nowMs;
      // An engine that has just come up may have put its rules before ours.
      if (this.#isEngineNew) this.#context.wake("firewall");
      this.#isEngineNew = false;
      return;
    }
    const { containers, look } = applyEvents(facts.containers, events);
    // What ended is told before the engine is asked about the others.
    this.#adopt(containers);
    if (look.length === 0) return;
    const seen = await inspectContainers(look, this.#context, signal);
    facts.proxyStartedAtMs = startOfProxy(seen) ?? facts.proxyStartedAtMs;
    this.#adopt([...facts.containers.filter((one) => !look.includes(one.id)), ...seen]);
  }

  #adopt(seen: readonly ObservedContainer[]): void {
    const { facts, view, clock, wake } = this.#context;
    const containers = seen.filter((one) => one.labels !== undefined);
    const running = new Map(
      containers.filter((one) => one.running).map((one) => [one.id, one]),
    );
    const before = new Map(facts.containers?.map((one) => [one.id, one]));
    for (const id of facts.health.keys()) if (!running.has(id)) facts.health.delete(id);
    for (const [id, container] of running) {
      const restarted = before.has(id) && before.get(id)?.startedAtMs !== container.startedAtMs;
      if (facts.health.has(id) && !restarted) continue;
      // Only a row from before this daemon's start is believed, never one from before a restart.
      const wasThere = facts.containers === undefined;
      const fresh = initialHealth(clock.monotonicMs(), { wasThere });
      facts.health.set(id, believeRow(fresh, view.containers.get(id)));
    }
    facts.containers = containers;
    this.#onHealth();
    for (const duty of ["health", "registry", "proxy"]) wake(duty);
  }

  /** Wakes the duty on every event that may matter, until the signal aborts. */
  async watch(signal: AbortSignal): Promise<void> {
    const { config, process, clock, logger, wake } = this.#context;
    for (let first = true; !signal.aborted; first = false) {
      try {
        // The stream broke: the engine may have been restarted, and its rules with it.
        this.#wholeAtMs = -Infinity;
        this.#isEngineNew = true;
        if (!first) ["containers", "network", "firewall"].forEach(wake);
        for await (const line of process.lines(argvEvents(config.engine), { signal })) {
          const event = parseEvent(line);
          if (!event || !isTelling(event)) continue;
          this.#events.push(event);
          wake("containers");
        }
      } catch (error) {
        if (!signal.aborted) logger.debug("event stream failed", { error: messageOf(error) });
      }
      await clock.sleep(EVENTS_RETRY_MS, { signal }).catch(() => undefined);
    }
  }
}

/** Starts the checks that are due; each ends by itself and wakes the registry when it matters. */
export class HealthDuty {
  readonly #context: DaemonContext;
  readonly #network: CheckNetwork;
  readonly #onHealth: () => void;
  readonly #running = new Set<string>();

  /** @param onHealth is called when it may have changed who is healthy. */
  constructor(
    context: DaemonContext,
    network: CheckNetwork,
    onHealth: () => void = () => undefined,
  ) {
    this.#context = context;
    this.#network = network;
    this.#onHealth = onHealth;
  }

  /** Starts what is due; gives the pause until the next check is. */
  run(): Promise<number> {
    const { facts, clock } = this.#context;
    const nowMs = clock.monotonicMs();
    let nextMs = 1_000;
    for (const container of facts.containers ?? []) {
      const state = facts.health.get(container.id);
      if (!state || container.isEnding || this.#running.has(container.id)) continue;
      const inMs = state.nextCheckAtMs - nowMs;
      if (inMs <= 0 && this.#running.size < CHECKS_MAX) this.#start(container);
      else nextMs = Math.min(nextMs, Math.max(inMs, 50));
    }
    return Promise.resolve(nextMs);
  }

  #start(container: ObservedContainer): void {
    this.#running.add(container.id);
    this.#check(container)
      .catch((error) =>
        this.#context.logger.error("check failed to run", { error: messageOf(error) })
      )
      .finally(() => {
        this.#running.delete(container.id);
        this.#context.wake("health");
      });
  }

  async #check(container: ObservedContainer): Promise<void> {
    const { config, process, facts, clock, logger, wake } = this.#context;
    const check = container.labels?.health;
    const before = facts.health.get(container.id);
    if (!check || !before) return;
    const outcome = await runCheck(container, check, {
      engine: config.engine,
      process,
      network: this.#network,
      nowMs: () => clock.nowMs(),
    });
    // A restart or an end while the check ran makes its outcome meaningless.
    if (facts.health.get(container.id) !== before) return;
    const isEnding = facts.containers?.some((one) => one.id === container.id && one.isEnding);
    if (isEnding) return;
    const after = advanceHealth(before, outcome, {
      nowMs: clock.monotonicMs(),
      check,
      wallMs: clock.nowMs(),
    });
    facts.health.set(container.id, after);
    if (after.status === before.status) return;
    this.#onHealth();
    logger.info("health changed", {
      container: container.name,
      from: before.status,
      to: after.status,
      outcome: outcome.text,
    });
    for (const duty of ["registry", "proxy"]) wake(duty);
  }
}

/** Hears of rows of this server that differ from what is known, and of ids that are gone. */
export type TellChange = (rows: readonly ContainerRow[], gone: readonly string[]) => void;

/** Makes this server's rows equal to what runs here. */
export class RegistryDuty {
  readonly #context: DaemonContext;
  readonly #tell: TellChange;
  readonly #onHealth: () => void;
  readonly #services = new Set<string>();
  #announcedAtMs = -Infinity;
  /** Own writes that the subscription may not have told yet: the row, or null for a delete. */
  readonly #written = new Map<
    string,
    { readonly row: ContainerRow | null; readonly atMs: number }
  >();

  /**
   * @param o `tell` is told of every change, again and again until it is written; `onHealth` is
   * called when it may have changed who is healthy. By default nobody is told.
   */
  constructor(
    context: DaemonContext,
    o: { readonly tell?: TellChange; readonly onHealth?: () => void } = {},
  ) {
    this.#context = context;
    this.#tell = o.tell ?? (() => undefined);
    this.#onHealth = o.onHealth ?? (() => undefined);
  }

  /** One comparison; writes only what differs. */
  async run(): Promise<void> {
    const { facts, view, config, api, logger, clock } = this.#context;
    // Before both sides have been read whole, a difference would mean nothing.
    if (!facts.containers || !view.filled.containers || facts.standsDown) return;
    this.#believeRows();
    const wanted = facts.containers
      .filter((one) => this.#isToTell(one))
      .map((one) => rowOf(one, { serverId: config.server_id, health: facts.health.get(one.id) }))
      .filter((row) => row !== undefined);
    const plan = planRegistry(wanted, this.#present(), config.server_id);
    // Told first: names follow also while Corrosion is slow or down.
    this.#tell(plan.upserts, plan.deletes);
    for (const statements of registryTransactions(plan, config.server_id)) {
      await api.execute(statements);
    }
    const atMs = clock.monotonicMs();
    for (const row of plan.upserts) this.#written.set(row.id, { row, atMs });
    for (const id of plan.deletes) this.#written.set(id, { row: null, atMs });
    if (plan.upserts.length + plan.deletes.length > 0) {
      logger.info("rows written", {
        put: plan.upserts.map((row) => `${row.name} ${row.ip} ${row.health}`),
        removed: plan.deletes.map((id) => id.slice(0, 12)),
      });
    }
    await this.#announceServices(wanted);
  }

  /** The engine may have been read before the rows came: what they say is not to be overwritten. */
  #believeRows(): void {
    const { facts, view } = this.#context;
    let isNew = false;
    for (const [id, state] of facts.health) {
      const believed = believeRow(state, view.containers.get(id));
      isNew ||= believed.status !== state.status;
      facts.health.set(id, believed);
    }
    if (isNew) this.#onHealth();
  }

  /**
   * Most new containers are healthy within a moment: one row for them instead of two. Of one that ran
   * before the daemon did and has no row nothing is known until its first check.
   */
  #isToTell(container: ObservedContainer): boolean {
    const { facts, clock } = this.#context;
    const state = facts.health.get(container.id);
    if (state?.status !== "starting") return true;
    if (state.wasThere && state.checks === 0) return false;
    const ageMs = clock.nowMs() - container.startedAtMs;
    return ageMs < 0 || ageMs >= STARTING_UNTOLD_MS;
  }

  /** What Corrosion has: the view, with own writes of the last moments laid over it. */
  #present(): ContainerRow[] {
    const rows = new Map(this.#context.view.containers);
    const nowMs = this.#context.clock.monotonicMs();
    for (const [id, { row, atMs }] of this.#written) {
      if (nowMs - atMs > VIEW_LAG_MS) this.#written.delete(id);
      else if (row) rows.set(id, row);
      else rows.delete(id);
    }
    return [...rows.values()];
  }

  async #announceServices(rows: readonly ContainerRow[]): Promise<void> {
    const { api, config, clock } = this.#context;
    const nowMs = clock.monotonicMs();
    if (nowMs - this.#announcedAtMs >= ANNOUNCE_EVERY_MS) {
      this.#services.clear();
      this.#announcedAtMs = nowMs;
    }
    const missing = new Map(
      rows.map((row) => [`${row.project}/${row.service}`, row] as const)
        .filter(([key]) => !this.#services.has(key)),
    );
    await api.execute([...missing.values()].map((row) => upsertService(row, config.server_id)));
    for (const key of missing.keys()) this.#services.add(key);
  }
}
