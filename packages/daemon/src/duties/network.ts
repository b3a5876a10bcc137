/** Duty: the container network, forwarding and the firewall. */
import { isOk, randomHex } from "@jiji/core/runtime";
import {
  ARGV_LINKS,
  argvAttached,
  argvBridgeStep,
  argvLinksOf,
  type Link,
  parseLinks,
  planBridge,
  strayPorts,
} from "../container_bridge.ts";
import {
  argvFirewallList,
  argvFirewallStep,
  FIREWALL_TABLES,
  firewallRules,
  type FirewallTable,
  networkSpec,
  type ObservedNetwork,
  parseNetwork,
  planFirewall,
  planNetwork,
  renderNetavarkNetwork,
} from "../container_network.ts";
import { type DaemonContext, mustRun, renderFailure, tryRun } from "../daemon_context.ts";
import {
  argvDockerNetworkCreate,
  argvInspect,
  argvNetworkInspect,
  argvNetworkRemove,
  type NetworkSpec,
} from "../engine/argv.ts";
import { parseIds, parseInspected } from "../engine/containers.ts";

/** Where podman's netavark keeps its networks. Source: podman 4.3, containers.conf(5). */
export const NETAVARK_NETWORKS = "/etc/containers/networks";

/** Keeps the network and its rules in place. */
export class NetworkDuty {
  readonly #context: DaemonContext;
  readonly #reported = new Set<string>();
  /** Stray ports of the last look: those that are none of ours are not looked at again. */
  #strays = "";

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /** One look at network, forwarding and firewall; a failure of one does not keep the others. */
  async run(signal: AbortSignal): Promise<void> {
    const failures: unknown[] = [];
    const parts = [
      () => this.#network(signal),
      () => this.#forwarding(signal),
      () => this.#firewall(signal),
    ];
    for (const part of parts) await part().catch((error) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  }

  async #network(signal: AbortSignal): Promise<void> {
    const { config, logger } = this.#context;
    const spec = networkSpec(config);
    const plan = planNetwork(spec, await this.#observe(spec, signal));
    if (plan.kind === "keep") return await this.#bridge(spec, signal);
    logger.info("container network", { ...plan });
    if (plan.kind === "replace") {
      // The engine refuses while containers are attached: they are never torn off.
      await mustRun(this.#context, argvNetworkRemove(config.engine, spec.name), signal);
    }
    await this.#create(spec, signal);
  }

  async #observe(spec: NetworkSpec, signal: AbortSignal): Promise<ObservedNetwork | undefined> {
    const argv = argvNetworkInspect(this.#context.config.engine, spec.name);
    const result = await tryRun(this.#context, argv, signal);
    if (isOk(result)) return parseNetwork(result.stdout);
    if (/not found|no such network/i.test(result.stderr)) return undefined;
    throw new Error(renderFailure(argv, result));
  }

  async #create(spec: NetworkSpec, signal: AbortSignal): Promise<void> {
    const { config, files, clock } = this.#context;
    if (config.engine === "docker") {
      await mustRun(this.#context, argvDockerNetworkCreate(spec), signal);
      return;
    }
    const argv = ["podman", "info", "--format", "{{.Host.NetworkBackend}}"] as const;
    const backend = (await mustRun(this.#context, argv, signal)).trim();
    if (backend !== "netavark") {
      throw new Error(`podman's network backend is ${backend}: install netavark`);
    }
    const text = renderNetavarkNetwork(spec, { id: randomHex(32), createdAtMs: clock.nowMs() });
    await files.replace(`${NETAVARK_NETWORKS}/${spec.name}.json`, text, { mode: 0o644 });
  }

  /**
   * Puts a bridge right that was deleted, switched off or emptied by hand. Podman makes it with the
   * first container and takes it away with the last.
   */
  async #bridge(spec: NetworkSpec, signal: AbortSignal): Promise<void> {
    const { config, logger } = this.#context;
    const links = parseLinks(await mustRun(this.#context, ARGV_LINKS, signal));
    const strays = strayPorts(links).map((link) => link.name).join();
    const isSound = planBridge(spec, { links, containers: [] }).length === 0;
    if (isSound && (strays === "" || strays === this.#strays)) return;
    const containers = await this.#attached(spec, signal);
    if (!isSound && config.engine === "podman" && containers.length === 0) return;
    for (const step of planBridge(spec, { links, containers })) {
      await mustRun(this.#context, argvBridgeStep(step), signal);
      logger.warn("bridge mended", { ...step });
    }
    this.#strays = strays;
  }

  /** Interfaces of every container in the network; one that ends meanwhile has none. */
  async #attached(spec: NetworkSpec, signal: AbortSignal): Promise<Link[][]> {
    const { engine } = this.#context.config;
    const ids = parseIds(await mustRun(this.#context, argvAttached(engine, spec.name), signal));
    if (ids.length === 0) return [];
    const { stdout } = await tryRun(this.#context, argvInspect(engine, ids), signal);
    const found: Link[][] = [];
    for (const { pid } of parseInspected(stdout)) {
      if (pid === undefined) continue;
      const result = await tryRun(this.#context, argvLinksOf(pid), signal);
      if (isOk(result)) found.push(parseLinks(result.stdout));
    }
    return found;
  }

  async #forwarding(signal: AbortSignal): Promise<void> {
    const key = "net.ipv4.ip_forward";
    if ((await mustRun(this.#context, ["sysctl", "-n", key], signal)).trim() === "1") return;
    await mustRun(this.#context, ["sysctl", "-w", `${key}=1`], signal);
    this.#context.logger.info("forwarding switched on");
  }

  async #firewall(signal: AbortSignal): Promise<void> {
    const { config, logger } = this.#context;
    const lists = await Promise.all(
      FIREWALL_TABLES.map((table) => tryRun(this.#context, argvFirewallList(table), signal)),
    );
    if (lists.some((list) => list.exitCode === 127)) {
      return this.#sayOnce("iptables is not installed: forwarding rules are not managed");
    }
    const failed = lists.find((list) => !isOk(list));
    if (failed) throw new Error(renderFailure(argvFirewallList("filter"), failed));
    const text = (table: FirewallTable) => lists[FIREWALL_TABLES.indexOf(table)]?.stdout ?? "";
    const observed = { filter: text("filter"), nat: text("nat"), mangle: text("mangle") };
    for (const step of planFirewall(firewallRules(config.engine, config), observed)) {
      await mustRun(this.#context, argvFirewallStep(step), signal);
      logger.info("firewall changed", { ...step });
    }
  }

  #sayOnce(message: string): void {
    if (this.#reported.has(message)) return;
    this.#reported.add(message);
    this.#context.logger.warn(message);
  }
}
