/** Duty: forwarding and the firewall rules that let the container network be routed. */
import { SERVER_PATHS } from "@jiji/core/cluster";
import { isOk } from "@jiji/core/runtime";
import {
  ARGV_FIREWALL_APPLY,
  ARGV_FIREWALL_LIST,
  firewallRules,
  type ObservedFirewall,
  parseFirewall,
  planFirewall,
  renderFirewallSteps,
} from "../engine/container_network.ts";
import {
  type EngineRules,
  judgeEngineRules,
  observeEngineRules,
  RULES_UNSEEN,
} from "../engine/engine_rules.ts";
import {
  COMMAND_TIMEOUT_MS,
  type DaemonContext,
  mustRun,
  renderFailure,
  tryRun,
} from "../daemon_context.ts";

/** Remembers until the next boot that Docker manages rules here, should all be flushed. */
const SEEN_FILE = `${SERVER_PATHS.run}/docker-rules`;

/** Puts back what a reload of the host's firewall, or a hand, took away. */
export class FirewallDuty {
  readonly #context: DaemonContext;
  readonly #reported = new Set<string>();
  #rules: EngineRules | undefined;

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
    const list = await tryRun(this.#context, ARGV_FIREWALL_LIST, signal);
    if (list.exitCode === 127) {
      return this.#sayOnce("iptables is not installed: forwarding rules are not managed");
    }
    if (!isOk(list)) throw new Error(renderFailure(ARGV_FIREWALL_LIST, list));
    const observed = parseFirewall(list.stdout);
    await this.#engineRules(observed, signal);
    const steps = planFirewall(firewallRules(config.engine, config), observed);
    if (steps.length === 0) return;
    const stdin = renderFirewallSteps(steps);
    const options = { stdin, signal, timeoutMs: COMMAND_TIMEOUT_MS };
    const applied = await this.#context.process.run(ARGV_FIREWALL_APPLY, options);
    if (!isOk(applied)) throw new Error(renderFailure(ARGV_FIREWALL_APPLY, applied));
    for (const step of steps) logger.info("firewall changed", { ...step });
  }

  async #engineRules(observed: ObservedFirewall, signal: AbortSignal): Promise<void> {
    const { config, clock, facts, files, logger } = this.#context;
    if (config.engine !== "docker") return;
    const before = this.#rules ??
      { ...RULES_UNSEEN, seen: await files.read(SEEN_FILE) !== undefined };
    const { state, restart } = judgeEngineRules(before, {
      ...observeEngineRules(observed),
      refused: facts.networkRefused ?? false,
      nowMs: clock.monotonicMs(),
    });
    if (state.seen && !before.seen) await files.replace(SEEN_FILE, "", { mode: 0o644 });
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
