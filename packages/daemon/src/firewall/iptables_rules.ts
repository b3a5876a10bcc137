/** Rules of ours in iptables: the container network is routed, and a closed host lets jiji in. Pure. */
import {
  CONTAINER_BRIDGE,
  DNS_PORT,
  FIREWALL_MARK,
  MESH_INTERFACE,
  NEWS_PORT,
  PROBE_PORT,
  type ServerConfig,
} from "@jiji/core/cluster";
import type { Argv } from "@jiji/core/runtime";
import type { Engine } from "../engine/argv.ts";

/** Tables of iptables that have rules of ours. */
export const FIREWALL_TABLES = ["filter", "nat", "mangle"] as const;

/** One of {@link FIREWALL_TABLES}. */
export type FirewallTable = (typeof FIREWALL_TABLES)[number];

/** A rule that must stand in a chain. */
export interface FirewallRule {
  readonly table: FirewallTable;
  readonly chain: string;
  /** Words after the chain, in the order in which `iptables-save` prints them. */
  readonly match: readonly string[];
  /** Whether it must come before every rule that may rewrite source addresses. */
  readonly beforeMasquerade: boolean;
  /** Whether it is put in only when its chain lets nothing in that is not named. */
  readonly whenClosed?: boolean;
}

/**
 * Rules this server needs: mesh and bridge may talk, and keep their addresses when they do. Daemons
 * are spoken to by daemons only: a container on this server could put another server's address on
 * its packets, which over the mesh WireGuard does not let pass.
 */
export function firewallRules(
  engine: Engine,
  config: Pick<ServerConfig, "cluster_cidr" | "wireguard_port">,
): FirewallRule[] {
  const chain = engine === "docker" ? "DOCKER-USER" : "FORWARD";
  const cidr = config.cluster_cidr;
  const ways = [[MESH_INTERFACE, CONTAINER_BRIDGE], [CONTAINER_BRIDGE, MESH_INTERFACE]] as const;
  return [
    {
      table: "filter",
      chain: "INPUT",
      match: [
        ...["-i", CONTAINER_BRIDGE, "-p", "udp", "-m", "udp"],
        ...["--dport", `${PROBE_PORT}:${NEWS_PORT}`, "-j", "DROP"],
      ],
      beforeMasquerade: false,
    },
    ...ways.map(([from, to]): FirewallRule => ({
      table: "filter",
      chain,
      match: ["-s", cidr, "-d", cidr, "-i", from, "-o", to, "-j", "ACCEPT"],
      beforeMasquerade: false,
    })),
    {
      // Containers take 1,500 octets for granted, and nobody may count on ICMP to tell them better.
      table: "mangle",
      chain: "FORWARD",
      match: [
        ...["-o", MESH_INTERFACE, "-p", "tcp", "-m", "tcp", "--tcp-flags", "SYN,RST", "SYN"],
        ...["-j", "TCPMSS", "--clamp-mss-to-pmtu"],
      ],
      beforeMasquerade: false,
    },
    {
      table: "nat",
      chain: "POSTROUTING",
      match: ["-s", cidr, "-d", cidr, "-j", "ACCEPT"],
      beforeMasquerade: true,
    },
    ...entryRules(config),
    ...["udp", "tcp"].map((protocol) =>
      entryRule(
        ...["-i", CONTAINER_BRIDGE, "-p", protocol, "-m", protocol, "--dport", String(DNS_PORT)],
      )
    ),
  ];
}

/**
 * What a closed host must let in, over IPv4 and IPv6 alike: WireGuard, and what comes out of it.
 * Hosts with ufw or firewalld are told by `server init`, in their own words.
 */
export function entryRules(config: Pick<ServerConfig, "wireguard_port">): FirewallRule[] {
  return [
    entryRule("-p", "udp", "-m", "udp", "--dport", String(config.wireguard_port)),
    entryRule("-i", MESH_INTERFACE),
  ];
}

function entryRule(...match: readonly string[]): FirewallRule {
  return {
    table: "filter",
    chain: "INPUT",
    match: [...match, "-m", "comment", "--comment", FIREWALL_MARK, "-j", "ACCEPT"],
    beforeMasquerade: false,
    whenClosed: true,
  };
}

/** What the firewall has: lines of `iptables-save`, by table. One without a rule may be absent. */
export type ObservedFirewall = Readonly<Partial<Record<FirewallTable, readonly string[]>>>;

/** What lists and changes the rules of all tables. */
export type FirewallCommands = Readonly<Record<"list" | "apply", Argv>>;

/** `apply` reads the text of {@link renderFirewallSteps}. */
export const IPTABLES: FirewallCommands = {
  list: ["iptables-save"],
  apply: ["iptables-restore", "-w", "5", "--noflush"],
};

/** The same for IPv6. */
export const IP6TABLES: FirewallCommands = {
  list: ["ip6tables-save"],
  apply: ["ip6tables-restore", "-w", "5", "--noflush"],
};

/**
 * The firewall in the output of `iptables-save`.
 *
 * @throws {Error} when a table of ours has rules that iptables cannot show: what stands there is not
 * known. Source: iptables 1.8.9, iptables/xtables-save.c.
 */
export function parseFirewall(text: string): ObservedFirewall {
  const unknown = /^# Table `(filter|nat|mangle)' is incompatible.*$/m.exec(text);
  if (unknown) throw new Error(`iptables-save: ${unknown[0].slice(2)}`);
  const tables: Partial<Record<FirewallTable, string[]>> = {};
  let lines: string[] | undefined;
  for (const line of text.split("\n")) {
    const table = FIREWALL_TABLES.find((name) => line === `*${name}`);
    if (table) lines = tables[table] = [];
    else if (line.startsWith("*")) lines = undefined;
    else if (/^[:-]/.test(line)) lines?.push(line.trim());
  }
  return tables;
}

/** Chains that every host has, whether or not `iptables-save` names them. */
const BUILT_IN: readonly string[] = ["INPUT", "FORWARD", "POSTROUTING"];

/**
 * Rules that masquerade, or jump to a chain that does for a network: docker's, and netavark's and
 * CNI's chains per network. Netavark's HOSTPORT-MASQ, which it keeps at the top, touches marked
 * packets only.
 */
const MASQUERADES = /-j (MASQUERADE|NETAVARK-[0-9A-F]{8,}|CNI-[0-9a-f]{8,})\b/;

/** Rules that refuse whatever comes, at most of one protocol or on one interface. */
const REFUSES = /^-A INPUT (-[ip] \S+ )*-j (DROP|REJECT)\b/;

/** Whether a host lets nothing in that is not named. One with ufw is opened by `server init`. */
export function isClosed(observed: ObservedFirewall): boolean {
  const lines = observed.filter ?? [];
  // Its chains stay behind when it is switched off, but empty.
  if (lines.some((line) => /^-A ufw6?-before-input /.test(line))) return false;
  return lines.some((line) => line.startsWith(":INPUT DROP ") || REFUSES.test(line));
}

/** A change to the firewall. */
export interface FirewallStep {
  readonly kind: "insert" | "delete";
  readonly rule: FirewallRule;
  readonly cause: string;
}

/**
 * Steps that put missing rules in, and bring back to the top what a MASQUERADE has overtaken. A chain that does
 * not exist (the engine is not up yet) is left for the next look.
 */
export function planFirewall(
  rules: readonly FirewallRule[],
  observed: ObservedFirewall,
): FirewallStep[] {
  const closed = isClosed(observed);
  return rules.flatMap((rule): FirewallStep[] => {
    if (rule.whenClosed && !closed) return [];
    const lines = observed[rule.table] ?? [];
    const isChain = lines.some((line) => line.startsWith(`:${rule.chain} `));
    if (!isChain && !BUILT_IN.includes(rule.chain)) return [];
    const inChain = lines.filter((line) => line.startsWith(`-A ${rule.chain} `));
    const at = inChain.indexOf(`-A ${rule.chain} ${rule.match.join(" ")}`);
    const limit = rule.beforeMasquerade ? inChain.findIndex((line) => MASQUERADES.test(line)) : -1;
    if (at >= 0 && (limit < 0 || at < limit)) return [];
    const insert: FirewallStep = { kind: "insert", rule, cause: "the rule is missing" };
    if (at < 0) return [insert];
    const cause = "a MASQUERADE came before it";
    return [{ kind: "delete", rule, cause }, { ...insert, cause }];
  });
}

/**
 * The steps as `iptables-restore` reads them. All of a table are done at once: a rule that is moved
 * is never missing, for what passes without it keeps its translated address as long as it goes on.
 */
export function renderFirewallSteps(steps: readonly FirewallStep[]): string {
  return FIREWALL_TABLES.map((table) => {
    const lines = steps.filter(({ rule }) => rule.table === table).map(({ kind, rule }) => {
      const place = kind === "insert" ? `-I ${rule.chain} 1` : `-D ${rule.chain}`;
      return `${place} ${rule.match.join(" ")}\n`;
    });
    return lines.length === 0 ? "" : `*${table}\n${lines.join("")}COMMIT\n`;
  }).join("");
}
