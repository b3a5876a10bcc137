/** The container network and the firewall rules that let it be routed. Pure. */
import * as v from "valibot";
import {
  CONTAINER_BRIDGE,
  CONTAINER_NETWORK,
  MESH_INTERFACE,
  NEWS_PORT,
  PROBE_PORT,
  type ServerConfig,
} from "@jiji/core/cluster";
import { normalizePrefix, parseCidr, serverAddress } from "@jiji/core/net";
import type { Argv } from "@jiji/core/runtime";
import type { Engine, NetworkSpec } from "./argv.ts";

/** The network this server's engine must have. */
export function networkSpec(config: Pick<ServerConfig, "block">): NetworkSpec {
  const block = parseCidr(config.block);
  if (!block) throw new Error(`server.json: block ${config.block} is not a network`);
  return {
    name: CONTAINER_NETWORK,
    bridge: CONTAINER_BRIDGE,
    subnet: config.block,
    gateway: serverAddress(block),
    trustedInterface: MESH_INTERFACE,
  };
}

/** A network as the engine has it. */
export interface ObservedNetwork {
  readonly subnets: readonly string[];
  readonly gateways: readonly string[];
  /** Linux name of the bridge; undefined when the engine chose one. */
  readonly bridge: string | undefined;
}

const DockerNetwork = v.object({
  IPAM: v.object({
    Config: v.nullish(v.array(v.object({
      Subnet: v.optional(v.string(), ""),
      Gateway: v.optional(v.string(), ""),
    }))),
  }),
  Options: v.nullish(v.record(v.string(), v.string())),
});
const PodmanNetwork = v.object({
  network_interface: v.optional(v.string()),
  subnets: v.nullish(
    v.array(v.object({ subnet: v.string(), gateway: v.optional(v.string(), "") })),
  ),
});

/** The network in the output of `network inspect` of either engine; undefined when it is none. */
export function parseNetwork(text: string): ObservedNetwork | undefined {
  let item: unknown;
  try {
    item = v.parse(v.array(v.unknown()), JSON.parse(text))[0];
  } catch {
    return undefined;
  }
  const docker = v.safeParse(DockerNetwork, item);
  if (docker.success) {
    const config = docker.output.IPAM.Config ?? [];
    return {
      subnets: config.map((one) => one.Subnet),
      gateways: config.map((one) => one.Gateway),
      bridge: docker.output.Options?.["com.docker.network.bridge.name"],
    };
  }
  const podman = v.safeParse(PodmanNetwork, item);
  if (!podman.success) return undefined;
  const subnets = podman.output.subnets ?? [];
  return {
    subnets: subnets.map((one) => one.subnet),
    gateways: subnets.map((one) => one.gateway),
    bridge: podman.output.network_interface,
  };
}

/** What to do about the network. `replace` works only while nothing is attached to it. */
export type NetworkPlan =
  | { readonly kind: "keep" }
  | { readonly kind: "create"; readonly cause: string }
  | { readonly kind: "replace"; readonly cause: string };

/** Compares the network with the one this server must have. */
export function planNetwork(
  spec: NetworkSpec,
  observed: ObservedNetwork | undefined,
): NetworkPlan {
  if (!observed) return { kind: "create", cause: `network ${spec.name} is missing` };
  const subnet = observed.subnets.map((text) => normalizePrefix(text)).join();
  if (subnet !== normalizePrefix(spec.subnet)) {
    return { kind: "replace", cause: `its subnet is ${subnet || "unset"}, not ${spec.subnet}` };
  }
  if (observed.gateways.join() !== spec.gateway) {
    return { kind: "replace", cause: `its gateway is ${observed.gateways.join()}` };
  }
  if (observed.bridge !== spec.bridge) {
    return { kind: "replace", cause: `its bridge is ${observed.bridge ?? "unnamed"}` };
  }
  return { kind: "keep" };
}

/**
 * The network as netavark's file has it, for podman, which reads it anew with every command. The file
 * is written by us since `podman network create` refuses a subnet that overlaps an address of the
 * host (the server's own is on the mesh interface), and podman 4.3 cannot name the bridge. Its
 * resolver stays off: it would sit on the address of jiji-dns. Source: podman 4.3,
 * /etc/containers/networks/NAME.json.
 */
export function renderNetavarkNetwork(
  spec: NetworkSpec,
  o: { readonly id: string; readonly createdAtMs: number },
): string {
  return JSON.stringify(
    {
      name: spec.name,
      id: o.id,
      driver: "bridge",
      network_interface: spec.bridge,
      created: new Date(o.createdAtMs).toISOString(),
      subnets: [{ subnet: spec.subnet, gateway: spec.gateway }],
      ipv6_enabled: false,
      internal: false,
      dns_enabled: false,
      ipam_options: { driver: "host-local" },
    },
    null,
    2,
  ) + "\n";
}

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
}

/**
 * Rules this server needs: mesh and bridge may talk, and keep their addresses when they do. Daemons
 * are spoken to by daemons only: a container on this server could put another server's address on
 * its packets, which over the mesh WireGuard does not let pass.
 */
export function firewallRules(
  engine: Engine,
  config: Pick<ServerConfig, "cluster_cidr">,
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
  ];
}

/** What the firewall has: lines of `iptables-save`, by table. One without a rule may be absent. */
export type ObservedFirewall = Readonly<Partial<Record<FirewallTable, readonly string[]>>>;

/** Lists the rules of all tables. */
export const ARGV_FIREWALL_LIST: Argv = ["iptables-save"];

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
  return rules.flatMap((rule): FirewallStep[] => {
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

/** Applies the text of {@link renderFirewallSteps}. */
export const ARGV_FIREWALL_APPLY: Argv = ["iptables-restore", "-w", "5", "--noflush"];

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
