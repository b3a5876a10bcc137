/** Facts of simulated servers; up to 16,384 of them. */
import type { PeerSeed, ServerConfig } from "@jiji/core/cluster";
import type { ServerRow } from "@jiji/core/corrosion";
import type { ObservedContainer } from "../src/engine/containers.ts";

/** Network of the simulated cluster: room for every index. */
export const CLUSTER_CIDR = "10.128.0.0/10";

/** First three octets of a server's block. */
function prefix(index: number): string {
  return `10.${128 + (index >> 8)}.${index & 255}`;
}

/** The server's own address in its block. */
export function addressOf(index: number): string {
  return `${prefix(index)}.1`;
}

const keys: string[] = [];

/** A well-formed WireGuard key, another for each index. */
export function keyOf(index: number): string {
  const known = keys[index];
  if (known !== undefined) return known;
  const bytes = new Uint8Array(32).fill(index & 255);
  bytes[0] = index >> 8 & 255;
  bytes[1] = index >> 16;
  return keys[index] = btoa(String.fromCharCode(...bytes));
}

/** The index of such a key. */
export function keyIndexOf(key: string): number {
  const bytes = atob(key);
  return bytes.charCodeAt(31) | bytes.charCodeAt(0) << 8 | bytes.charCodeAt(1) << 16;
}

/** Where a server is reached from outside; `place` counts its moves. */
export function endpointOf(index: number, place = 0): string {
  return `203.${place}.${index >> 8}.${index & 255}:31820`;
}

/** Identity that comes with a key. */
export function identityOf(keyIndex: number): string {
  return `fdcc::${keyIndex.toString(16)}`;
}

/** The server's place in the cluster; a reinstalled one has another key than its index says. */
export function configOf(index: number, keyIndex = index): ServerConfig {
  return {
    format: 1,
    server_id: `s${index}`,
    engine: "docker",
    cluster_cidr: CLUSTER_CIDR,
    block: `${prefix(index)}.0/24`,
    management_ip: identityOf(keyIndex),
    wireguard_public_key: keyOf(keyIndex),
    wireguard_port: 31820,
    endpoints: [endpointOf(index)],
    service_domain: "jiji",
  };
}

/** The same as another server's file has it. */
export function seedOf(index: number, keyIndex = index): PeerSeed {
  const { server_id, block, management_ip, endpoints } = configOf(index, keyIndex);
  return { server_id, public_key: keyOf(keyIndex), block, management_ip, endpoints };
}

/** The row that a server writes about itself. */
export function rowOf(index: number, facts: Partial<ServerRow> = {}): ServerRow {
  return {
    id: `s${index}`,
    hostname: `host${index}`,
    subnet: `${prefix(index)}.0/24`,
    wireguardIp: addressOf(index),
    wireguardPubkey: keyOf(index),
    managementIp: `fdcc::${index.toString(16)}`,
    endpoints: [endpointOf(index)],
    lastSeenMs: 1,
    doc: {},
    removedAtMs: null,
    ...facts,
  };
}

/** A running container of a server; `generation` tells it from those before it. */
export function containerOf(index: number, generation: number): ObservedContainer {
  const id = (index * 100_000 + generation).toString(16).padStart(64, "0");
  return {
    id,
    name: "casa-web",
    running: true,
    ip: `${prefix(index)}.${3 + generation % 200}`,
    createdAtMs: generation * 1_000 + 1,
    startedAtMs: generation * 1_000 + 1,
    exitCode: 0,
    oomKilled: false,
    restarts: 0,
    engineHealth: "none",
    labels: {
      project: "casa",
      service: "web",
      instance: `s${index}`,
      version: String(generation),
      deployment: "sim",
      config: "",
      parts: { environment: {}, options: {} },
      health: { kind: "engine", interval_ms: 5_000, timeout_ms: 5_000 },
      proxy: [],
      ports: ["80/tcp"],
      address: "",
    },
  };
}

/** Network of a server's containers. */
export function blockOf(index: number): string {
  return `${prefix(index)}.0/24`;
}
