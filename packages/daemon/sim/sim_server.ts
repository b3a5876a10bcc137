/** One simulated server: its kernel, files, replica and containers, and the daemon's real duties. */
import { parseServerConfig, SERVER_PATHS } from "@jiji/core/cluster";
import type { Statement } from "@jiji/core/corrosion";
import type { Clock, Logger } from "@jiji/core/runtime";
import { ClusterView } from "../src/state/cluster_view.ts";
import { initialHealth } from "../src/engine/container_health.ts";
import type { DaemonContext } from "../src/daemon_context.ts";
import { CollectionDuty } from "../src/duties/collection.ts";
import { RegistryDuty } from "../src/duties/containers.ts";
import { KeyChangeDuty } from "../src/duties/key_change.ts";
import { HeartbeatDuty } from "../src/duties/heartbeat.ts";
import { type BindDatagram, type DatagramSocket, LivenessDuty } from "../src/duties/liveness.ts";
import { EndpointDuty, TopologyDuty } from "../src/duties/topology.ts";
import { type Duty, DutyLoop } from "../src/duty_loop.ts";
import type { ObservedContainer } from "../src/engine/containers.ts";
import { FarewellDuty, MemoryDuty } from "../src/duties/removal.ts";
import { parseRemovedServers, REMOVED_FILE } from "../src/state/removed_servers.ts";
import {
  addressOf,
  blockOf,
  configOf,
  containerOf,
  endpointOf,
  identityOf,
  keyIndexOf,
  keyOf,
} from "./facts.ts";
import { Inbox } from "./inbox.ts";
import { type Change, Replica } from "./replica.ts";
import type { SimCluster } from "./sim_cluster.ts";
import { SimDns } from "./sim_dns.ts";
import { SimHost } from "./sim_host.ts";
import { SimKernel } from "./sim_kernel.ts";

/** Nobody reads hundreds of logs. */
const SILENT: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/** A server that can lose power, its database, its peers. */
export class SimServer {
  readonly index: number;
  readonly id: string;
  readonly address: string;
  readonly block: string;
  readonly replica: Replica;
  readonly host = new SimHost(() => this.#losePower());
  readonly files = this.host.files;
  readonly kernel: SimKernel;
  dns: SimDns;
  isUp = false;
  context: DaemonContext | undefined;
  /** Milliseconds that its wall clock is ahead. */
  skewMs = 0;
  /** Counts its moves to other addresses. */
  place = 0;
  /** The container that runs, if any. */
  container: ObservedContainer | undefined;
  /** Which key it has: its index, unless it was cloned or reinstalled. */
  keyIndex: number;
  readonly #cluster: SimCluster;
  #key: string;
  #identity: string;
  #endpoint: string;
  #generation = 0;
  #stop = new AbortController();
  #done: Promise<void> = Promise.resolve();
  #inboxes = new Map<number, Inbox>();

  constructor(cluster: SimCluster, index: number, keyIndex = index) {
    this.#cluster = cluster;
    this.replica = new Replica(cluster.places);
    this.index = index;
    this.keyIndex = keyIndex;
    this.id = `s${index}`;
    this.address = addressOf(index);
    this.block = blockOf(index);
    this.kernel = new SimKernel(keyOf(keyIndex), {
      onRemove: (key) => this.#removed(key),
      onLoad: (key) => this.#setKey(keyIndexOf(key)),
      read: this.host.read,
      lists: cluster.lists,
    });
    this.dns = new SimDns(this.id);
    this.#key = keyOf(keyIndex);
    this.#identity = `${identityOf(keyIndex)}/128`;
    this.#endpoint = endpointOf(index);
    cluster.holdersOf(this.#key).add(this.id);
    this.#install();
  }

  /** Its public key. */
  get key(): string {
    return this.#key;
  }

  /** Prefix of its identity. */
  get identity(): string {
    return this.#identity;
  }

  /** Where others find it now. */
  get endpoint(): string {
    return this.#endpoint;
  }

  /** Power on: the kernel is empty, files and database are as they were. */
  boot(): void {
    this.isUp = true;
    this.kernel.clear();
    this.#setKey(keyIndexOf(this.host.read(SERVER_PATHS.wireguardKey)));
    this.kernel.load(this.key);
    this.kernel.addresses.clear();
    this.dns = new SimDns(this.id);
    this.dns.fill(this.replica, this.#cluster.clock.nowMs());
    this.startDaemon();
  }

  /** The daemon starts, and knows nothing but what files and rows say. */
  startDaemon(): void {
    this.#inboxes = new Map();
    this.#stop = new AbortController();
    let wake: (duty: string) => void = () => undefined;
    const context = this.#makeContext((duty) => wake(duty));
    this.context = context;
    if (this.#generation === 0) this.deploy();
    this.#observeContainers();
    for (const [id, { row }] of this.replica.servers) context.view.servers.set(id, row);
    for (const [id, { row }] of this.replica.containers) {
      if (row) context.view.containers.set(id, row);
    }
    const loop = this.#makeLoop(context);
    wake = (name) => loop.wake(name);
    this.#done = loop.run();
  }

  #makeContext(wake: (duty: string) => void): DaemonContext {
    const base = this.#cluster.clock;
    const clock: Clock = {
      nowMs: () => base.nowMs() + this.skewMs,
      monotonicMs: () => base.monotonicMs(),
      sleep: (durationMs, options) => base.sleep(durationMs, options),
    };
    const view = new ClusterView();
    const config = parseServerConfig(this.files.get(SERVER_PATHS.serverConfig) ?? "");
    this.kernel.addresses.add(config.management_ip);
    view.filled.servers = true;
    view.filled.containers = true;
    return {
      config: { ...config, endpoints: [this.endpoint] },
      clock,
      process: this.host.process(this.kernel, () => base.monotonicMs()),
      mesh: this.kernel,
      keys: this.#cluster.keys,
      files: this.host.store,
      api: {
        execute: (statements) => {
          for (const statement of statements) {
            const wasRemoved = this.#isRemoved;
            for (const change of this.replica.execute(statement)) this.#wrote(change, wasRemoved);
          }
          return Promise.resolve();
        },
        query: ([sql]) => {
          if (!sql.includes("cluster_metadata")) return Promise.resolve([]);
          const rows = [...this.replica.metadata].map(([key, { row }]) => [key, row]);
          return Promise.resolve(rows);
        },
      },
      view,
      logger: SILENT,
      facts: {
        peers: [],
        containers: undefined,
        health: new Map(),
        silent: new Set(),
        standsDown: false,
        removed: parseRemovedServers(this.files.get(REMOVED_FILE) ?? ""),
        told: new Set(),
      },
      wake,
    };
  }

  #makeLoop(context: DaemonContext): DutyLoop {
    const topology = new TopologyDuty(context);
    const endpoints = new EndpointDuty(context);
    const liveness = new LivenessDuty(context, this.#bind(), {
      knock: (address) => this.#cluster.knock(this, address),
      wire: this.#cluster.wire,
    });
    const heartbeat = new HeartbeatDuty(context, `host${this.index}`);
    const registry = new RegistryDuty(context);
    const collection = new CollectionDuty(context);
    const memory = new MemoryDuty(context);
    const keyChange = new KeyChangeDuty(context);
    const farewell = new FarewellDuty(context, this.#bind());
    const duty = (name: string, everyMs: number, run: Duty["run"]): Duty => ({
      name,
      everyMs,
      timeoutMs: 60_000,
      run,
    });
    const { clock } = this.#cluster;
    return new DutyLoop([
      duty("topology", 15_000, (signal) => topology.run(signal)),
      duty("endpoints", 10_000, (signal) => endpoints.run(signal)),
      duty("liveness", 1_000, () => liveness.run()),
      duty("heartbeat", 2_000, () => heartbeat.run()),
      duty("registry", 5_000, () => registry.run()),
      duty("collection", 60_000, () => collection.run()),
      duty("memory", 15_000, () => memory.run()),
      duty("key-change", 3_000, (signal) => keyChange.run(signal)),
      duty("farewell", 5_000, (signal) => farewell.run(signal)),
    ], { clock, logger: context.logger, signal: this.#stop.signal });
  }

  /** Power loss. */
  async kill(): Promise<void> {
    this.isUp = false;
    this.#stop.abort(new Error("power loss"));
    await this.#done;
  }

  /** Its daemon is killed; kernel, containers and database go on. */
  async killDaemon(): Promise<void> {
    this.#stop.abort(new Error("killed"));
    await this.#done;
    this.context = undefined;
  }

  /** A new container in place of the one that runs. */
  deploy(): void {
    this.#generation += 1;
    this.container = containerOf(this.index, this.#generation);
    this.#observeContainers();
  }

  /** The container dies and does not come back by itself. */
  crash(): void {
    this.container = undefined;
    this.#observeContainers();
  }

  #observeContainers(): void {
    const { context, container } = this;
    if (!context) return;
    context.facts.containers = container ? [container] : [];
    context.facts.health.clear();
    if (container) {
      const fresh = initialHealth(context.clock.monotonicMs());
      context.facts.health.set(container.id, { ...fresh, status: "healthy" });
    }
    context.wake("registry");
  }

  /** The database is deleted; what others have comes back by gossip. */
  loseDatabase(): void {
    this.replica.clear();
    if (this.context) this.context.view.serverChanges += 1;
    this.context?.view.servers.clear();
    this.context?.view.containers.clear();
    this.dns.fill(this.replica, this.#cluster.clock.nowMs());
    for (const duty of ["topology", "heartbeat", "registry"]) this.context?.wake(duty);
  }

  /** It moves to another address, and its own daemon knows. */
  move(): void {
    this.place += 1;
    this.#endpoint = endpointOf(this.index, this.place);
    if (!this.context) return;
    const config = { ...this.context.config, endpoints: [this.endpoint] };
    Object.assign(this.context, { config });
    this.context.wake("heartbeat");
  }

  /** A change from another replica. */
  merge(change: Change): void {
    if (this.replica.merge(change)) this.#show(change);
  }

  /** The same, and its subscription tells of the row twice. */
  mergeTwice(change: Change): void {
    if (!this.replica.merge(change)) return;
    this.#show(change);
    this.#show(change);
  }

  /** The subscription tells the daemon of a row. */
  #show(change: Change): void {
    const { context, replica } = this;
    if (!this.isUp || change.table === "metadata") return;
    const { dns, id } = this;
    const nowMs = this.#cluster.clock.nowMs();
    if (!context || change.table === "containers") {
      dns.take(change, { replica, nowMs, isBeat: false });
      if (!context || change.table !== "containers") return;
      if (change.value.row) context.view.containers.set(change.id, change.value.row);
      else context.view.containers.delete(change.id);
      if (change.value.row?.serverId === id) context.wake("registry");
      return;
    }
    const row = replica.servers.get(change.id)?.row;
    if (!row) return;
    const known = context.view.servers.get(change.id);
    context.view.servers.set(change.id, row);
    const isBeat = known !== undefined && isSameBut(known, row, "lastSeenMs");
    dns.take(change, { replica, nowMs, isBeat });
    if (isBeat) return;
    context.view.serverChanges += 1;
    for (const duty of ["topology", "heartbeat", "memory", "farewell"]) context.wake(duty);
  }

  /** What the operator (or a stranger) has this server write. */
  operate(statements: readonly Statement[]): void {
    for (const statement of statements) {
      for (const change of this.replica.execute(statement)) this.#show(change);
    }
  }

  /** What a stranger writes into its database. */
  forge(table: "servers" | "containers", cells: readonly unknown[]): void {
    const change = this.replica.forge(table, cells);
    if (change) this.merge(change);
  }

  /** All that it had is gone; it comes back with another key, as after a reinstallation. */
  reinstall(keyIndex: number): void {
    this.#setKey(keyIndex);
    this.files.clear();
    this.#install();
    this.replica.clear();
  }

  /** What `server init` leaves: the key, and who this is. */
  #install(): void {
    this.files.set(SERVER_PATHS.wireguardKey, `${this.key}\n`);
    const config = configOf(this.index, this.keyIndex);
    this.files.set(SERVER_PATHS.serverConfig, JSON.stringify(config, null, 2) + "\n");
    if (this.#cluster.secret) this.files.set(SERVER_PATHS.meshSecret, `${this.#cluster.secret}\n`);
  }

  #setKey(keyIndex: number): void {
    this.keyIndex = keyIndex;
    this.#key = keyOf(keyIndex);
    this.#identity = `${identityOf(keyIndex)}/128`;
    this.#cluster.holdersOf(this.#key).add(this.id);
  }

  #losePower(): void {
    this.#cluster.clock.after(0, () => void (this.isUp && this.kill()));
  }

  get #isRemoved(): boolean {
    return typeof this.replica.servers.get(this.id)?.row.removedAtMs === "number";
  }

  #wrote(change: Change, wasRemoved: boolean): void {
    const { offend } = this.#cluster;
    if (change.table === "servers") this.#wroteServer(change.id, wasRemoved);
    else if (change.table === "containers") {
      const owner = change.value.row?.serverId ?? this.#cluster.ownerOf(change.id);
      const isRemoved = typeof this.replica.servers.get(owner ?? "")?.row.removedAtMs === "number";
      if (owner !== this.id && !isRemoved) {
        offend(`${this.id} wrote a container of ${owner}, which is no removed server`);
      }
      if (change.value.row) this.#cluster.own(change.id, change.value.row.serverId);
    }
    this.#show(change);
  }

  #wroteServer(id: string, wasRemoved: boolean): void {
    const { offend } = this.#cluster;
    if (id === this.id && wasRemoved) offend(`${this.id} wrote its row after its removal`);
    // Of others only what is known of their removal is written again.
    if (id !== this.id && !this.context?.facts.removed.some((row) => row.id === id)) {
      offend(`${this.id} wrote the row of ${id}`);
    }
  }

  /** A datagram arrives. */
  deliver(bytes: Uint8Array, from: { readonly hostname: string; readonly port: number }): void {
    if (this.isUp && this.context) this.#inboxOf(from.port).put(bytes, from.hostname);
  }

  #inboxOf(port: number): Inbox {
    const known = this.#inboxes.get(port);
    if (known) return known;
    const inbox = new Inbox();
    this.#inboxes.set(port, inbox);
    return inbox;
  }

  #bind(): BindDatagram {
    return ({ port }): DatagramSocket => {
      const inbox = this.#inboxOf(port);
      return {
        send: (bytes, to) => {
          this.#cluster.send(this, { bytes, address: to.hostname, port: to.port });
          return Promise.resolve();
        },
        receive: () => inbox.take(),
        close: () => undefined,
      };
    };
  }

  /** A peer leaves on a tombstone, or when its server's own row has another key. */
  #removed(key: string): void {
    const owner = this.#cluster.servers.find((server) => server.key === key);
    const evident = [...this.replica.servers.values()].some(({ row }) =>
      row.wireguardPubkey === key
        ? row.removedAtMs !== null
        : this.#cluster.holdersOf(key).has(row.id)
    );
    const isKnown = this.context?.facts.removed.some((row) => row.wireguardPubkey === key);
    // A key that nobody has any more, or one that only was to be told of its removal.
    const isFormer = owner === undefined ||
      this.kernel.peers.get(key)?.allowed.join() === `${owner.address}/32`;
    if (!evident && !isKnown && !isFormer) {
      this.#cluster.offend(`${this.id} removed a peer by absence`);
    }
  }
}

/** Whether two rows have the same cells but one. Rows that a heartbeat changed share all others. */
function isSameBut<Row extends object>(a: Row, b: Row, but: keyof Row): boolean {
  const keys = Object.keys(b) as (keyof Row)[];
  return keys.every((key) =>
    key === but || a[key] === b[key] || JSON.stringify(a[key]) === JSON.stringify(b[key])
  );
}
