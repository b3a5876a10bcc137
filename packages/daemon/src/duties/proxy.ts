/** Duty: the routes of this server's kamal-proxy. */
import { isVouched, PROXY_CONTAINER, PROXY_VOLUME } from "@jiji/core/cluster";
import { type CommandResult, isOk, JijiError } from "@jiji/core/runtime";
import {
  COMMAND_TIMEOUT_MS,
  type DaemonContext,
  mustRun,
  renderFailure,
  tryRun,
} from "../daemon_context.ts";
import { argvInspect, argvVolumePath } from "../engine/argv.ts";
import { parseInspected } from "../engine/containers.ts";
import {
  argvRouteRepair,
  type DesiredRoute,
  dwell,
  parseProxyState,
  planRouteRepairs,
} from "../proxy_routes.ts";
import { vouchFor } from "../vouching.ts";

/** Name of kamal-proxy's state file in its volume. */
const STATE_FILE = "kamal-proxy.state";

/** Sets routes that are missing or lead nowhere. */
export class ProxyDuty {
  readonly #context: DaemonContext;
  #since: ReadonlyMap<string, number> = new Map();
  #statePath: string | undefined;

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /** One look at the state file, which is cheap; the engine is asked only when something is wrong. */
  async run(signal: AbortSignal): Promise<void> {
    const { facts, files, clock, logger, config } = this.#context;
    const wanting = facts.containers?.some((one) => one.labels && one.labels.proxy.length > 0);
    if (!facts.containers || !wanting) return;
    this.#statePath ??= await this.#findState(signal);
    const observed = parseProxyState(await files.read(this.#statePath) ?? "");
    if (!observed) return;
    const judged = facts.containers.map((container) => ({
      container,
      health: facts.health.get(container.id)?.status ?? "starting" as const,
    }));
    const repairs = planRouteRepairs(judged, observed);
    const { due, since } = dwell(repairs, { since: this.#since, nowMs: clock.monotonicMs() });
    this.#since = since;
    if (due.length === 0 || !await this.#proxyRuns(signal)) return;
    for (const repair of due) {
      const argv = argvRouteRepair(config.engine, repair.route);
      const result = await this.#repair(repair.route, signal);
      if (isOk(result)) logger.info("route repaired", { ...repair });
      else logger.warn("route not repaired", { ...repair, error: renderFailure(argv, result) });
    }
  }

  async #repair(route: DesiredRoute, signal: AbortSignal): Promise<CommandResult> {
    const { config, process } = this.#context;
    const set = () => tryRun(this.#context, argvRouteRepair(config.engine, route), signal);
    if (!isVouched(route)) return await set();
    const ports = { engine: config.engine, process, timeoutMs: COMMAND_TIMEOUT_MS };
    try {
      return await vouchFor(route.targets, ports, set);
    } catch (error) {
      if (!(error instanceof JijiError)) throw error;
      return { exitCode: 1, signal: undefined, stdout: "", stderr: error.message, durationMs: 0 };
    }
  }

  async #proxyRuns(signal: AbortSignal): Promise<boolean> {
    const argv = argvInspect(this.#context.config.engine, [PROXY_CONTAINER]);
    const result = await tryRun(this.#context, argv, signal);
    return isOk(result) && parseInspected(result.stdout)[0]?.running === true;
  }

  async #findState(signal: AbortSignal): Promise<string> {
    const argv = argvVolumePath(this.#context.config.engine, PROXY_VOLUME);
    const folder = (await mustRun(this.#context, argv, signal)).trim();
    if (!folder.startsWith("/")) throw new Error(`volume ${PROXY_VOLUME} has no folder`);
    return `${folder}/${STATE_FILE}`;
  }
}
