/** Simulated servers, the network between them, and the faults in it. */
import { renderPeerSeeds, SERVER_PATHS } from "@jiji/core/cluster";
import type { Random } from "@jiji/core/runtime";
import { SimClock } from "@jiji/core/testing";
import { rowOf, seedOf } from "./facts.ts";
import { type Change, RowPlaces } from "./replica.ts";
import { KNOCK_TIMEOUT_MS } from "../src/duties/liveness.ts";
import { PrefixLists } from "./sim_kernel.ts";
import { SimKeys } from "./sim_keys.ts";
import { SimWire } from "./sim_wire.ts";
import { SimServer } from "./sim_server.ts";

/** Gossip rounds are this far apart, milliseconds. */
const GOSSIP_MS = 300;
/** Without a session a handshake is tried this often. Source: the WireGuard paper, section 6.1. */
const HANDSHAKE_MS = 5_000;
/** A session is renewed after this long, and carries nothing after that long. Source: the same. */
const REKEY_MS = 120_000;
const REJECT_MS = 180_000;
/** Share of talks in which every row comes twice. */
const DOUBLED = 0.02;
/** Servers that one gossips with in a round. */
const GOSSIP_FANOUT = 3;
/** In clusters larger than this not everyone compares everything in every round. */
const SYNCS_PER_ROUND = 16;
/** For this many rounds a server picks from the same others. */
const PARTNERS_ROUNDS = 8;
/** Members that a newcomer's seed names. */
const SEEDS_MAX = 20;
/** Clusters larger than this are there already: nobody makes hundreds of servers join in one second. */
const NEW_MAX = 64;

/** A cluster on one clock. */
export class SimCluster {
  readonly clock = new SimClock();
  readonly servers: SimServer[] = [];
  readonly random: Random;
  readonly secret: string | undefined;
  /** Share of datagrams and gossip rounds that are lost. */
  loss = 0;
  /** Datagrams that were sent. */
  datagrams = 0;
  /** What must never happen and did. */
  readonly offences: string[] = [];
  readonly #byAddress = new Map<string, SimServer>();
  readonly #cuts = new Set<number>();
  readonly #oneWay = new Set<number>();
  readonly #delays = new Map<number, number>();
  readonly #owners = new Map<string, string>();
  readonly #holders = new Map<string, Set<string>>();
  readonly wire = new SimWire();
  readonly lists = new PrefixLists();
  readonly keys = new SimKeys();
  /** Places of rows in all replicas. */
  readonly places = new RowPlaces();
  readonly #partners = new Map<SimServer, { round: number; partners: readonly SimServer[] }>();
  #rounds = 0;
  #handshakesAtMs = -Infinity;

  /** @param o `secret` is what preshared keys are made from; without it there are none. */
  constructor(count: number, random: Random, o: { readonly secret?: string | undefined } = {}) {
    this.random = random;
    this.secret = o.secret;
    for (let index = 1; index <= count; index++) {
      this.add(index);
    }
    for (const server of this.servers) {
      // Each knows some of those that were made members with it; one of them wrote its row.
      const isNew = count <= NEW_MAX;
      const others = this.servers.filter((other) => other !== server);
      const writers = isNew ? others.slice(0, 1) : this.servers;
      const known = others.slice(0, SEEDS_MAX);
      server.files.set(
        SERVER_PATHS.peerSeed,
        renderPeerSeeds(known.map((other) => seedOf(other.index))),
      );
      const value = { version: 0, removedVersion: 0, row: rowOf(server.index) };
      const change: Change = { table: "servers", id: server.id, value };
      for (const one of writers) one.merge(change);
      server.boot();
    }
  }

  /** Takes note of what must never happen. */
  readonly offend = (text: string): void => {
    this.offences.push(`${text} (at ${this.clock.monotonicMs()} ms)`);
  };

  /** Whose container an id is. */
  ownerOf(id: string): string | undefined {
    return this.#owners.get(id);
  }

  /** Takes note of whose container an id is. */
  own(id: string, serverId: string): void {
    this.#owners.set(id, serverId);
  }

  /** Servers that have or had a key, by name. */
  holdersOf(key: string): Set<string> {
    const holders = this.#holders.get(key) ?? new Set();
    this.#holders.set(key, holders);
    return holders;
  }

  #pair(a: SimServer, b: SimServer): number {
    return Math.min(a.index, b.index) * 65_536 + Math.max(a.index, b.index);
  }

  /** Nothing goes from one server to another; the way back stays. */
  cutOneWay(from: SimServer, to: SimServer): void {
    this.#oneWay.add(this.#way(from, to));
  }

  /** What goes from one server to another takes this long, minutes even. */
  delay(from: SimServer, to: SimServer, delayMs: number): void {
    this.#delays.set(this.#way(from, to), delayMs);
  }

  /** Adds a server; with the key of another when it was cloned from the same image. */
  add(index: number, keyIndex = index): SimServer {
    const server = new SimServer(this, index, keyIndex);
    this.servers.push(server);
    this.#byAddress.set(server.address, server);
    return server;
  }

  /** A server is gone for ever. */
  async drop(server: SimServer): Promise<void> {
    if (server.isUp) await server.kill();
    this.servers.splice(this.servers.indexOf(server), 1);
    this.#byAddress.delete(server.address);
  }

  /** Ends (or mends) the way between two servers, both directions. */
  cut(a: SimServer, b: SimServer, isCut = true): void {
    if (isCut) this.#cuts.add(this.#pair(a, b));
    else this.#cuts.delete(this.#pair(a, b));
  }

  /** Parts the servers of one group from all others. */
  split(group: ReadonlySet<SimServer>): void {
    for (const a of group) {
      for (const b of this.servers) if (!group.has(b)) this.cut(a, b);
    }
  }

  /** All ways are open and nothing is lost. */
  heal(): void {
    this.#cuts.clear();
    this.#oneWay.clear();
    this.#delays.clear();
    this.loss = 0;
  }

  #way(from: SimServer, to: SimServer): number {
    return from.index * 65_536 + to.index;
  }

  /** Whether both have a session with each other, and one of them knows where the other is. */
  linked(a: SimServer, b: SimServer): boolean {
    if (!a.isUp || !b.isUp) return false;
    const there = a.kernel.peers.get(b.key);
    const back = b.kernel.peers.get(a.key);
    return there !== undefined && back !== undefined &&
      there.handshakeAtMs === back.handshakeAtMs &&
      this.clock.nowMs() - there.handshakeAtMs < REJECT_MS &&
      (there.endpoint === b.endpoint || back.endpoint === a.endpoint) &&
      !this.#cuts.has(this.#pair(a, b));
  }

  /** Whether packets between the addresses of two servers pass from one to the other. */
  #passes(from: SimServer, to: SimServer): boolean {
    if (!this.linked(from, to) || this.#oneWay.has(this.#way(from, to))) return false;
    const there = from.kernel.peers.get(to.key)!.allowed;
    const back = to.kernel.peers.get(from.key)!.allowed;
    return (there.includes(to.block) || there.includes(`${to.address}/32`)) &&
      (back.includes(from.block) || back.includes(`${from.address}/32`)) &&
      !to.kernel.drops.has(from.address);
  }

  /** Whether Corrosion of one reaches that of the other: both ways, between their identities. */
  #gossips(a: SimServer, b: SimServer): boolean {
    return this.linked(a, b) && !this.#oneWay.has(this.#way(a, b)) &&
      !this.#oneWay.has(this.#way(b, a)) &&
      a.kernel.peers.get(b.key)!.allowed.includes(b.identity) &&
      b.kernel.peers.get(a.key)!.allowed.includes(a.identity);
  }

  /** A datagram on its way: lost, or delivered within 50 ms, now and then twice, or much later. */
  send(
    from: SimServer,
    o: { readonly bytes: Uint8Array; readonly address: string; readonly port: number },
  ): void {
    this.datagrams += 1;
    const to = this.#byAddress.get(o.address);
    if (!to || !this.#passes(from, to) || this.random.next() < this.loss) return;
    const times = this.random.next() < 0.01 ? 2 : 1;
    const slowMs = this.#delays.get(this.#way(from, to)) ?? 0;
    for (let time = 0; time < times; time++) {
      const delayMs = 1 + slowMs + Math.floor(this.random.next() * 50);
      const source = { hostname: from.address, port: o.port };
      this.clock.after(delayMs, () => to.deliver(o.bytes, source));
    }
  }

  /** Whether a server answers a knock: both ways are open, and nothing was lost. */
  async knock(from: SimServer, address: string): Promise<boolean> {
    const to = this.#byAddress.get(address);
    const isLost = this.random.next() < this.loss;
    const slowMs = to
      ? (this.#delays.get(this.#way(from, to)) ?? 0) + (this.#delays.get(this.#way(to, from)) ?? 0)
      : 0;
    const isOpen = to !== undefined && !isLost && slowMs < KNOCK_TIMEOUT_MS &&
      this.#passes(from, to) && this.#passes(to, from);
    await this.clock.sleep(isOpen ? 1 + slowMs : KNOCK_TIMEOUT_MS);
    return isOpen && to.isUp;
  }

  /** Lets time pass in steps and calls `check` after each. */
  async run(durationMs: number, check: () => void): Promise<void> {
    for (let passedMs = 0; passedMs < durationMs; passedMs += GOSSIP_MS) {
      await this.clock.advance(GOSSIP_MS, { together: this.servers.length > 20 });
      this.#gossip();
      this.#handshakes();
      check();
    }
  }

  /** Fresh changes go to a few; now and then two servers compare all that they have. */
  #gossip(): void {
    this.#rounds += 1;
    const { servers } = this;
    const syncEvery = Math.max(1, Math.ceil(servers.length / SYNCS_PER_ROUND));
    for (const server of servers) {
      if (!server.isUp) continue;
      const partners = this.#partnersOf(server);
      for (let count = 0; count < GOSSIP_FANOUT && partners.length > 0; count++) {
        const other = partners[Math.floor(this.random.next() * partners.length)]!;
        if (other === server || !this.#gossips(server, other)) continue;
        if (this.random.next() < this.loss) continue;
        const isSync = (this.#rounds + server.index) % syncEvery === 0 || other.replica.isBlank;
        this.#tell(server, { other, isSync });
      }
    }
    for (const server of servers) server.replica.nextRound();
  }

  /** Whom a server may gossip with: those that its kernel knows, looked up now and then. */
  #partnersOf(server: SimServer): readonly SimServer[] {
    const known = this.#partners.get(server);
    if (known && this.#rounds - known.round < PARTNERS_ROUNDS) return known.partners;
    const { peers } = server.kernel;
    const partners = this.servers.filter((other) => peers.has(other.key));
    this.#partners.set(server, { round: this.#rounds, partners });
    return partners;
  }

  #tell(server: SimServer, o: { readonly other: SimServer; readonly isSync: boolean }): void {
    const { other } = o;
    const { replica } = server;
    const delayMs = this.#delays.get(this.#way(server, other));
    const late: Change[] = [];
    // Now and then a row comes twice.
    const take = delayMs !== undefined
      ? (change: Change) => late.push(change)
      : this.random.next() < DOUBLED
      ? (change: Change) => other.mergeTwice(change)
      : (change: Change) => other.merge(change);
    if (o.isSync) replica.eachDifference(other.replica, take);
    else replica.eachFresh(take);
    if (delayMs === undefined) {
      if (o.isSync) other.replica.isBlank = false;
    } else if (late.length > 0) {
      this.clock.after(delayMs, () => late.forEach((change) => other.merge(change)));
    }
  }

  /** Sessions begin and are renewed: for all now and then, at once for those whose peers changed. */
  #handshakes(): void {
    const isForAll = this.clock.monotonicMs() - this.#handshakesAtMs >= HANDSHAKE_MS;
    if (isForAll) this.#handshakesAtMs = this.clock.monotonicMs();
    for (const a of this.servers) {
      if (!a.isUp || !(isForAll || a.kernel.isNew)) continue;
      a.kernel.isNew = false;
      for (const b of this.servers) {
        // Of two whose turn it is one is enough.
        if (a !== b && b.isUp && !(isForAll && b.index > a.index)) this.#shake(a, b);
      }
    }
  }

  #shake(a: SimServer, b: SimServer): void {
    const there = a.kernel.peers.get(b.key);
    const back = there && b.kernel.peers.get(a.key);
    if (!there || !back || this.#cuts.has(this.#pair(a, b))) return;
    if (there.psk !== back.psk) return;
    const isFound = there.endpoint === b.endpoint || back.endpoint === a.endpoint;
    if (!isFound || this.#oneWay.has(this.#way(a, b)) || this.#oneWay.has(this.#way(b, a))) return;
    const nowMs = this.clock.nowMs();
    const isOld = there.handshakeAtMs !== back.handshakeAtMs ||
      nowMs - there.handshakeAtMs >= REKEY_MS;
    if (isOld) there.handshakeAtMs = back.handshakeAtMs = nowMs;
    // WireGuard follows a peer that is heard from elsewhere.
    there.endpoint = b.endpoint;
    back.endpoint = a.endpoint;
  }

  /** Ends every daemon. */
  async end(): Promise<void> {
    for (const server of this.servers) if (server.isUp) await server.kill();
  }
}
