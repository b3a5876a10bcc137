/**
 * The bridge under the container network, and how a lost one is made again without touching a
 * container. Pure. A bridge that goes leaves its ports (the host's ends of the containers' links)
 * behind, without a master: a new bridge of the same name with the same address takes them back.
 */
import * as v from "valibot";
import { cidrHas, parseCidr, parseIpv4 } from "@jiji/core/net";
import { type Argv, assertNever } from "@jiji/core/runtime";
import type { Engine, NetworkSpec } from "./argv.ts";

/** A network interface of this server, or of a container's network. */
export interface Link {
  readonly index: number;
  readonly name: string;
  readonly isUp: boolean;
  /** Name of the bridge it is a port of. */
  readonly master: string | undefined;
  /** Index of its other end, in whatever network that is. */
  readonly peerIndex: number | undefined;
  /** IPv4 addresses with their prefix lengths, `10.210.0.1/24`. */
  readonly addresses: readonly string[];
}

const LinkSchema = v.object({
  ifindex: v.number(),
  ifname: v.string(),
  flags: v.array(v.string()),
  master: v.optional(v.string()),
  link_index: v.optional(v.number()),
  addr_info: v.optional(
    v.array(v.object({
      family: v.optional(v.string(), ""),
      local: v.optional(v.string(), ""),
      prefixlen: v.optional(v.number(), 0),
    })),
    [],
  ),
});

/** All interfaces. Source: ip-address(8). */
export const ARGV_LINKS: Argv = ["ip", "-j", "addr", "show"];

/** All interfaces of the network that a process sees. Source: nsenter(1). */
export function argvLinksOf(pid: number): Argv {
  return ["nsenter", `--net=/proc/${pid}/ns/net`, ...ARGV_LINKS];
}

/** Running containers that are attached to a network. */
export function argvAttached(engine: Engine, network: string): Argv {
  return [engine, "ps", "-q", "--no-trunc", "--filter", `network=${network}`];
}

/** Interfaces in the output of {@link ARGV_LINKS}. @throws {Error} when it is no list at all. */
export function parseLinks(text: string): Link[] {
  return v.parse(v.array(v.unknown()), JSON.parse(text)).flatMap((item) => {
    const parsed = v.safeParse(LinkSchema, item);
    if (!parsed.success) return [];
    const { ifindex, ifname, flags, master, link_index, addr_info } = parsed.output;
    return [{
      index: ifindex,
      name: ifname,
      isUp: flags.includes("UP"),
      master,
      peerIndex: link_index,
      addresses: addr_info.filter((one) => one.family === "inet")
        .map((one) => `${one.local}/${one.prefixlen}`),
    }];
  });
}

/** Interfaces that look like ports of some bridge that is gone. Docker and netavark name them so. */
export function strayPorts(links: readonly Link[]): Link[] {
  return links.filter((link) => link.name.startsWith("veth") && link.master === undefined);
}

/** A step towards a bridge as it must be. */
export type BridgeStep =
  | { readonly kind: "addBridge"; readonly bridge: string; readonly hardware: string }
  | { readonly kind: "setAddress"; readonly bridge: string; readonly address: string }
  | { readonly kind: "announce"; readonly bridge: string }
  | { readonly kind: "attachPort"; readonly bridge: string; readonly port: string }
  | { readonly kind: "setUp"; readonly bridge: string };

/** What there is. */
export interface BridgeObserved {
  /** This server's interfaces. */
  readonly links: readonly Link[];
  /** Interfaces of each attached container. */
  readonly containers: readonly (readonly Link[])[];
}

/**
 * Steps from what there is to a bridge with its address and all its ports; none when it is so. It
 * goes up last, with its neighbours told: containers keep an old bridge's hardware address in mind
 * for half a minute otherwise.
 */
export function planBridge(spec: NetworkSpec, observed: BridgeObserved): BridgeStep[] {
  const { bridge } = spec;
  const block = parseCidr(spec.subnet);
  if (!block) return [];
  const address = `${spec.gateway}/${block.prefix}`;
  const present = observed.links.find((link) => link.name === bridge);
  const ports = observed.containers.flatMap((links) => portOf(links, { spec, observed }));
  const steps: BridgeStep[] = [];
  if (!present) {
    steps.push({ kind: "addBridge", bridge, hardware: hardwareAddress(spec.gateway) });
  }
  if (!present?.addresses.includes(address)) steps.push({ kind: "setAddress", bridge, address });
  for (const port of [...new Set(ports)].sort()) steps.push({ kind: "attachPort", bridge, port });
  if (!present?.isUp) steps.push({ kind: "announce", bridge }, { kind: "setUp", bridge });
  return steps;
}

/** The stray port at the other end of a container's link in this network, if it is one. */
function portOf(
  links: readonly Link[],
  o: { readonly spec: NetworkSpec; readonly observed: BridgeObserved },
): string[] {
  const suffix = `/${parseCidr(o.spec.subnet)?.prefix}`;
  const inside = links.find((link) =>
    link.addresses.some((address) =>
      address.endsWith(suffix) && isInside(address.slice(0, -suffix.length), o.spec.subnet)
    )
  );
  const port = strayPorts(o.observed.links).find((link) => link.index === inside?.peerIndex);
  return port ? [port.name] : [];
}

function isInside(ip: string, subnet: string): boolean {
  const address = parseIpv4(ip);
  const block = parseCidr(subnet);
  return address !== undefined && block !== undefined && cidrHas(block, address);
}

/** As docker makes those of containers: 02:42 and the address. It must not change with the ports. */
function hardwareAddress(ip: string): string {
  const octets = ip.split(".").map((octet) => Number(octet).toString(16).padStart(2, "0"));
  return ["02", "42", ...octets].join(":");
}

/** The command of a step. Source: ip-link(8), ip-address(8); kernel ip-sysctl, `arp_notify`. */
export function argvBridgeStep(step: BridgeStep): Argv {
  switch (step.kind) {
    case "addBridge":
      return ["ip", "link", "add", "name", step.bridge, "address", step.hardware, "type", "bridge"];
    case "setAddress":
      return ["ip", "addr", "replace", step.address, "broadcast", "+", "dev", step.bridge];
    case "announce":
      return ["sysctl", "-w", `net.ipv4.conf.${step.bridge}.arp_notify=1`];
    case "attachPort":
      return ["ip", "link", "set", "dev", step.port, "master", step.bridge];
    case "setUp":
      return ["ip", "link", "set", "dev", step.bridge, "up"];
    default:
      return assertNever(step);
  }
}
