/** Duty: the container network and its bridge. */
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
} from "../engine/container_bridge.ts";
import {
  networkSpec,
  type ObservedNetwork,
  parseNetwork,
  planNetwork,
  renderNetavarkNetwork,
} from "../engine/container_network.ts";
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

/** Keeps the network in place. */
export class NetworkDuty {
  readonly #context: DaemonContext;
  /** Stray ports of the last look: those that are none of ours are not looked at again. */
  #strays = "";

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /** One look at the network, and at its bridge when that is as it must be. */
  async run(signal: AbortSignal): Promise<void> {
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
    const { config, files, clock, facts, wake } = this.#context;
    if (config.engine === "docker") {
      const argv = argvDockerNetworkCreate(spec);
      const result = await tryRun(this.#context, argv, signal);
      facts.networkRefused = /iptables|NAT chain/i.test(result.stderr);
      if (isOk(result)) return;
      if (facts.networkRefused) wake("firewall");
      throw new Error(renderFailure(argv, result));
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
}
