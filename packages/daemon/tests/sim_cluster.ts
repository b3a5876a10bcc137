/** A cluster of simulated servers that run the daemon's real duties on one simulated clock. */
import type { CorrosionApi, ServerRow, Statement } from "@jiji/core/corrosion";
import { renderPeerSeeds, SERVER_PATHS } from "@jiji/core/cluster";
import type { Argv, CommandResult, Process, Random } from "@jiji/core/runtime";
import { RecordingLogger, SimClock } from "@jiji/core/testing";
import { ClusterView } from "../src/cluster_view.ts";
import type { DaemonContext } from "../src/daemon_context.ts";
import { HeartbeatDuty } from "../src/duties/heartbeat.ts";
import { type BindDatagram, type DatagramSocket, LivenessDuty } from "../src/duties/liveness.ts";
import { EndpointDuty, TopologyDuty } from "../src/duties/topology.ts";
import { type Duty, DutyLoop } from "../src/duty_loop.ts";
import { key, peerSeed, serverConfig, serverRow } from "./builders.ts";

/** Gossip rounds are this far apart, milliseconds. */
const GOSSIP_MS = 300;
/** A handshake is tried this often between two servers that know each other, milliseconds. */
const HANDSHAKE_MS = 5_000;

interface SimPeer {
  endpoint: string;
  allowed: string[];
  handshakeAtMs: number;
}

/** One server: its kernel, its files, its replica of the rows, its daemon. */
export class SimServer {
  readonly index: number;
  readonly cluster: SimCluster;
  readonly rows = new Map<string, { row: ServerRow; version: number }>();
  readonly files = new Map<string, string>();
  peers = new Map<string, SimPeer>();
  routes = new Set<string>();
  /** Every `wg set … remove` with the evidence there was for it. */
  readonly removals: { readonly key: string; readonly evident: boolean }[] = [];
  /** Commands that changed something, with their simulated time. */
  readonly changes: { readonly atMs: number; readonly argv: Argv }[] = [];
  /** Writes of its own row after it had seen its own tombstone. */
  writesWhileRemoved = 0;
  isUp = false;
  context: DaemonContext | undefined;
  #stop = new AbortController();
  #done: Promise<void> = Promise.resolve();
  #inbox: PromiseWithResolvers<{ bytes: Uint8Array; hostname: string }> | undefined;
  readonly #waiting: { bytes: Uint8Array; hostname: string }[] = [];

  constructor(cluster: SimCluster, index: number) {
    this.cluster = cluster;
    this.index = index;
  }

  get id(): string {
    return `s${this.index}`;
  }

  get address(): string {
    return `10.210.${this.index}.1`;
  }

  /** Power on: the kernel is empty, files and database are as they were. */
  boot(): void {
    const { clock } = this.cluster;
    this.isUp = true;
    this.peers = new Map();
    this.routes = new Set();
    this.#stop = new AbortController();
    const view = new ClusterView();
    let wake: (duty: string) => void = () => undefined;
    const context: DaemonContext = {
      config: serverConfig(this.index),
      clock,
      process: this.#process(),
      files: {
        read: (path) => Promise.resolve(this.files.get(path)),
        replace: (path, text) => {
          this.files.set(path, text);
          return Promise.resolve();
        },
      },
      api: this.#api(),
      view,
      logger: new RecordingLogger(),
      facts: {
        peers: [],
        containers: undefined,
        health: new Map(),
        silent: new Set(),
        standsDown: false,
      },
      wake: (duty) => wake(duty),
    };
    this.context = context;
    this.refreshView();
    const topology = new TopologyDuty(context);
    const endpoints = new EndpointDuty(context);
    const liveness = new LivenessDuty(context, this.#bind());
    const heartbeat = new HeartbeatDuty(context, `host${this.index}`);
    const duty = (name: string, everyMs: number, run: Duty["run"]): Duty => ({
      name,
      everyMs,
      timeoutMs: 60_000,
      run,
    });
    const loop = new DutyLoop([
      duty("topology", 15_000, (signal) => topology.run(signal)),
      duty("endpoints", 10_000, (signal) => endpoints.run(signal)),
      duty("liveness", 1_000, () => liveness.run()),
      duty("heartbeat", 2_000, () => heartbeat.run()),
    ], { clock, logger: context.logger, signal: this.#stop.signal });
    wake = (name) => loop.wake(name);
    this.#done = loop.run();
  }

  /** Power loss. */
  async kill(): Promise<void> {
    this.isUp = false;
    this.#stop.abort(new Error("power loss"));
    await this.#done;
  }

  /** Takes rows over into the daemon's view, as its subscription would. */
  refreshView(): void {
    const view = this.context?.view;
    if (!view) return;
    view.servers.clear();
    for (const [id, { row }] of this.rows) view.servers.set(id, row);
    view.filled.servers = true;
    view.filled.containers = true;
    this.context?.wake("topology");
  }

  /** Merges another replica's row: one writer a row, and a tombstone stays. */
  merge(id: string, theirs: { readonly row: ServerRow; readonly version: number }): boolean {
    const ours = this.rows.get(id);
    const removedAtMs = ours?.row.removedAtMs ?? theirs.row.removedAtMs;
    const newer = !ours || theirs.version > ours.version ? theirs : ours;
    const row = { ...newer.row, removedAtMs };
    if (ours && newer === ours && ours.row.removedAtMs === removedAtMs) return false;
    this.rows.set(id, { row, version: newer.version });
    return true;
  }

  /** A datagram arrives. */
  deliver(bytes: Uint8Array, hostname: string): void {
    if (!this.isUp) return;
    if (this.#inbox) {
      const inbox = this.#inbox;
      this.#inbox = undefined;
      inbox.resolve({ bytes, hostname });
    } else if (this.#waiting.length < 1_000) this.#waiting.push({ bytes, hostname });
  }

  #bind(): BindDatagram {
    return (): DatagramSocket => ({
      send: (bytes, to) => this.cluster.send(this, { bytes, address: to.hostname }),
      receive: () => {
        const next = this.#waiting.shift();
        if (next) return Promise.resolve(next);
        this.#inbox = Promise.withResolvers();
        return this.#inbox.promise;
      },
      close: () => undefined,
    });
  }

  #api(): CorrosionApi {
    return {
      execute: (statements) => {
        for (const statement of statements) this.#write(statement);
        return Promise.resolve();
      },
      query: () => Promise.resolve([]),
    };
  }

  #write([sql, params]: Statement): void {
    const known = this.rows.get(this.id);
    if (known && known.row.removedAtMs !== null) this.writesWhileRemoved += 1;
    const removedAtMs = known?.row.removedAtMs ?? null;
    const lastSeenMs = Number(sql.startsWith("INSERT") ? params[7] : params[0]);
    const row = serverRow(this.index, { lastSeenMs, removedAtMs });
    this.rows.set(this.id, { row, version: (known?.version ?? 0) + 1 });
    this.refreshView();
  }

  #process(): Process {
    return {
      run: (argv) => Promise.resolve(this.#command(argv)),
      lines: () => {
        throw new Error("no event stream in the simulation");
      },
    };
  }

  #command(argv: Argv): CommandResult {
    const done = (stdout = ""): CommandResult => ({
      exitCode: 0,
      signal: undefined,
      stdout,
      stderr: "",
      durationMs: 0,
    });
    const [program, ...words] = argv;
    if (program === "wg" && words[0] === "show") return done(this.#dump());
    if (program === "ip" && words.includes("show")) {
      const six = words.includes("-6");
      return done([...this.routes].filter((route) => route.includes(":") === six).join("\n"));
    }
    this.changes.push({ atMs: this.cluster.clock.monotonicMs(), argv });
    if (program === "wg" && words[0] === "set") this.#wgSet(words);
    else if (program === "ip" && words.includes("replace")) {
      this.routes.add(after(words, "replace"));
    } else if (program === "ip" && words.includes("del")) this.routes.delete(after(words, "del"));
    else throw new Error(`the simulated server knows no ${argv.join(" ")}`);
    return done();
  }

  #dump(): string {
    const lines = [...this.peers].map(([publicKey, peer]) =>
      [
        publicKey,
        "(none)",
        peer.endpoint || "(none)",
        peer.allowed.join(",") || "(none)",
        Math.floor(peer.handshakeAtMs / 1_000),
        0,
        0,
        25,
      ].join("\t")
    );
    return [`private\t${key(this.index)}\t31820\toff`, ...lines].join("\n");
  }

  #wgSet(words: readonly string[]): void {
    const publicKey = after(words, "peer");
    if (words.includes("remove")) {
      const evident = [...this.rows.values()].some(({ row }) =>
        row.removedAtMs !== null && row.wireguardPubkey === publicKey
      );
      this.removals.push({ key: publicKey, evident });
      this.peers.delete(publicKey);
      return;
    }
    const peer = this.peers.get(publicKey) ?? { endpoint: "", allowed: [], handshakeAtMs: 0 };
    if (words.includes("endpoint")) peer.endpoint = after(words, "endpoint");
    if (words.includes("allowed-ips")) {
      peer.allowed = after(words, "allowed-ips").split(",");
      // The kernel gives an address to one peer: the last that claimed it.
      for (const [other, { allowed }] of this.peers) {
        if (other === publicKey) continue;
        const kept = allowed.filter((prefix) => !peer.allowed.includes(prefix));
        allowed.splice(0, allowed.length, ...kept);
      }
    }
    this.peers.set(publicKey, peer);
  }
}

function after(words: readonly string[], word: string): string {
  return words[words.indexOf(word) + 1] ?? "";
}

/** Servers, the network between them, and the faults in it. */
export class SimCluster {
  readonly clock = new SimClock();
  readonly servers: SimServer[] = [];
  readonly random: Random;
  /** Share of datagrams and gossip rounds that are lost. */
  loss = 0;
  readonly #cuts = new Set<string>();

  constructor(count: number, random: Random) {
    this.random = random;
    for (let index = 1; index <= count; index++) this.servers.push(new SimServer(this, index));
    for (const server of this.servers) {
      // Each knows those that were there when it joined.
      const before = this.servers.filter((other) => other.index < server.index);
      server.files.set(
        SERVER_PATHS.peerSeed,
        renderPeerSeeds(before.map((other) => peerSeed(other.index))),
      );
      // The member that was asked to add it wrote its row.
      before[0]?.rows.set(server.id, { row: serverRow(server.index), version: 0 });
      server.boot();
    }
  }

  /** Ends (or mends) the way between two servers, both directions. */
  cut(a: SimServer, b: SimServer, isCut = true): void {
    const pair = [a.index, b.index].sort((x, y) => x - y).join("|");
    if (isCut) this.#cuts.add(pair);
    else this.#cuts.delete(pair);
  }

  /** All ways are open and nothing is lost. */
  heal(): void {
    this.#cuts.clear();
    this.loss = 0;
  }

  /** Whether packets pass between two servers over the mesh. */
  connected(a: SimServer, b: SimServer): boolean {
    const pair = [a.index, b.index].sort((x, y) => x - y).join("|");
    return a.isUp && b.isUp && !this.#cuts.has(pair) &&
      a.peers.has(key(b.index)) && b.peers.has(key(a.index));
  }

  /** A datagram on its way: lost, or delivered within 50 ms. */
  async send(
    from: SimServer,
    o: { readonly bytes: Uint8Array; readonly address: string },
  ): Promise<void> {
    const to = this.servers.find((server) => server.address === o.address);
    if (!to || !this.connected(from, to) || this.random.next() < this.loss) return;
    await this.clock.sleep(1 + Math.floor(this.random.next() * 50));
    to.deliver(o.bytes, from.address);
  }

  /** Lets time pass in steps; `check` looks at every whole second. */
  async run(durationMs: number, check: () => void): Promise<void> {
    for (let passedMs = 0; passedMs < durationMs; passedMs += GOSSIP_MS) {
      await this.clock.advance(GOSSIP_MS);
      this.#gossip();
      if (
        Math.floor(passedMs / HANDSHAKE_MS) !== Math.floor((passedMs - GOSSIP_MS) / HANDSHAKE_MS)
      ) {
        this.#handshakes();
      }
      check();
    }
  }

  #gossip(): void {
    for (const server of this.servers) {
      const near = this.servers.filter((other) =>
        other !== server && this.connected(server, other)
      );
      const other = near[Math.floor(this.random.next() * near.length)];
      if (!other || this.random.next() < this.loss) continue;
      let changed = false;
      for (const [id, row] of server.rows) changed = other.merge(id, row) || changed;
      if (changed) other.refreshView();
    }
  }

  #handshakes(): void {
    const nowMs = this.clock.nowMs();
    for (const a of this.servers) {
      for (const b of this.servers) {
        const peer = a.peers.get(key(b.index));
        if (a !== b && peer && this.connected(a, b)) peer.handshakeAtMs = nowMs;
      }
    }
  }
}
