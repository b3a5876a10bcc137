/** Duty: forwarding and the firewall rules that let the container network be routed. */
import { isOk } from "@jiji/core/runtime";
import {
  argvFirewallList,
  argvFirewallStep,
  FIREWALL_TABLES,
  firewallRules,
  type FirewallTable,
  planFirewall,
} from "../engine/container_network.ts";
import { type EngineRules, judgeEngineRules, RULES_UNSEEN } from "../engine/engine_rules.ts";
import { type DaemonContext, mustRun, renderFailure, tryRun } from "../daemon_context.ts";

/** Puts back what a reload of the host's firewall, or a hand, took away. */
export class FirewallDuty {
  readonly #context: DaemonContext;
  readonly #reported = new Set<string>();
  #rules: EngineRules = RULES_UNSEEN;

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /** One look at forwarding and rules; a failure of one does not keep the other. */
  async run(signal: AbortSignal): Promise<void> {
    const failures: unknown[] = [];
    for (const part of [() => this.#forwarding(signal), () => this.#firewall(signal)]) {
      await part().catch((error) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
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
    await this.#engineRules(text("nat"), signal);
    const observed = { filter: text("filter"), nat: text("nat"), mangle: text("mangle") };
    for (const step of planFirewall(firewallRules(config.engine, config), observed)) {
      await mustRun(this.#context, argvFirewallStep(step), signal);
      logger.info("firewall changed", { ...step });
    }
  }

  async #engineRules(nat: string, signal: AbortSignal): Promise<void> {
    const { config, clock, facts, logger } = this.#context;
    if (config.engine !== "docker") return;
    const { state, restart } = judgeEngineRules(this.#rules, {
      hasRules: /^-A PREROUTING .*-j DOCKER$/m.test(nat),
      refused: facts.networkRefused ?? false,
      nowMs: clock.monotonicMs(),
    });
    this.#rules = state;
    if (!restart) return;
    logger.error("docker's firewall rules were flushed: restarting docker", {});
    await mustRun(this.#context, ["systemctl", "try-restart", "docker.service"], signal);
    this.#context.wake("network");
  }

  #sayOnce(message: string): void {
    if (this.#reported.has(message)) return;
    this.#reported.add(message);
    this.#context.logger.warn(message);
  }
}
