/** The container network. Pure. */
import * as v from "valibot";
import {
  CONTAINER_BRIDGE,
  CONTAINER_NETWORK,
  MESH_INTERFACE,
  type ServerConfig,
} from "@jiji/core/cluster";
import { normalizePrefix, parseCidr, serverAddress } from "@jiji/core/net";
import type { NetworkSpec } from "./argv.ts";

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
