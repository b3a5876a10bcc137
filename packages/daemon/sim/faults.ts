/** Random faults of a simulated cluster. */
import type { Random } from "@jiji/core/runtime";
import { PEER_CACHE_FILE } from "../src/duties/topology.ts";
import type { SimCluster } from "./sim_cluster.ts";
import type { SimServer } from "./sim_server.ts";

/** Wall clocks are wrong by up to this, milliseconds. */
const SKEW_MAX_MS = 10 * 60_000;

/** Makes one fault after the other and knows which servers the operator has removed. */
export class FaultMaker {
  readonly removed = new Set<SimServer>();
  readonly #cluster: SimCluster;
  readonly #random: Random;

  constructor(cluster: SimCluster, random: Random) {
    this.#cluster = cluster;
    this.#random = random;
  }

  #below(limit: number): number {
    return Math.floor(this.#random.next() * limit);
  }

  #pick(): SimServer {
    return this.#cluster.servers[this.#below(this.#cluster.servers.length)]!;
  }

  /** A fault, in words. */
  async next(): Promise<string> {
    const faults = [
      () => this.#lose(),
      () => this.#cutPair(),
      () => this.#cutPair(),
      () => this.#split(),
      () => this.#power(),
      () => this.#power(),
      () => this.#database(),
      () => this.#kernel(),
      () => this.#cache(),
      () => this.#skew(),
      () => this.#move(),
      () => this.#deploy(),
      () => this.#crash(),
      () => this.#remove(),
      () => this.#heal(),
    ];
    return await faults[this.#below(faults.length)]!();
  }

  #lose(): string {
    this.#cluster.loss = this.#random.next() * 0.5;
    return `${Math.round(this.#cluster.loss * 100)} % of packets are lost`;
  }

  #cutPair(): string {
    const [one, two] = [this.#pick(), this.#pick()];
    if (one !== two) this.#cluster.cut(one, two);
    return `${one.id} and ${two.id} are parted`;
  }

  /** Any share of the servers, from one to half. */
  #split(): string {
    const { servers } = this.#cluster;
    const size = 1 + this.#below(Math.floor(servers.length / 2));
    const group = new Set(Array.from({ length: size }, () => this.#pick()));
    this.#cluster.split(group);
    return `${group.size} of ${servers.length} servers are parted from the others`;
  }

  async #power(): Promise<string> {
    const server = this.#pick();
    if (server.isUp) await server.kill();
    else server.boot();
    return `${server.id} is switched ${server.isUp ? "on" : "off"}`;
  }

  #database(): string {
    const server = this.#pick();
    server.loseDatabase();
    return `${server.id} loses its database`;
  }

  #kernel(): string {
    const server = this.#pick();
    server.kernel.clear();
    server.context?.wake("topology");
    return `${server.id} loses its peers and routes`;
  }

  #cache(): string {
    const server = this.#pick();
    server.files.delete(PEER_CACHE_FILE);
    return `${server.id} loses its peer cache`;
  }

  #skew(): string {
    const server = this.#pick();
    server.skewMs = Math.round((this.#random.next() * 2 - 1) * SKEW_MAX_MS);
    return `the clock of ${server.id} is ${Math.round(server.skewMs / 1_000)} s off`;
  }

  #move(): string {
    const server = this.#pick();
    if (server.place < 200) server.move();
    return `${server.id} has another address`;
  }

  #deploy(): string {
    const server = this.#pick();
    if (server.isUp) server.deploy();
    return `${server.id} runs a new container`;
  }

  #crash(): string {
    const server = this.#pick();
    if (server.isUp) server.crash();
    return `the container of ${server.id} is gone`;
  }

  /** One server at most: the others are needed. */
  #remove(): string {
    const server = this.#pick();
    const asked = this.#cluster.servers.find((other) => other !== server && other.isUp);
    const known = asked?.replica.servers.get(server.id);
    if (this.removed.size > 0 || !asked || !known?.row) return "nothing happens";
    this.removed.add(server);
    const row = { ...known.row, removedAtMs: this.#cluster.clock.nowMs() };
    asked.merge({
      table: "servers",
      id: server.id,
      value: { version: known.version, row },
    });
    return `${server.id} is removed by the operator`;
  }

  #heal(): string {
    this.#cluster.heal();
    return "all ways are open again";
  }
}
