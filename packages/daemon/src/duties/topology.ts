/** Duties 1 and 2: peers, routes, endpoints. Observes, plans with the pure modules, applies. */
import {
  MESH_INTERFACE,
  parsePeerSeeds,
  type PeerSeed,
  renderPeerSeeds,
  SERVER_PATHS,
  SERVER_UNITS,
} from "@jiji/core/cluster";
import type { ServerRow } from "@jiji/core/corrosion";
import { isOk } from "@jiji/core/runtime";
import {
  COMMAND_TIMEOUT_MS,
  type DaemonContext,
  mustRun,
  renderFailure,
  tellDoc,
  tryRun,
} from "../daemon_context.ts";
import { isBack } from "../farewell.ts";
import { withRemembered } from "../state/removed_servers.ts";
import { argvEndpoints, planRotations, type TrialStarts } from "../mesh/peer_monitor.ts";
import {
  argvMeshStep,
  type MeshObserved,
  type MeshStep,
  PAIR_KEY_FILE,
  planMesh,
} from "../mesh/mesh_plan.ts";
import {
  isChangeDue,
  type Moved,
  movedPeers,
  planFollow,
  withIdentities,
} from "../mesh/key_change.ts";
import { deadForMs, keysOf, type Sessions, watchSessions } from "../mesh/sessions.ts";
import { type Membership, planTopology, type Topology } from "../mesh/peer_reconciler.ts";
import { MeshKeys } from "./mesh_keys.ts";
import { parseRoutes, type Routes } from "../mesh/path_mtu.ts";
import { parseWgDump, type WireguardState } from "../mesh/wg_show.ts";

/** File of the daemon's own memory of its peers. */
export const PEER_CACHE_FILE: string = `${SERVER_PATHS.daemonState}/peers.json`;
/** The mesh interface is brought up again at most this often, milliseconds. */
const MESH_RESTART_EVERY_MS = 15_000;

/** A server that changes its key is looked at this often, milliseconds: its traffic waits for it. */
const CHANGE_LOOK_MS = 200;
/** It is expected to change within this time; later, only when all have agreed, milliseconds. */
const CHANGE_WATCH_MS = 60_000;
/** A server that has changed its key is back in the state within this time, milliseconds. */
const ROW_LATE_MS = 40_000;
/** Next keys that one server tells to accept; see `ServerDoc`. */
const ACCEPTS_MAX = 16;

/** Two looks at a mesh of this many peers are so far apart at least, milliseconds a peer. */
const GAP_PER_PEER_MS = 10;

/** What WireGuard has now; undefined when the interface is missing. */
export async function observeWireguard(
  context: Pick<DaemonContext, "process" | "mesh">,
  signal?: AbortSignal,
): Promise<WireguardState | undefined> {
  if (context.mesh) return await context.mesh.wireguard();
  const argv = ["wg", "show", MESH_INTERFACE, "dump"] as const;
  const result = await tryRun(context, argv, signal);
  if (isOk(result)) return parseWgDump(result.stdout);
  if (/No such device|Unable to access interface/i.test(result.stderr)) return undefined;
  throw new Error(renderFailure(argv, result));
}

/** A file of peers, which is parsed again only when it says something else. */
class SeedFile {
  #text = "";
  #peers: readonly PeerSeed[] = [];

  peersIn(text: string): readonly PeerSeed[] {
    if (text !== this.#text) this.#peers = parsePeerSeeds(text);
    this.#text = text;
    return this.#peers;
  }

  /** Peers of the text that was read or written last. */
  get peers(): readonly PeerSeed[] {
    return this.#peers;
  }

  /** This daemon has written the file itself. */
  wrote(text: string, peers: readonly PeerSeed[]): void {
    this.#text = text;
    this.#peers = peers;
  }
}

/** Keeps the mesh as rows, seeds and cache say. */
export class TopologyDuty {
  readonly #context: DaemonContext;
  #restartedAtMs = -Infinity;
  #lookedAtMs = -Infinity;
  #cacheText: string | undefined;
  readonly #seeds = new SeedFile();
  readonly #cache = new SeedFile();
  #reported = "";
  /** The last plan, and what it was made from. */
  #last:
    | {
      readonly basis: readonly unknown[];
      readonly holders: ReadonlySet<string>;
      readonly topology: Topology;
    }
    | undefined;
  #sessions: Sessions = new Map();
  #next = { keys: "", sinceMs: 0 };
  #moved = { names: "", sinceMs: 0 };
  readonly #keys: MeshKeys;

  constructor(context: DaemonContext) {
    this.#context = context;
    this.#keys = new MeshKeys(context);
  }

  /** One look. A removed server leaves its mesh as it is. */
  async run(signal: AbortSignal): Promise<number | void> {
    const context = this.#context;
    if (context.facts.standsDown) return;
    // However often it is woken: what a look costs grows with the cluster, what it may cost does not.
    const gapMs = context.facts.peers.length * GAP_PER_PEER_MS -
      (context.clock.monotonicMs() - this.#lookedAtMs);
    if (gapMs > 0) return gapMs;
    this.#lookedAtMs = context.clock.monotonicMs();
    const wireguard = await observeWireguard(context, signal);
    const known = await this.#membership();
    const holders = new Set(wireguard?.peers.map((peer) => peer.publicKey));
    const topology = this.#plan(known, holders);
    context.facts.peers = topology.peers;
    context.facts.conflicts = topology.conflicts;
    context.facts.isMeshKnown = true;
    this.#report(topology);
    if (!wireguard) return await this.#restartMesh(signal);
    this.#sessions = watchSessions(this.#sessions, wireguard, context.clock.monotonicMs());
    const observed: MeshObserved = {
      wireguard,
      routes: await observeRoutes(context, signal),
      mtu: context.facts.mtu,
      psk: await this.#keys.psk(topology.peers, this.#sessions),
      identities: await this.#keys.identities(topology.peers),
    };
    const self = {
      ...context.config,
      endpoints: context.facts.endpoints ?? context.config.endpoints,
    };
    const keys = new Set(holders);
    for (const step of planMesh(self, topology, observed)) {
      // Another duty leaves the key of a removed server one address, to tell it so.
      if (step.kind === "removePeer" && context.facts.told.has(step.publicKey)) continue;
      const done = await this.#apply(step, observed, signal);
      if (done && step.kind === "setPeer") keys.add(step.publicKey);
    }
    await this.#remember(topology.peers);
    const moved = movedPeers(topology.peers, wireguard, observed.identities ?? new Map());
    await this.#follow(known.rows, moved);
    this.#accept(topology.peers, keys);
    await this.#meet(moved, signal);
    return this.#pace(known.rows, topology.peers);
  }

  /** The same as before while nothing has changed that it depends on. */
  #plan(known: Membership, holders: ReadonlySet<string>): Topology {
    const { config, view, facts } = this.#context;
    const basis = [config, view.serverChanges, facts.removed, known.seeds, known.cache];
    const last = this.#last;
    const same = last !== undefined && basis.every((one, index) => one === last.basis[index]) &&
      last.holders.size === holders.size && last.holders.isSubsetOf(holders);
    if (same) return last.topology;
    const topology = planTopology(config, known, holders);
    this.#last = { basis, holders, topology };
    return topology;
  }

  async #apply(step: MeshStep, observed: MeshObserved, signal: AbortSignal): Promise<boolean> {
    const { files, logger } = this.#context;
    const pair = step.kind === "setPeer" && step.psk === "set"
      ? observed.psk?.pairKeys.get(step.serverId)
      : undefined;
    if (pair) await files.replace(PAIR_KEY_FILE, `${pair.reveal()}\n`, { mode: 0o600 });
    const argv = argvMeshStep(step, MESH_INTERFACE);
    const result = await tryRun(this.#context, argv, signal);
    if (pair) await files.replace(PAIR_KEY_FILE, "", { mode: 0o600 });
    if (isOk(result)) logger.info("mesh changed", { ...step });
    else logger.warn("mesh not changed", { ...step, error: renderFailure(argv, result) });
    return isOk(result);
  }

  /** Says which next keys this server takes for their owners': it has them, also after a reboot. */
  #accept(peers: readonly PeerSeed[], keys: ReadonlySet<string>): void {
    const { facts, wake } = this.#context;
    const accepts = peers.flatMap(({ next_key }) =>
      next_key !== undefined && keys.has(next_key) ? [next_key] : []
    ).sort().slice(0, ACCEPTS_MAX);
    if (tellDoc(facts, { accepts: accepts.length > 0 ? accepts : undefined })) wake("heartbeat");
  }

  /** Files of this server name the others' keys and identities, for a start without Corrosion. */
  async #follow(rows: readonly ServerRow[], moved: readonly Moved[]): Promise<void> {
    const { files, logger } = this.#context;
    const seeds = this.#seeds.peersIn(await files.read(SERVER_PATHS.peerSeed) ?? "");
    const plan = planFollow(seeds, rows, moved);
    if (plan.identities.size > 0) {
      const path = SERVER_PATHS.corrosionConfig;
      const text = await files.read(path);
      const followed = text && withIdentities(text, plan.identities);
      if (followed && followed !== text) {
        await files.replace(path, followed, { mode: 0o640, keepFacts: true });
        const identities = Object.fromEntries(plan.identities);
        logger.info("files follow changed keys", { identities });
      }
    }
    if (plan.seeds === undefined) return;
    await files.replace(SERVER_PATHS.peerSeed, plan.seeds, { mode: 0o644, keepFacts: true });
  }

  /**
   * A server was heard with its next key, and its row does not come: when several changed at once,
   * no Corrosion knows where another is now. Ours starts again, with the addresses that it has by now.
   */
  async #meet(moved: readonly Moved[], signal: AbortSignal): Promise<void> {
    const { clock, logger, process } = this.#context;
    const nowMs = clock.monotonicMs();
    const names = moved.map((one) => one.serverId).join();
    if (names !== this.#moved.names) this.#moved = { names, sinceMs: nowMs };
    if (names === "" || nowMs - this.#moved.sinceMs < ROW_LATE_MS) return;
    this.#moved = { names, sinceMs: nowMs };
    logger.warn("rows of servers with new keys do not come: corrosion starts anew", { names });
    const argv = ["systemctl", "restart", SERVER_UNITS.corrosion] as const;
    await process.run(argv, { timeoutMs: COMMAND_TIMEOUT_MS, signal });
  }

  /** Whoever is about to change its key is watched closely; without a session, tries alternate. */
  #pace(rows: readonly ServerRow[], peers: readonly PeerSeed[]): number | void {
    const nowMs = this.#context.clock.monotonicMs();
    const next = peers.map((peer) => peer.next_key ?? "").filter((key) => key !== "").join();
    if (next !== this.#next.keys) this.#next = { keys: next, sinceMs: nowMs };
    const isWatched = next !== "" &&
      (nowMs - this.#next.sinceMs < CHANGE_WATCH_MS || isChangeDue(rows, peers));
    if (isWatched) return CHANGE_LOOK_MS;
    const isDead = peers.some((peer) =>
      deadForMs(this.#sessions.get(peer.public_key), nowMs) !== undefined
    );
    if (next !== "" || (isDead && this.#context.facts.doc?.psk !== undefined)) return 5_000;
  }

  async #membership(): Promise<Membership> {
    const { files, view, facts } = this.#context;
    this.#cacheText ??= await files.read(PEER_CACHE_FILE) ?? "";
    return {
      rows: withRemembered(view.servers.values(), facts.removed),
      seeds: this.#seeds.peersIn(await files.read(SERVER_PATHS.peerSeed) ?? ""),
      cache: this.#cache.peersIn(this.#cacheText),
    };
  }

  async #remember(peers: readonly PeerSeed[]): Promise<void> {
    // Most looks find the very peers that were written.
    if (peers === this.#cache.peers) return;
    const text = renderPeerSeeds(peers);
    if (text === this.#cacheText) return;
    await this.#context.files.replace(PEER_CACHE_FILE, text, { mode: 0o600 });
    this.#cacheText = text;
    this.#cache.wrote(text, peers);
  }

  async #restartMesh(signal: AbortSignal): Promise<number> {
    const { clock, logger } = this.#context;
    const nowMs = clock.monotonicMs();
    if (nowMs - this.#restartedAtMs >= MESH_RESTART_EVERY_MS) {
      this.#restartedAtMs = nowMs;
      logger.warn("mesh interface is missing: starting it", { unit: SERVER_UNITS.wireguard });
      await mustRun(this.#context, ["systemctl", "restart", SERVER_UNITS.wireguard], signal);
    }
    return 1_000;
  }

  #report(topology: Topology): void {
    const text = topology.conflicts.length > 0 ? JSON.stringify(topology.conflicts) : "";
    if (text !== this.#reported && topology.conflicts.length > 0) {
      this.#context.logger.error("servers claim what others have", {
        conflicts: topology.conflicts,
      });
    }
    this.#reported = text;
  }
}

async function observeRoutes(
  context: DaemonContext,
  signal: AbortSignal,
): Promise<Routes> {
  if (context.mesh) return await context.mesh.routes();
  const [four, six] = await Promise.all(
    ["-4", "-6"].map((family) =>
      mustRun(context, ["ip", family, "route", "show", "dev", MESH_INTERFACE], signal)
    ),
  );
  return new Map([...parseRoutes(four ?? ""), ...parseRoutes(six ?? "")]);
}

/** Where WireGuard has each peer now, by server. */
function endpointsInUse(
  peers: readonly PeerSeed[],
  wireguard: WireguardState,
): Map<string, string> {
  const live = new Map(wireguard.peers.map((peer) => [peer.publicKey, peer.endpoint]));
  return new Map(peers.flatMap((peer): [string, string][] => {
    const endpoint = live.get(keysOf(peer, wireguard).active);
    return endpoint === undefined ? [] : [[peer.server_id, endpoint]];
  }));
}

/** Tries silent peers at their other endpoints. */
export class EndpointDuty {
  readonly #context: DaemonContext;
  #trials: TrialStarts = new Map();
  #sessions: Sessions = new Map();
  #answered: ReadonlyMap<string, string> = new Map();

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /** One look at every peer's last handshake. */
  async run(signal: AbortSignal): Promise<void> {
    const { facts, config, clock, logger } = this.#context;
    const wireguard = await observeWireguard(this.#context, signal);
    const before = facts.wireguard;
    facts.wireguard = wireguard;
    if (!wireguard || facts.standsDown) return;
    if (isBack(facts.told, { before, now: wireguard })) this.#context.wake("farewell");
    facts.endpointsInUse = endpointsInUse(facts.peers, wireguard);
    this.#sessions = watchSessions(this.#sessions, wireguard, clock.monotonicMs());
    const plan = planRotations(facts.peers, wireguard, {
      nowMs: clock.monotonicMs(),
      trials: this.#trials,
      sessions: this.#sessions,
      answered: this.#answered,
      silent: facts.silent,
      ownEndpoints: facts.endpoints ?? config.endpoints,
    });
    this.#trials = plan.trials;
    this.#answered = plan.answered;
    for (const rotation of plan.rotations) {
      await mustRun(this.#context, argvEndpoints(MESH_INTERFACE, [rotation]), signal);
      logger.info("trying another endpoint", { ...rotation });
    }
  }
}
