/** One simulated server: its kernel, files, replica and containers, and the daemon's real duties. */
import type { Clock } from "@jiji/core/runtime";
import { RecordingLogger } from "@jiji/core/testing";
import { ClusterView } from "../src/cluster_view.ts";
import { initialHealth } from "../src/container_health.ts";
import type { DaemonContext } from "../src/daemon_context.ts";
import { CollectionDuty } from "../src/duties/collection.ts";
import { RegistryDuty } from "../src/duties/containers.ts";
import { HeartbeatDuty } from "../src/duties/heartbeat.ts";
import { type BindDatagram, type DatagramSocket, LivenessDuty } from "../src/duties/liveness.ts";
import { EndpointDuty, TopologyDuty } from "../src/duties/topology.ts";
import { type Duty, DutyLoop } from "../src/duty_loop.ts";
import type { ObservedContainer } from "../src/engine/containers.ts";
import { addressOf, configOf, containerOf, endpointOf, keyOf } from "./facts.ts";
import { type Change, Replica } from "./replica.ts";
import type { SimCluster } from "./sim_cluster.ts";
import { SimKernel } from "./sim_kernel.ts";

/** Datagrams that wait for a reader at most; the kernel drops the rest. */
const INBOX_MAX = 1_000;

/** What must never happen and did, found by the server itself. */
export type Offence = (text: string) => void;

/** A server that can lose power, its database, its peers. */
export class SimServer {
  readonly index: number;
  readonly id: string;
  readonly address: string;
  readonly replica = new Replica();
  readonly files = new Map<string, string>();
  readonly kernel: SimKernel;
  isUp = false;
  context: DaemonContext | undefined;
  /** Milliseconds that its wall clock is ahead. */
  skewMs = 0;
  /** Counts its moves to other addresses. */
  place = 0;
  /** The container that runs, if any. */
  container: ObservedContainer | undefined;
  readonly #cluster: SimCluster;
  #generation = 0;
  #stop = new AbortController();
  #done: Promise<void> = Promise.resolve();
  #inbox: PromiseWithResolvers<{ bytes: Uint8Array; hostname: string }> | undefined;
  #waiting: { bytes: Uint8Array; hostname: string }[] = [];

  constructor(cluster: SimCluster, index: number) {
    this.#cluster = cluster;
    this.index = index;
    this.id = `s${index}`;
    this.address = addressOf(index);
    this.kernel = new SimKernel(keyOf(index), (key) => this.#removed(key));
  }

  /** Where others find it now. */
  get endpoint(): string {
    return endpointOf(this.index, this.place);
  }

  /** Power on: the kernel is empty, files and database are as they were. */
  boot(): void {
    this.isUp = true;
    this.kernel.clear();
    this.#waiting = [];
    this.#inbox = undefined;
    this.#stop = new AbortController();
    let wake: (duty: string) => void = () => undefined;
    const context = this.#makeContext((duty) => wake(duty));
    this.context = context;
    if (this.#generation === 0) this.deploy();
    this.#observeContainers();
    for (const change of this.#rows()) this.#show(change);
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
    view.filled.servers = true;
    view.filled.containers = true;
    return {
      config: { ...configOf(this.index), endpoints: [this.endpoint] },
      clock,
      process: {
        run: (argv) => Promise.resolve(this.kernel.run(argv, base.monotonicMs())),
        lines: () => {
          throw new Error("no event stream in the simulation");
        },
      },
      files: {
        read: (path) => Promise.resolve(this.files.get(path)),
        replace: (path, text) => {
          this.files.set(path, text);
          return Promise.resolve();
        },
      },
      api: {
        execute: (statements) => {
          for (const statement of statements) {
            for (const change of this.replica.execute(statement)) this.#wrote(change);
          }
          return Promise.resolve();
        },
        query: () => Promise.resolve([]),
      },
      view,
      logger: new RecordingLogger(),
      facts: {
        peers: [],
        containers: undefined,
        health: new Map(),
        silent: new Set(),
        standsDown: false,
        removed: [],
        told: new Set(),
      },
      wake,
    };
  }

  #makeLoop(context: DaemonContext): DutyLoop {
    const topology = new TopologyDuty(context);
    const endpoints = new EndpointDuty(context);
    const liveness = new LivenessDuty(context, this.#bind());
    const heartbeat = new HeartbeatDuty(context, `host${this.index}`);
    const registry = new RegistryDuty(context);
    const collection = new CollectionDuty(context);
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
    ], { clock, logger: context.logger, signal: this.#stop.signal });
  }

  /** Power loss. */
  async kill(): Promise<void> {
    this.isUp = false;
    this.#stop.abort(new Error("power loss"));
    await this.#done;
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
      const fresh = initialHealth(context.clock.monotonicMs(), undefined);
      context.facts.health.set(container.id, { ...fresh, status: "healthy" });
    }
    context.wake("registry");
  }

  /** The database is deleted; what others have comes back by gossip. */
  loseDatabase(): void {
    this.replica.clear();
    this.#cluster.forgetSynced(this);
    this.context?.view.servers.clear();
    this.context?.view.containers.clear();
    this.context?.wake("topology");
  }

  /** It moves to another address, and its own daemon knows. */
  move(): void {
    this.place += 1;
    if (!this.context) return;
    const config = { ...this.context.config, endpoints: [this.endpoint] };
    Object.assign(this.context, { config });
    this.context.wake("heartbeat");
  }

  /** A change from another replica. */
  merge(change: Change): void {
    if (this.replica.merge(change)) this.#show(change);
  }

  *#rows(): Iterable<Change> {
    for (const [id, value] of this.replica.servers) yield { table: "servers", id, value };
    for (const [id, value] of this.replica.containers) yield { table: "containers", id, value };
  }

  /** The subscription tells the daemon of a row. */
  #show(change: Change): void {
    const { context } = this;
    if (!context || !this.isUp) return;
    if (change.table === "containers") {
      if (change.value.row) context.view.containers.set(change.id, change.value.row);
      else context.view.containers.delete(change.id);
      if (change.value.row?.serverId === this.id) context.wake("registry");
      return;
    }
    const row = this.replica.servers.get(change.id)?.row;
    if (!row) return;
    const known = context.view.servers.get(change.id);
    context.view.servers.set(change.id, row);
    if (!known || !isSameBut(known, row, "lastSeenMs")) {
      context.wake("topology");
      if (change.id === this.id) context.wake("heartbeat");
    }
  }

  #wrote(change: Change): void {
    const { offend } = this.#cluster;
    if (change.table === "servers") {
      if (change.id !== this.id) offend(`${this.id} wrote the row of ${change.id}`);
      const gone = this.replica.servers.get(this.id)?.row?.removedAtMs;
      if (typeof gone === "number") offend(`${this.id} wrote its row after its removal`);
    } else {
      const owner = change.value.row?.serverId ?? this.#cluster.ownerOf(change.id);
      const isRemoved = typeof this.replica.servers.get(owner ?? "")?.row?.removedAtMs === "number";
      if (owner !== this.id && !isRemoved) {
        offend(`${this.id} wrote a container of ${owner}, which is no removed server`);
      }
      if (change.value.row) this.#cluster.own(change.id, change.value.row.serverId);
    }
    this.#show(change);
  }

  /** A datagram arrives. */
  deliver(bytes: Uint8Array, hostname: string): void {
    if (!this.isUp) return;
    if (this.#inbox) {
      const inbox = this.#inbox;
      this.#inbox = undefined;
      inbox.resolve({ bytes, hostname });
    } else if (this.#waiting.length < INBOX_MAX) this.#waiting.push({ bytes, hostname });
  }

  #bind(): BindDatagram {
    return (): DatagramSocket => ({
      send: (bytes, to) => {
        this.#cluster.send(this, { bytes, address: to.hostname });
        return Promise.resolve();
      },
      receive: () => {
        const next = this.#waiting.shift();
        if (next) return Promise.resolve(next);
        this.#inbox = Promise.withResolvers();
        return this.#inbox.promise;
      },
      close: () => undefined,
    });
  }

  #removed(key: string): void {
    const evident = [...this.replica.servers.values()].some(({ row }) =>
      row !== null && row.removedAtMs !== null && row.wireguardPubkey === key
    );
    if (!evident) this.#cluster.offend(`${this.id} removed a peer by absence`);
  }
}

/** Whether two rows have the same cells but one. Rows that a heartbeat changed share all others. */
function isSameBut<Row extends object>(a: Row, b: Row, but: keyof Row): boolean {
  const keys = Object.keys(b) as (keyof Row)[];
  return keys.every((key) =>
    key === but || a[key] === b[key] || JSON.stringify(a[key]) === JSON.stringify(b[key])
  );
}
