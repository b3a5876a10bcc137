/** Duty: the routes of this server's kamal-proxy. */
import {
  isVouched,
  parseProxyListing,
  parseProxyState,
  PROXY_CONTAINER,
  PROXY_VOLUME,
  type ProxyState,
  SERVER_PATHS,
} from "@jiji/core/cluster";
import { type CommandResult, isOk, JijiError } from "@jiji/core/runtime";
import { type DaemonContext, mustRun, renderFailure, tryRun } from "../daemon_context.ts";
import { argvInspect, argvProxyExec, argvVolumePath } from "../engine/argv.ts";
import { parseInspected } from "../engine/containers.ts";
import {
  argvRouteRepair,
  type DesiredRoute,
  dwell,
  findRestored,
  planRouteRepairs,
  REPAIR_DWELL_MS,
  type RouteRepair,
} from "../proxy_routes.ts";
import { vouchFor } from "../vouching.ts";

/** Name of kamal-proxy's state file in its volume. */
const STATE_FILE = "kamal-proxy.state";
/** When the proxy was started whose routes were last found right, Unix ms. */
const STARTED_FILE = `${SERVER_PATHS.daemonState}/proxy_started`;
/** A repair takes this long at most: kamal-proxy's wait for health, and 30 s of draining. */
const REPAIR_TIMEOUT_MS = 45_000;
/** While the state file can't be read and all is well, the proxy is asked this often, milliseconds. */
const LISTING_EVERY_MS = 10_000;
/** A proxy that is just coming up refuses commands; they are tried again this soon, milliseconds. */
const COMING_UP_RETRY_MS = 300;
/** How long a proxy may take to come up, milliseconds. */
const COMING_UP_MS = 15_000;

/** Sets routes that are missing or lead nowhere. */
export class ProxyDuty {
  readonly #context: DaemonContext;
  #since: ReadonlyMap<string, number> = new Map();
  #statePath: string | undefined;
  #unreadableSinceMs: number | undefined;
  #listedAtMs = -Infinity;
  /** Start of the proxy that {@link #restored} is about, Unix ms. */
  #startedAtMs: number | undefined;
  /** Routes that this proxy may have put back by itself and that were not set since. */
  #restored: ReadonlySet<string> = new Set();
  #isSettled = false;

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /**
   * One look at the state file, which is cheap; the engine is asked only when something is wrong.
   *
   * @returns the pause before the next look, where it must come sooner than usual.
   */
  async run(signal: AbortSignal): Promise<number | void> {
    const { facts, clock } = this.#context;
    const wanting = facts.containers?.some((one) => one.labels && one.labels.proxy.length > 0);
    if (!facts.containers || !wanting) return;
    const state = await this.#observe(signal);
    if (!state) return;
    await this.#noticeStart(state);
    const judged = facts.containers.map((container) => ({
      container,
      health: facts.health.get(container.id)?.status ?? "starting" as const,
    }));
    const repairs = planRouteRepairs(judged, { state, restored: this.#restored });
    const { due, since } = dwell(repairs, { since: this.#since, nowMs: clock.monotonicMs() });
    this.#since = since;
    if (due.length > 0 && await this.#proxyRuns(signal)) {
      for (const repair of due) await this.#repair(repair, signal);
    }
    await this.#settleStart();
    const ageMs = clock.nowMs() - (this.#startedAtMs ?? 0);
    if (this.#restored.size > 0 && ageMs >= 0 && ageMs < COMING_UP_MS) return COMING_UP_RETRY_MS;
  }

  /** Routes in the state file, or those that the proxy lists when it stays unreadable. */
  async #observe(signal: AbortSignal): Promise<ProxyState | undefined> {
    const { files, clock, config } = this.#context;
    this.#statePath ??= await this.#findState(signal);
    const text = await files.read(this.#statePath);
    if (text === undefined) return new Map();
    // An empty file is half a file as well: kamal-proxy writes `[]` for no routes.
    const state = text.trim() === "" ? undefined : parseProxyState(text);
    if (state) {
      this.#unreadableSinceMs = undefined;
      return state;
    }
    const nowMs = clock.monotonicMs();
    this.#unreadableSinceMs ??= nowMs;
    if (nowMs - this.#unreadableSinceMs < REPAIR_DWELL_MS) return undefined;
    const isWell = this.#since.size === 0;
    if (isWell && nowMs - this.#listedAtMs < LISTING_EVERY_MS) return undefined;
    const argv = argvProxyExec(config.engine, { container: PROXY_CONTAINER, args: ["list"] });
    const listing = await tryRun(this.#context, argv, signal);
    if (!isOk(listing)) return undefined;
    const listed = parseProxyListing(listing.stdout);
    this.#listedAtMs = nowMs;
    return listed;
  }

  /** Finds out which routes the proxy put back by itself, and which of them were set since. */
  async #noticeStart(state: ProxyState): Promise<void> {
    const { facts, files } = this.#context;
    const startedAtMs = facts.proxyStartedAtMs;
    if (startedAtMs === undefined || !facts.containers) return;
    const restored = findRestored(facts.containers, { state, proxyStartedAtMs: startedAtMs });
    if (this.#startedAtMs === startedAtMs) {
      this.#restored = this.#restored.intersection(restored);
      return;
    }
    this.#startedAtMs = startedAtMs;
    const settled = (await files.read(STARTED_FILE))?.trim();
    this.#isSettled = settled === String(startedAtMs);
    this.#restored = this.#isSettled ? new Set() : restored;
  }

  /** Remembers that all was set, so that a daemon that is started anew sets nothing again. */
  async #settleStart(): Promise<void> {
    if (this.#isSettled || this.#startedAtMs === undefined || this.#restored.size > 0) return;
    await this.#context.files.replace(STARTED_FILE, `${this.#startedAtMs}\n`, { mode: 0o600 });
    this.#isSettled = true;
  }

  async #repair(repair: RouteRepair, signal: AbortSignal): Promise<void> {
    const { logger, config } = this.#context;
    const argv = argvRouteRepair(config.engine, repair.route);
    const result = await this.#set(repair.route, signal);
    if (isOk(result)) {
      this.#restored = this.#restored.difference(new Set([repair.route.name]));
      logger.info("route repaired", { ...repair });
    } else logger.warn("route not repaired", { ...repair, error: renderFailure(argv, result) });
  }

  async #set(route: DesiredRoute, signal: AbortSignal): Promise<CommandResult> {
    const { config, process } = this.#context;
    const timeoutMs = REPAIR_TIMEOUT_MS;
    const set = () => process.run(argvRouteRepair(config.engine, route), { timeoutMs, signal });
    if (!isVouched(route)) return await set();
    try {
      return await vouchFor(route.targets, { engine: config.engine, process, timeoutMs }, set);
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
