/** `jiji-daemon run`: builds the real ports, the duty table, and runs until told to stop. */
import { SERVER_PATHS, type ServerConfig } from "@jiji/core/cluster";
import { corrosionHttpApi, subscribe } from "@jiji/core/corrosion";
import {
  type Clock,
  createJsonLogger,
  messageOf,
  type Secret,
  systemProcess,
  systemRandom,
  VERSION,
} from "@jiji/core/runtime";
import { ClusterView } from "../state/cluster_view.ts";
import { type DaemonContext, tryRun } from "../daemon_context.ts";
import { type Duty, DutyLoop } from "../duty_loop.ts";
import { AddressesDuty, askAddress } from "../duties/addresses.ts";
import { systemCheckNetwork } from "../duties/checks.ts";
import { BackupDuty } from "../duties/backup.ts";
import { CollectionDuty } from "../duties/collection.ts";
import { ContainersDuty, HealthDuty, RegistryDuty } from "../duties/containers.ts";
import { CorrosionDuty } from "../duties/corrosion.ts";
import { DnsWatchDuty } from "../duties/dns_watch.ts";
import { FirewallDuty } from "../duties/firewall.ts";
import { HeartbeatDuty } from "../duties/heartbeat.ts";
import { KeyChangeDuty } from "../duties/key_change.ts";
import { bindDatagram, knockTcp, LivenessDuty } from "../duties/liveness.ts";
import { NetworkDuty } from "../duties/network.ts";
import { NewsDuty, serveNews } from "../duties/news.ts";
import { FarewellDuty, MemoryDuty, StandDownDuty } from "../duties/removal.ts";
import { PathMtuDuty } from "../duties/path_mtu.ts";
import { ProxyDuty } from "../duties/proxy.ts";
import { EndpointDuty, TopologyDuty } from "../duties/topology.ts";
import { watchLinks } from "../mesh/link_watch.ts";
import { PROBE_EVERY_MS } from "../liveness/liveness_prober.ts";
import { systemdNotifier, WATCHDOG_EVERY_MS, WatchdogDuty } from "../duties/watchdog.ts";
import { serveReport } from "../duties/reporting.ts";
import { parseRemovedServers, REMOVED_FILE } from "../state/removed_servers.ts";
import { HealthyFile } from "../healthy_file.ts";
import { systemFiles } from "../system_files.ts";

/** Options of `jiji-daemon run`. */
export interface RunOptions {
  readonly config: ServerConfig;
  readonly corrosionUrl: string;
  readonly token: Secret;
  readonly signal: AbortSignal;
  readonly clock: Clock;
}

/** The duties with their pace. */
export interface DutySet {
  readonly duties: readonly Duty[];
  readonly containers: ContainersDuty;
  readonly liveness: LivenessDuty;
  readonly pathMtu: PathMtuDuty;
  readonly news: NewsDuty;
  readonly farewell: FarewellDuty;
  readonly corrosion: CorrosionDuty;
}

/** Runs every duty until the signal aborts. */
export async function runDaemon(options: RunOptions): Promise<void> {
  const logger = await createJsonLogger("jiji-daemon", "info");
  const { config, signal, clock } = options;
  logger.info("starting", { version: VERSION, server: config.server_id, engine: config.engine });
  const address = { url: options.corrosionUrl, token: options.token };
  let wake: (duty: string) => void = () => undefined;
  const context: DaemonContext = {
    config,
    clock,
    process: systemProcess,
    files: systemFiles,
    api: corrosionHttpApi(address),
    view: new ClusterView(),
    logger,
    facts: {
      peers: [],
      containers: undefined,
      health: new Map(),
      silent: new Set(),
      standsDown: false,
      removed: parseRemovedServers(await systemFiles.read(REMOVED_FILE) ?? ""),
      told: new Set(),
    },
    wake: (duty) => wake(duty),
  };
  await tellVersion(context);
  const set = dutySet(context);
  const loop = new DutyLoop(set.duties, { clock, logger, signal });
  wake = (duty) => loop.wake(duty);
  let leaving: Promise<void> = Promise.resolve();
  signal.addEventListener("abort", () => {
    leaving = leave(context, set.liveness);
    set.pathMtu.close();
    set.news.close();
    set.farewell.close();
  }, { once: true });
  const following = context.view.follow({
    api: context.api,
    subscribe: (statement, more) => subscribe(address, statement, more),
    clock,
    random: systemRandom,
    logger,
    signal,
    onServers: () => ["topology", "heartbeat", "memory", "farewell"].forEach(wake),
    onContainers: () => wake("registry"),
  });
  const reporting = serveReport({
    context,
    corrosion: () => set.corrosion.report,
    duties: () => loop.stats,
    signal,
  });
  const watching = [reporting, set.containers.watch(signal), watchLinks(context, signal)];
  await Promise.all([loop.run(), following, ...watching]).catch((error) => {
    if (!signal.aborted) throw error;
    logger.debug("ended while stopping", { error: messageOf(error) });
  });
  await leaving;
  logger.info("stopped");
}

/** This process ends. When all of the server does, the others are told; containers here go on else. */
async function leave(context: DaemonContext, liveness: LivenessDuty): Promise<void> {
  if (!await isShuttingDown(context)) return liveness.close();
  context.logger.info("the server shuts down");
  await liveness.leave();
}

/** systemd may be asked this often whether the server shuts down. */
const STATE_TRIES = 5;

/** Whether the server shuts down. Source: systemctl(1), `is-system-running`. */
export async function isShuttingDown(context: Pick<DaemonContext, "process">): Promise<boolean> {
  for (let tries = 0; tries < STATE_TRIES; tries++) {
    const state = await tryRun(context, ["systemctl", "is-system-running"]).catch(() => undefined);
    // systemd ends all processes of a unit in one go: the one that asks may be among them.
    if (state && state.signal === undefined) return state.stdout.trim() === "stopping";
  }
  return false;
}

/** For commands of the CLI: reading a file is cheaper than starting this program to ask it. */
async function tellVersion({ files, logger }: DaemonContext): Promise<void> {
  await files.replace(SERVER_PATHS.version, `${VERSION}\n`, { mode: 0o644 }).catch((error) =>
    logger.warn("version not told", { error: messageOf(error) })
  );
}

/**
 * What was left over is looked for this often, milliseconds: a daemon that does little waits for
 * long until V8 does so by itself, and holds memory that containers could use.
 */
const TIDY_EVERY_MS = 60_000;

/** Runs the collector where the executable lets us (`--expose-gc` in permissions.txt). */
function tidy(): void {
  const { gc } = globalThis as { readonly gc?: () => void };
  gc?.();
}

function dutySet(context: DaemonContext): DutySet {
  const topology = new TopologyDuty(context);
  const endpoints = new EndpointDuty(context);
  const addresses = new AddressesDuty(context, askAddress);
  const keyChange = new KeyChangeDuty(context);
  const pathMtu = new PathMtuDuty(context, bindDatagram);
  const network = new NetworkDuty(context);
  const firewall = new FirewallDuty(context);
  const healthy = new HealthyFile(context);
  const onHealth = () => void healthy.tell();
  const containers = new ContainersDuty(context, onHealth);
  const health = new HealthDuty(context, systemCheckNetwork, onHealth);
  const news = new NewsDuty(context, bindDatagram, serveNews);
  const liveness = new LivenessDuty(context, bindDatagram, {
    knock: knockTcp,
    onVerdict: () => news.tellLiveness(),
  });
  const registry = new RegistryDuty(context, {
    tell: (rows, gone) => news.tell(rows, gone),
    onHealth,
  });
  const heartbeat = new HeartbeatDuty(context, Deno.hostname());
  const corrosion = new CorrosionDuty(context);
  const dnsWatch = new DnsWatchDuty(context, bindDatagram);
  const proxy = new ProxyDuty(context);
  const collection = new CollectionDuty(context);
  const memory = new MemoryDuty(context);
  const farewell = new FarewellDuty(context, bindDatagram);
  const standDown = new StandDownDuty(context);
  const backup = new BackupDuty(context);
  const watchdog = new WatchdogDuty(systemdNotifier(Deno.env.get("NOTIFY_SOCKET")));
  const duty = (
    name: string,
    pace: { readonly everyMs: number; readonly timeoutMs: number },
    run: Duty["run"],
  ): Duty => ({ name, ...pace, run });
  const duties = [
    duty("topology", { everyMs: 15_000, timeoutMs: 60_000 }, (s) => topology.run(s)),
    duty("endpoints", { everyMs: 10_000, timeoutMs: 30_000 }, (s) => endpoints.run(s)),
    duty("addresses", { everyMs: 10_000, timeoutMs: 60_000 }, (s) => addresses.run(s)),
    duty("key-change", { everyMs: 3_000, timeoutMs: 120_000 }, (s) => keyChange.run(s)),
    duty("path-mtu", { everyMs: 5_000, timeoutMs: 60_000 }, (s) => pathMtu.run(s)),
    duty("network", { everyMs: 30_000, timeoutMs: 60_000 }, (s) => network.run(s)),
    // A reload of the host's firewall takes our rules away and tells nobody.
    duty("firewall", { everyMs: 5_000, timeoutMs: 30_000 }, (s) => firewall.run(s)),
    duty("containers", { everyMs: 30_000, timeoutMs: 60_000 }, (s) => containers.run(s)),
    duty("health", { everyMs: 1_000, timeoutMs: 5_000 }, () => health.run()),
    duty("registry", { everyMs: 5_000, timeoutMs: 30_000 }, () => registry.run()),
    duty("heartbeat", { everyMs: 2_000, timeoutMs: 15_000 }, () => heartbeat.run()),
    duty("news", { everyMs: 1_000, timeoutMs: 5_000 }, () => news.run()),
    duty("liveness", { everyMs: PROBE_EVERY_MS, timeoutMs: 5_000 }, () => liveness.run()),
    duty("proxy", { everyMs: 2_000, timeoutMs: 300_000 }, (s) => proxy.run(s)),
    duty("collection", { everyMs: 60_000, timeoutMs: 30_000 }, () => collection.run()),
    duty("corrosion", { everyMs: 10_000, timeoutMs: 45_000 }, (s) => corrosion.run(s)),
    duty("dns-watch", { everyMs: 5_000, timeoutMs: 30_000 }, (s) => dnsWatch.run(s)),
    duty("memory", { everyMs: 15_000, timeoutMs: 30_000 }, () => memory.run()),
    duty("farewell", { everyMs: 5_000, timeoutMs: 30_000 }, (s) => farewell.run(s)),
    duty("stand-down", { everyMs: 5_000, timeoutMs: 600_000 }, (s) => standDown.run(s)),
    duty("tidy", { everyMs: TIDY_EVERY_MS, timeoutMs: 5_000 }, () => Promise.resolve(tidy())),
    duty("watchdog", { everyMs: WATCHDOG_EVERY_MS, timeoutMs: 5_000 }, () => watchdog.run()),
    duty("backup", { everyMs: 600_000, timeoutMs: 60_000 }, (s) => backup.run(s)),
  ];
  return { duties, containers, liveness, pathMtu, news, farewell, corrosion };
}
