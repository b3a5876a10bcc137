/** What a host's own firewall must let through, and what it lets through now. Pure. */
import { type Argv, CONTAINER_BRIDGE, DNS_PORT, MESH_INTERFACE } from "@jiji/core";
import type { EngineName } from "../engine/engine_commands.ts";

/** A host firewall that jiji knows. */
export type FirewallName = "ufw" | "firewalld";

/** An active firewall as {@link FIREWALL_SCRIPT} tells of it. */
export interface ObservedFirewall {
  readonly name: FirewallName;
  /** Zone of the way out, firewalld only; "" when unknown. */
  readonly zone: string;
  /** What stands, in the words of {@link FirewallNeed.shown}. */
  readonly rules: ReadonlySet<string>;
}

/** One thing that must stand, or must not. */
export interface FirewallNeed {
  /** For people and for comparing: `31820/udp`, `in on jiji0`, `trusted jiji0`. */
  readonly shown: string;
  readonly argv: Argv;
}

/**
 * Prints an active firewall, one rule a line; `say KEY VALUE` comes from the script around it. ufw
 * lists `31820/udp ALLOW Anywhere` and `Anywhere on jiji0 ALLOW Anywhere`; firewalld is asked for
 * what outlasts a reload. Source: ufw(8) 0.36, firewall-cmd(1) 1.3.
 */
export const FIREWALL_SCRIPT: string = `
if command -v ufw >/dev/null 2>&1 && LC_ALL=C ufw status 2>/dev/null | grep -q 'Status: active'; then
  say firewall ufw
  LC_ALL=C ufw status | grep -w ALLOW | grep -v '(v6)' |
    sed -n -e 's/^Anywhere on \\([a-z0-9-]*\\) .*/@firewall_rule in on \\1/p' \\
      -e 's/^\\([0-9]*\\) on \\([a-z0-9-]*\\) .*/@firewall_rule \\1 on \\2/p' \\
      -e 's|^\\([0-9]*/[a-z]*\\)  *ALLOW .*|@firewall_rule \\1|p'
elif command -v firewall-cmd >/dev/null 2>&1 && firewall-cmd --state >/dev/null 2>&1; then
  out=$(ip route show default 2>/dev/null | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p' | head -n 1)
  zone=$(firewall-cmd --get-zone-of-interface="$out" 2>/dev/null) || zone=$(firewall-cmd --get-default-zone)
  say firewall "firewalld $zone"
  for r in $(firewall-cmd --permanent --zone="$zone" --list-ports); do say firewall_rule "$r"; done
  for r in $(firewall-cmd --permanent --zone="$zone" --list-services); do say firewall_rule "$r"; done
  for r in $(firewall-cmd --permanent --zone=trusted --list-interfaces); do say firewall_rule "trusted $r"; done
fi
`;

/** What must stand for a server of the cluster, in the order in which it is set. */
export function firewallNeeds(
  firewall: Pick<ObservedFirewall, "name" | "zone">,
  wish: { readonly wireguardPort: number },
): FirewallNeed[] {
  const wireguard = `${wish.wireguardPort}/udp`;
  if (firewall.name === "ufw") {
    const open = [wireguard, "80/tcp", "443/tcp"];
    const dns = String(DNS_PORT);
    return [
      ...open.map((shown): FirewallNeed => ({ shown, argv: ["ufw", "allow", shown] })),
      { shown: `in on ${MESH_INTERFACE}`, argv: ["ufw", "allow", "in", "on", MESH_INTERFACE] },
      {
        shown: `${dns} on ${CONTAINER_BRIDGE}`,
        argv: ["ufw", "allow", "in", "on", CONTAINER_BRIDGE, "to", "any", "port", dns],
      },
    ];
  }
  const permanent = ["firewall-cmd", "--permanent"] as const;
  const zone = firewall.zone === "" ? [] : [`--zone=${firewall.zone}`];
  return [
    { shown: wireguard, argv: [...permanent, ...zone, `--add-port=${wireguard}`] },
    { shown: "http", argv: [...permanent, ...zone, "--add-service=http"] },
    { shown: "https", argv: [...permanent, ...zone, "--add-service=https"] },
    trusted("add", MESH_INTERFACE),
  ];
}

function trusted(verb: "add" | "remove", device: string): FirewallNeed {
  return {
    shown: `trusted ${device}`,
    argv: ["firewall-cmd", "--permanent", "--zone=trusted", `--${verb}-interface=${device}`],
  };
}

/** What is to be changed, and why; undefined when the firewall is as it must be. */
export function planHostFirewall(
  observed: ObservedFirewall,
  wish: { readonly wireguardPort: number; readonly engine: EngineName },
): { readonly changes: readonly Argv[]; readonly cause: string } | undefined {
  const missing = firewallNeeds(observed, wish).filter(({ shown }) => !observed.rules.has(shown));
  // Docker keeps its bridges in a zone of its own and makes no network on one that is elsewhere.
  const bridge = trusted("remove", CONTAINER_BRIDGE);
  const isAside = observed.name === "firewalld" && wish.engine === "docker" &&
    observed.rules.has(bridge.shown);
  const wrong = isAside ? [bridge] : [];
  if (missing.length + wrong.length === 0) return undefined;
  const reload: Argv[] = observed.name === "firewalld" ? [["firewall-cmd", "--reload"]] : [];
  const causes = [
    ...missing.map(({ shown }) => `${shown} is not let through`),
    ...wrong.map(() => `${CONTAINER_BRIDGE} belongs into docker's zone`),
  ];
  return {
    changes: [...missing, ...wrong].map(({ argv }) => argv).concat(reload),
    cause: causes.join(", "),
  };
}

/** The active firewall in the lines of {@link FIREWALL_SCRIPT}; undefined when there is none. */
export function parseHostFirewall(
  head: string | undefined,
  rules: readonly string[],
): ObservedFirewall | undefined {
  const [name = "", zone = ""] = (head ?? "").split(" ");
  if (name !== "ufw" && name !== "firewalld") return undefined;
  // The zone becomes a word of a command: only what firewalld allows as a name.
  return { name, zone: /^[A-Za-z0-9_-]{1,17}$/.test(zone) ? zone : "", rules: new Set(rules) };
}
