/** Random faults of a simulated cluster. */
import {
  reviveServer,
  serverCells,
  type ServerRow,
  type SqlValue,
  type Statement,
  tombstoneServer,
  upsertServer,
} from "@jiji/core/corrosion";
import { renderPeerSeeds, SERVER_PATHS } from "@jiji/core/cluster";
import type { Random } from "@jiji/core/runtime";
import { PEER_CACHE_FILE } from "../src/duties/topology.ts";
import { parseRevivals, recordRevival, REMOVED_FILE } from "../src/state/removed_servers.ts";
import { addressOf, blockOf, containerOf, identityOf, keyOf, rowOf, seedOf } from "./facts.ts";
import type { SimCluster } from "./sim_cluster.ts";
import type { SimServer } from "./sim_server.ts";

/** Wall clocks are wrong by up to this, milliseconds. */
const SKEW_MAX_MS = 10 * 60_000;
/** Packets and rows are late by up to this, milliseconds. */
const DELAY_MAX_MS = 3 * 60_000;
/** A daemon is there again after this long, or up to twice as long on a busy server, milliseconds. */
const DAEMON_RESTART_MS = 2_500;
/** Clones get indices from here on, and strangers' servers beyond those. */
const CLONES_FROM = 12_000;
const STRANGERS_FROM = 14_000;
/** Keys of reinstalled servers begin here. */
const NEW_KEYS_FROM = 20_000;

/** Makes one fault after the other and knows which servers the operator has removed. */
export class FaultMaker {
  readonly removed = new Set<SimServer>();
  readonly #cluster: SimCluster;
  readonly #random: Random;
  /** Machines that came with another's disk. */
  readonly #clones: SimServer[] = [];
  /** Servers that exist as rows only, or are gone: what their rows said. */
  readonly #strangers = new Map<string, Omit<ServerRow, "removedAtMs">>();
  readonly #addedAgain = new Set<SimServer>();
  #made = 0;

  constructor(cluster: SimCluster, random: Random) {
    this.#cluster = cluster;
    this.#random = random;
  }

  #below(limit: number): number {
    return Math.floor(this.#random.next() * limit);
  }

  /** One of the servers that were there from the start. */
  #pick(): SimServer {
    const own = this.#cluster.servers.filter((server) => server.index < CLONES_FROM);
    return own[this.#below(own.length)]!;
  }

  /** A member that is up, by which an operator or a stranger writes: one that was always one. */
  #writer(but?: SimServer): SimServer | undefined {
    const able = this.#cluster.servers.filter((server) =>
      server !== but && server.isUp && server.index < CLONES_FROM && !this.removed.has(server)
    );
    return able.find((server) => !this.#addedAgain.has(server)) ?? able[0];
  }

  /** A fault, in words. */
  async next(): Promise<string> {
    this.#made += 1;
    const faults = [
      () => this.#lose(),
      () => this.#cutPair(),
      () => this.#cutOneWay(),
      () => this.#split(),
      () => this.#delay(),
      () => this.#power(),
      () => this.#power(),
      () => this.#powerOfAll(),
      () => this.#daemon(),
      () => this.#database(),
      () => this.#databases(),
      () => this.#kernel(),
      () => this.#cache(),
      () => this.#skew(),
      () => this.#move(),
      () => this.#deploy(),
      () => this.#crash(),
      () => this.#remove(),
      () => this.#addAgain(),
      () => this.#clone(),
      () => this.#forgeContainer(),
      () => this.#forgeServer(),
      () => this.#forgeGarbage(),
      () => this.#tidy(),
      () => this.#heal(),
    ];
    return await faults[this.#below(faults.length)]!();
  }

  /** What an operator does once the faults are over: strangers and clones are taken out. */
  async tidyUp(): Promise<void> {
    for (const clone of this.#clones.splice(0)) {
      const row = rowOf(clone.index, this.#keyFacts(clone.keyIndex));
      this.#strangers.set(clone.id, row);
      await this.#cluster.drop(clone);
    }
    const atMs = this.#cluster.clock.nowMs();
    const writer = this.#writer();
    for (const server of this.#addedAgain) {
      // The member that was asked may have been behind or lost it: server add is run once more.
      const known = writer?.replica.servers.get(server.id)?.row;
      if (this.removed.has(server) || !writer || !known) continue;
      if (known.removedAtMs !== null || known.wireguardPubkey !== server.key) {
        writer.operate(this.#addition(server, { writer, known }));
      }
    }
    // On each server that still sees it: a stranger may have parted the cluster.
    for (const server of this.#cluster.servers) {
      for (const [id, row] of this.#strangers) {
        if (!server.isUp || !this.#isSeen(server, id)) continue;
        // Who is known from a cache alone gets a row first, so that there is one to mark.
        const addition = server.replica.servers.has(id) ? [] : [upsertServer(row)];
        server.operate([...addition, tombstoneServer(id, atMs)]);
      }
    }
  }

  /** Whether a server counts one as a member, by its row or by what it remembers. */
  #isSeen({ replica, context }: SimServer, id: string): boolean {
    return replica.servers.get(id)?.row.removedAtMs === null ||
      context?.facts.peers.some((peer) => peer.server_id === id) === true;
  }

  /** Own addresses of all that were removed: they may be told of it. */
  get goneAddresses(): ReadonlySet<string> {
    return new Set([
      ...[...this.removed].map((server) => server.address),
      ...[...this.#strangers.values()].map((row) => row.subnet.replace(/\.0\/\d+$/, ".1")),
    ]);
  }

  /** Whether an operator still sees strangers somewhere, or misses a server that was added. */
  get isUntidy(): boolean {
    const added = [...this.#addedAgain].filter((server) => !this.removed.has(server));
    return this.#cluster.servers.some((one) =>
      one.isUp && (
        [...this.#strangers.keys()].some((id) => this.#isSeen(one, id)) ||
        added.some(({ id, key }) => {
          const row = one.replica.servers.get(id)?.row;
          return row !== undefined && (row.removedAtMs !== null || row.wireguardPubkey !== key);
        })
      )
    );
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

  #cutOneWay(): string {
    const [one, two] = [this.#pick(), this.#pick()];
    if (one !== two) this.#cluster.cutOneWay(one, two);
    return `nothing goes from ${one.id} to ${two.id}`;
  }

  /** Any share of the servers, from one to half. */
  #split(): string {
    const { servers } = this.#cluster;
    const size = 1 + this.#below(Math.floor(servers.length / 2));
    const group = new Set(Array.from({ length: size }, () => this.#pick()));
    this.#cluster.split(group);
    return `${group.size} of ${servers.length} servers are parted from the others`;
  }

  #delay(): string {
    const [one, two] = [this.#pick(), this.#pick()];
    const delayMs = this.#below(DELAY_MAX_MS);
    this.#cluster.delay(one, two, delayMs);
    return `from ${one.id} to ${two.id} it takes ${Math.round(delayMs / 1_000)} s`;
  }

  async #power(): Promise<string> {
    const server = this.#pick();
    if (server.isUp) await server.kill();
    else server.boot();
    return `${server.id} is switched ${server.isUp ? "on" : "off"}`;
  }

  async #powerOfAll(): Promise<string> {
    for (const server of this.#cluster.servers) if (server.isUp) await server.kill();
    for (const server of this.#cluster.servers) server.boot();
    return "all lose power at once, and come back";
  }

  /** systemd starts it again. */
  async #daemon(): Promise<string> {
    const server = this.#pick();
    if (!server.isUp || !server.context) return "nothing happens";
    await server.killDaemon();
    this.#cluster.clock.after(DAEMON_RESTART_MS + this.#below(DAEMON_RESTART_MS), () => {
      if (server.isUp && !server.context) server.startDaemon();
    });
    return `the daemon of ${server.id} is killed`;
  }

  #database(): string {
    const server = this.#pick();
    server.loseDatabase();
    return `${server.id} loses its database`;
  }

  #databases(): string {
    for (const server of this.#cluster.servers) server.loseDatabase();
    return "every database is lost";
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

  /** Somebody must notice: servers that move while they hear nobody are lost to each other. */
  #move(): string {
    const server = this.#pick();
    const isHeard = this.#cluster.servers.some((other) => this.#cluster.linked(server, other));
    if (server.place >= 200 || !isHeard) return "nothing happens";
    server.move();
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

  /** One server at a time: the others are needed. */
  #remove(): string {
    const server = this.#pick();
    const writer = this.#writer(server);
    if (this.removed.size > 0 || !writer?.replica.servers.has(server.id)) return "nothing happens";
    this.removed.add(server);
    writer.operate([tombstoneServer(server.id, this.#cluster.clock.nowMs())]);
    return `${server.id} is removed by the operator`;
  }

  /** Its block is the same as before; its key may be another. */
  async #addAgain(): Promise<string> {
    const [server] = this.removed;
    const writer = this.#writer(server);
    const known = server && writer?.replica.servers.get(server.id)?.row;
    if (!server || !writer || !known || known.removedAtMs === null) return "nothing happens";
    const isNew = this.#below(2) === 0;
    if (server.isUp) await server.kill();
    server.reinstall(isNew ? NEW_KEYS_FROM + this.#made : server.keyIndex);
    writer.operate(this.#addition(server, { writer, known }));
    const members = this.#cluster.servers.filter((other) => other !== server);
    const seeds = members.slice(0, 20).map((other) => seedOf(other.index, other.keyIndex));
    server.files.set(SERVER_PATHS.peerSeed, renderPeerSeeds(seeds));
    server.files.delete(REMOVED_FILE);
    this.removed.delete(server);
    this.#addedAgain.add(server);
    server.boot();
    return `${server.id} is added again with ${isNew ? "a new" : "its old"} key`;
  }

  /** What `server add` has a member write. */
  #addition(
    server: SimServer,
    o: { readonly writer: SimServer; readonly known: ServerRow },
  ): Statement[] {
    const keys = this.#keyFacts(server.keyIndex);
    const row = { ...o.known, removedAtMs: null, doc: {}, ...keys };
    const statements = [upsertServer(row), reviveServer(server.id)];
    const { removedAtMs } = o.known;
    if (removedAtMs === null) return statements;
    const revivals = [...o.writer.replica.metadata].map(([key, { row }]) => [key, row]);
    const earlier = parseRevivals(revivals).get(server.id) ?? [];
    return [...statements, recordRevival(server.id, { removedAtMs, earlier })];
  }

  #keyFacts(keyIndex: number): Pick<ServerRow, "wireguardPubkey" | "managementIp"> {
    return { wireguardPubkey: keyOf(keyIndex), managementIp: identityOf(keyIndex) };
  }

  /** A machine from another's image: a server of its own with the other's key. */
  #clone(): string {
    const server = this.#pick();
    if (this.#clones.length > 0) return "nothing happens";
    const clone = this.#cluster.add(CLONES_FROM + this.#made, server.keyIndex);
    const seeds = this.#cluster.servers.filter((other) => other !== clone).slice(0, 20);
    const text = renderPeerSeeds(seeds.map((other) => seedOf(other.index, other.keyIndex)));
    clone.files.set(SERVER_PATHS.peerSeed, text);
    this.#clones.push(clone);
    clone.boot();
    return `${clone.id} is a clone of ${server.id}`;
  }

  /** A container that is not there, as if it were of a server: the owner takes it away. */
  #forgeContainer(): string {
    const [victim, writer] = [this.#pick(), this.#writer()];
    const { id, labels } = containerOf(STRANGERS_FROM, this.#made);
    const cells = [
      ...[id, labels!.project, labels!.service, victim.id, victim.id, "casa-web", "666"],
      ...["8.8.8.8", "[]", 9e12, "healthy", null],
    ];
    writer?.forge("containers", cells);
    this.#cluster.own(id, victim.id);
    return `a stranger writes a container of ${victim.id}`;
  }

  /** A server that claims what another has. */
  #forgeServer(): string {
    const [victim, writer] = [this.#pick(), this.#writer()];
    const index = STRANGERS_FROM + this.#made;
    const id = `evil${this.#made}`;
    const row: Omit<ServerRow, "removedAtMs"> = {
      id,
      hostname: "evil",
      subnet: this.#below(2) === 0 ? blockOf(victim.index) : "10.128.0.0/10",
      wireguardIp: addressOf(victim.index),
      endpoints: ["198.51.100.66:31820"],
      lastSeenMs: 1,
      doc: {},
      ...this.#keyFacts(this.#below(2) === 0 ? victim.keyIndex : index),
    };
    this.#strangers.set(id, row);
    writer?.forge("servers", [...serverCells(row), null]);
    return `a stranger writes a server with what ${victim.id} has`;
  }

  /** Cells that are something else than they should be. */
  #forgeGarbage(): string {
    const [victim, writer] = [this.#pick(), this.#writer()];
    const known = writer?.replica.servers.get(victim.id)?.row;
    if (!known) return "nothing happens";
    const garbage: SqlValue[] = [
      ...["", "x".repeat(100_000), "; rm -rf /", "-flag", "../../etc", "\n", "[]", null],
      ...[NaN, -1, 1e300, '["203.0.113.1:1\nx"]', "10.0.0.0/0", "::", "0.0.0.0/33"],
    ];
    const cells: SqlValue[] = [...serverCells(known), null];
    // Its name stays; any of the others may be wrong.
    const at = 1 + this.#below(cells.length - 1);
    if (at !== 7 && at !== 8 && at !== 1) cells[at] = garbage[this.#below(garbage.length)]!;
    else cells[at] = "\u0000;$(reboot)";
    writer?.forge("servers", cells);
    return `a stranger garbles the row of ${victim.id}`;
  }

  async #tidy(): Promise<string> {
    await this.tidyUp();
    return "the operator takes out what strangers left";
  }

  #heal(): string {
    this.#cluster.heal();
    return "all ways are open again";
  }
}
