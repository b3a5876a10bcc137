/** Ordinary facts for tests; each test changes what it is about. */
import type { ContainerLabels, PeerSeed, ServerConfig } from "@jiji/core/cluster";
import type { CorrosionApi, ServerRow } from "@jiji/core/corrosion";
import { FakeProcess, RecordingLogger, SimClock } from "@jiji/core/testing";
import { ClusterView } from "../src/state/cluster_view.ts";
import type { DaemonContext, Files } from "../src/daemon_context.ts";
import type { ObservedContainer } from "../src/engine/containers.ts";

/** A well-formed WireGuard key, another for each index. */
export function key(index: number): string {
  const bytes = new Uint8Array(32).fill(index);
  return btoa(String.fromCharCode(...bytes));
}

/** Server number `index`: `s1`, block 10.210.1.0/24. */
export function serverRow(index: number, facts: Partial<ServerRow> = {}): ServerRow {
  return {
    id: `s${index}`,
    hostname: `host${index}`,
    subnet: `10.210.${index}.0/24`,
    wireguardIp: `10.210.${index}.1`,
    wireguardPubkey: key(index),
    managementIp: `fdcc::${index.toString(16)}`,
    endpoints: [`203.0.113.${10 + index}:31820`],
    lastSeenMs: 1,
    doc: {},
    removedAtMs: null,
    ...facts,
  };
}

/** The same server as a file has it. */
export function peerSeed(index: number, facts: Partial<PeerSeed> = {}): PeerSeed {
  return {
    server_id: `s${index}`,
    public_key: key(index),
    block: `10.210.${index}.0/24`,
    management_ip: `fdcc::${index.toString(16)}`,
    endpoints: [`203.0.113.${10 + index}:31820`],
    ...facts,
  };
}

/** Configuration of server number `index`. */
export function serverConfig(index = 1, facts: Partial<ServerConfig> = {}): ServerConfig {
  return {
    format: 1,
    server_id: `s${index}`,
    engine: "docker",
    cluster_cidr: "10.210.0.0/16",
    block: `10.210.${index}.0/24`,
    management_ip: `fdcc::${index.toString(16)}`,
    wireguard_public_key: key(index),
    wireguard_port: 31820,
    endpoints: [`203.0.113.${10 + index}:31820`],
    service_domain: "jiji",
    ...facts,
  };
}

/** A running container of casa's web on s1. */
export function container(
  index: number,
  facts: Partial<Omit<ObservedContainer, "labels">> & { labels?: Partial<ContainerLabels> } = {},
): ObservedContainer {
  const { labels, ...rest } = facts;
  return {
    id: index.toString(16).padStart(64, "0"),
    name: "casa-web",
    running: true,
    ip: `10.210.1.${index + 1}`,
    createdAtMs: index * 1_000,
    startedAtMs: index * 1_000,
    exitCode: 0,
    oomKilled: false,
    restarts: 0,
    engineHealth: "none",
    ...rest,
    labels: {
      project: "casa",
      service: "web",
      instance: "s1",
      version: "1",
      deployment: "d1",
      config: "c1",
      parts: { environment: {}, options: {} },
      health: { kind: "tcp", port: 3000, interval_ms: 1_000, timeout_ms: 500 },
      proxy: [{ name: "casa-web-3000", app_port: 3000, flags: ["--host=casa.example"] }],
      ports: ["3000/tcp"],
      address: "",
      ...labels,
    },
  };
}

/** A Corrosion that does not answer. */
export const NO_API: CorrosionApi = {
  execute: () => Promise.reject(new Error("corrosion is down")),
  query: () => Promise.reject(new Error("corrosion is down")),
};

/** Files in memory. */
export class FakeFiles implements Files {
  readonly texts = new Map<string, string>();
  read(path: string) {
    return Promise.resolve(this.texts.get(path));
  }
  replace(path: string, text: string) {
    this.texts.set(path, text);
    return Promise.resolve();
  }
}

/** What an engine prints of a container. */
export function inspected(one: ReturnType<typeof container>, labels: Record<string, string> = {}) {
  return {
    Id: one.id,
    Name: `/${one.name}`,
    Created: new Date(one.createdAtMs).toISOString(),
    RestartCount: one.restarts,
    State: {
      Running: one.running,
      ExitCode: one.exitCode,
      OOMKilled: one.oomKilled,
      StartedAt: new Date(one.startedAtMs).toISOString(),
    },
    Config: {
      Labels: {
        "jiji.project": "casa",
        "jiji.service": "web",
        "jiji.instance": "s1",
        "jiji.deployment": "d1",
        "jiji.health":
          '{"kind":"http","port":3000,"path":"/up","interval_ms":1000,"timeout_ms":500}',
        ...labels,
      },
    },
    NetworkSettings: { Networks: { "jiji-net": { IPAddress: one.ip } } },
  };
}

/** What a duty works with, on fakes. */
export function setUp(facts: Partial<DaemonContext> = {}) {
  const process = new FakeProcess();
  const files = new FakeFiles();
  const clock = new SimClock(1_000_000);
  const logger = new RecordingLogger();
  const context: DaemonContext = {
    config: serverConfig(1),
    clock,
    process,
    files,
    api: NO_API,
    view: new ClusterView(),
    logger,
    facts: {
      peers: [],
      containers: undefined,
      health: new Map(),
      silent: new Set(),
      standsDown: false,
      removed: [],
      told: new Set(),
    },
    wake: () => undefined,
    ...facts,
  };
  return { process, files, clock, logger, context };
}
