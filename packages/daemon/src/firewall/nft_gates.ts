/**
 * Chains of nftables that a host's owner wrote and that let nothing through that is not named: an
 * ACCEPT elsewhere does not count against their refusal, so what jiji needs must stand in them. Pure.
 */
import * as v from "valibot";
import {
  CONTAINER_BRIDGE,
  DNS_PORT,
  FIREWALL_MARK,
  MESH_INTERFACE,
  type ServerConfig,
} from "@jiji/core/cluster";
import type { Argv } from "@jiji/core/runtime";

/** Lists all rules, without the elements of sets. Source: libnftables-json(5), nftables 1.0.6. */
export const ARGV_GATES_LIST: Argv = ["nft", "-j", "-t", "list", "ruleset"];

/** Applies the text of {@link renderGateSteps}, all of it or nothing. Source: nft(8). */
export const ARGV_GATES_APPLY: Argv = ["nft", "-f", "-"];

/** A chain that refuses what it does not name. */
export interface Gate {
  readonly family: "inet" | "ip" | "ip6";
  readonly table: string;
  readonly chain: string;
  readonly hook: "input" | "forward";
  /** Comments of its rules. */
  readonly comments: ReadonlySet<string>;
}

/** A rule to put at the head of a gate. */
export interface GateStep {
  readonly gate: Gate;
  /** In the words of nft(8). */
  readonly match: string;
  readonly comment: string;
}

/** Names become words of nft's language: only what is an identifier there. Source: nft(8), LEXICAL. */
const Name = v.pipe(v.string(), v.regex(/^[A-Za-z_][A-Za-z0-9_./-]{0,127}$/));
const ChainSchema = v.object({
  family: v.picklist(["inet", "ip", "ip6"]),
  table: Name,
  name: Name,
  type: v.literal("filter"),
  hook: v.picklist(["input", "forward"]),
  policy: v.optional(v.string(), "accept"),
});
const RuleSchema = v.object({
  family: v.string(),
  table: v.string(),
  chain: v.string(),
  comment: v.optional(v.string(), ""),
  expr: v.optional(v.array(v.record(v.string(), v.unknown())), []),
});
const ListSchema = v.object({ nftables: v.array(v.record(v.string(), v.unknown())) });

/** Tables that others keep and that are opened by asking these: iptables, firewalld, engines. */
function isKept(chain: v.InferOutput<typeof ChainSchema>): boolean {
  const { family, table, name } = chain;
  const isIptables = family !== "inet" && table === "filter" && /^(INPUT|FORWARD)$/.test(name);
  return isIptables || /^(firewalld|netavark|docker-bridges|ufw)/.test(table);
}

/** What a rule may hold beside its verdict and still refuse whatever comes. */
const HARMLESS: readonly string[] = ["counter", "log", "limit"];

/** Whether a rule refuses whatever comes to it. */
function isRefusal(expr: readonly Readonly<Record<string, unknown>>[]): boolean {
  const words = expr.flatMap((one) => Object.keys(one)).filter((word) => !HARMLESS.includes(word));
  return words.length === 1 && (words[0] === "drop" || words[0] === "reject");
}

/**
 * The gates in the output of {@link ARGV_GATES_LIST}.
 *
 * @throws {Error} when it is not what nft prints.
 */
export function parseGates(text: string): Gate[] {
  const items = v.parse(ListSchema, JSON.parse(text)).nftables;
  const rules = items.flatMap(({ rule }) => {
    const parsed = v.safeParse(RuleSchema, rule);
    return parsed.success ? [parsed.output] : [];
  });
  return items.flatMap((item): Gate[] => {
    const parsed = v.safeParse(ChainSchema, item["chain"]);
    if (!parsed.success || isKept(parsed.output)) return [];
    const { family, table, name: chain, hook, policy } = parsed.output;
    const own = rules.filter((rule) =>
      rule.family === family && rule.table === table && rule.chain === chain
    );
    if (policy !== "drop" && !own.some(({ expr }) => isRefusal(expr))) return [];
    return [{ family, table, chain, hook, comments: new Set(own.map((rule) => rule.comment)) }];
  });
}

/** Rules that gates lack. */
export function planGates(
  gates: readonly Gate[],
  config: Pick<ServerConfig, "wireguard_port">,
): GateStep[] {
  const input: [comment: string, match: string][] = [
    ["wireguard", `udp dport ${config.wireguard_port}`],
    ["mesh", `iifname "${MESH_INTERFACE}"`],
    ["dns", `iifname "${CONTAINER_BRIDGE}" udp dport ${DNS_PORT}`],
    ["dns tcp", `iifname "${CONTAINER_BRIDGE}" tcp dport ${DNS_PORT}`],
  ];
  const forward: typeof input = [
    ["from containers", `iifname "${CONTAINER_BRIDGE}"`],
    ["to containers", `oifname "${CONTAINER_BRIDGE}"`],
  ];
  return gates.flatMap((gate) =>
    (gate.hook === "input" ? input : forward)
      .map(([what, match]) => ({ gate, match, comment: `${FIREWALL_MARK} ${what}` }))
      .filter(({ comment }) => !gate.comments.has(comment))
  );
}

/** The steps as nft reads them. */
export function renderGateSteps(steps: readonly GateStep[]): string {
  return steps.map(({ gate, match, comment }) =>
    `insert rule ${gate.family} ${gate.table} ${gate.chain} ${match} accept comment "${comment}"\n`
  ).join("");
}
