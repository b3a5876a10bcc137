/** Duty: forwarding and the firewall rules that let the container network be routed. */
import { SERVER_PATHS } from "@jiji/core/cluster";
import { type Argv, isOk, messageOf } from "@jiji/core/runtime";
import {
  type EngineRules,
  judgeEngineRules,
  observeEngineRules,
  RULES_UNSEEN,
} from "../firewall/engine_rules.ts";
import {
  entryRules,
  type FirewallCommands,
  type FirewallRule,
  firewallRules,
  IP6TABLES,
  IPTABLES,
  isClosed,
  type ObservedFirewall,
  parseFirewall,
  planFirewall,
  renderFirewallSteps,
} from "../firewall/iptables_rules.ts";
import {
  ARGV_GATES_APPLY,
  ARGV_GATES_LIST,
  parseGates,
  planGates,
  renderGateSteps,
} from "../firewall/nft_gates.ts";
import { parseDropRules } from "../farewell.ts";
import {
  COMMAND_TIMEOUT_MS,
  type DaemonContext,
  mustRun,
  renderFailure,
  tryRun,
} from "../daemon_context.ts";

/**
 * How often it is looked whether this host refuses what nobody named, by IPv6 or in tables of its
 * owner, milliseconds. A host that does is looked at in every run.
 */
const CLOSED_EVERY_MS = 10_000;

/** Remembers until the next boot that Docker manages rules here, should all be flushed. */
const SEEN_FILE = `${SERVER_PATHS.run}/docker-rules`;

/** Puts back what a reload of the host's firewall, or a hand, took away. */
export class FirewallDuty {
  readonly #context: DaemonContext;
  readonly #reported = new Set<string>();
  #rules: EngineRules | undefined;
  #closedAtMs = -Infinity;

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /** One look at forwarding and rules; a failure of one does not keep the other. */
  async run(signal: AbortSignal): Promise<void> {
    const failures: unknown[] = [];
    const parts = [
      () => this.#forwarding(signal),
      () => this.#firewall(signal),
      () => this.#closed(signal),
    ];
    for (const part of parts) await part().catch((error) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  }

  async #forwarding(signal: AbortSignal): Promise<void> {
    const key = "net.ipv4.ip_forward";
    if ((await mustRun(this.#context, ["sysctl", "-n", key], signal)).trim() === "1") return;
    await mustRun(this.#context, ["sysctl", "-w", `${key}=1`], signal);
    this.#context.logger.info("forwarding switched on");
  }

  async #firewall(signal: AbortSignal): Promise<void> {
    const { config } = this.#context;
    const observed = await this.#look(IPTABLES, signal);
    if (!observed) {
      return this.#sayOnce("iptables is not installed: forwarding rules are not managed");
    }
    await this.#engineRules(observed, signal);
    await this.#mend(IPTABLES, { observed, rules: firewallRules(config.engine, config), signal });
  }

  /** What stands; undefined when the program is not installed. */
  async #look(
    commands: FirewallCommands,
    signal: AbortSignal,
  ): Promise<ObservedFirewall | undefined> {
    const list = await tryRun(this.#context, commands.list, signal);
    if (commands === IPTABLES) {
      this.#context.facts.dropRules = isOk(list) ? parseDropRules(list.stdout) : undefined;
    }
    if (list.exitCode === 127) return undefined;
    if (!isOk(list)) throw new Error(renderFailure(commands.list, list));
    return parseFirewall(list.stdout);
  }

  async #mend(
    commands: FirewallCommands,
    o: {
      readonly observed: ObservedFirewall;
      readonly rules: readonly FirewallRule[];
      readonly signal: AbortSignal;
    },
  ): Promise<void> {
    const steps = planFirewall(o.rules, o.observed);
    if (steps.length === 0) return;
    await this.#apply(commands.apply, { text: renderFirewallSteps(steps), signal: o.signal });
    for (const step of steps) this.#context.logger.info("firewall changed", { ...step });
  }

  async #apply(argv: Argv, o: { readonly text: string; readonly signal: AbortSignal }) {
    const options = { stdin: o.text, signal: o.signal, timeoutMs: COMMAND_TIMEOUT_MS };
    const applied = await this.#context.process.run(argv, options);
    if (!isOk(applied)) throw new Error(renderFailure(argv, applied));
  }

  /** Opens what the host's owner closed, in IPv6 and in tables of nftables. */
  async #closed(signal: AbortSignal): Promise<void> {
    const { config, clock } = this.#context;
    const nowMs = clock.monotonicMs();
    if (nowMs < this.#closedAtMs) return;
    const observed = await this.#look(IP6TABLES, signal)
      .catch((error) => this.#sayOnce(`no firewall for IPv6: ${messageOf(error)}`));
    if (observed) await this.#mend(IP6TABLES, { observed, rules: entryRules(config), signal });
    const isClosedHost = await this.#gates(signal) || isClosed(observed ?? {});
    this.#closedAtMs = nowMs + (isClosedHost ? 0 : CLOSED_EVERY_MS);
  }

  /** Whether there are gates. */
  async #gates(signal: AbortSignal): Promise<boolean> {
    const { config, logger } = this.#context;
    const list = await tryRun(this.#context, ARGV_GATES_LIST, signal);
    if (list.exitCode === 127) return false;
    if (!isOk(list)) throw new Error(renderFailure(ARGV_GATES_LIST, list));
    const gates = parseGates(list.stdout);
    const steps = planGates(gates, config);
    if (steps.length === 0) return gates.length > 0;
    await this.#apply(ARGV_GATES_APPLY, { text: renderGateSteps(steps), signal });
    for (const { gate: { family, table, chain }, comment } of steps) {
      logger.info("firewall opened", { family, table, chain, for: comment });
    }
    return true;
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

  #sayOnce(message: string): undefined {
    if (this.#reported.has(message)) return;
    this.#reported.add(message);
    this.#context.logger.warn(message);
  }
}
