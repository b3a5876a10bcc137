/** Duty: the container network, forwarding and the firewall. */
import { CONTAINER_BRIDGE, PROXY_CONTAINER } from "@jiji/core/cluster";
import { isOk, randomHex } from "@jiji/core/runtime";
import {
  argvFirewallList,
  argvFirewallStep,
  firewallRules,
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
  argvNetworkInspect,
  argvNetworkRemove,
  type NetworkSpec,
} from "../engine/argv.ts";

/** Where podman's netavark keeps its networks. Source: podman 4.3, containers.conf(5). */
export const NETAVARK_NETWORKS = "/etc/containers/networks";

/** Keeps the network and its rules in place. */
export class NetworkDuty {
  readonly #context: DaemonContext;
  readonly #reported = new Set<string>();

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
    if (plan.kind === "keep") return await this.#bridge(signal);
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

  /** Podman makes the bridge with the first container and can make a lost one again. */
  async #bridge(signal: AbortSignal): Promise<void> {
    const { config, facts, logger } = this.#context;
    const result = await tryRun(this.#context, ["ip", "link", "show", CONTAINER_BRIDGE], signal);
    if (isOk(result)) return;
    if (config.engine === "podman") {
      if (!facts.containers?.some((container) => container.running)) return;
      logger.warn("bridge is missing: reloading podman's networks", { bridge: CONTAINER_BRIDGE });
      await mustRun(this.#context, ["podman", "network", "reload", "--all"], signal);
      return;
    }
    logger.warn("bridge is missing: making the network again", { bridge: CONTAINER_BRIDGE });
    const spec = networkSpec(config);
    const removed = await tryRun(
      this.#context,
      argvNetworkRemove(config.engine, spec.name),
      signal,
    );
    if (isOk(removed)) return await this.#create(spec, signal);
    throw new Error(
      `bridge ${CONTAINER_BRIDGE} is missing and containers are attached: restart docker ` +
        `(systemctl restart docker); ${PROXY_CONTAINER} and services come back by themselves`,
    );
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
      (["filter", "nat"] as const).map((table) =>
        tryRun(this.#context, argvFirewallList(table), signal)
      ),
    );
    if (lists.some((list) => list.exitCode === 127)) {
      return this.#sayOnce("iptables is not installed: forwarding rules are not managed");
    }
    const failed = lists.find((list) => !isOk(list));
    if (failed) throw new Error(renderFailure(argvFirewallList("filter"), failed));
    const observed = { filter: lists[0]?.stdout ?? "", nat: lists[1]?.stdout ?? "" };
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
