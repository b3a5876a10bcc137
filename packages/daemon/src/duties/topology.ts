/** Duties 1 and 2: peers, routes, endpoints. Observes, plans with the pure modules, applies. */
import {
  MESH_INTERFACE,
  parsePeerSeeds,
  type PeerSeed,
  renderPeerSeeds,
  SERVER_PATHS,
  SERVER_UNITS,
} from "@jiji/core/cluster";
import { isOk } from "@jiji/core/runtime";
import { type DaemonContext, mustRun, renderFailure, tryRun } from "../daemon_context.ts";
import { withRemembered } from "../removed_servers.ts";
import { argvRotation, planRotations, type TrialStarts } from "../peer_monitor.ts";
import {
  argvMeshStep,
  type MeshObserved,
  planMesh,
  planTopology,
  type Topology,
} from "../peer_reconciler.ts";
import { parseRoutes, type Routes } from "../mesh/path_mtu.ts";
import { parseWgDump, type WireguardState } from "../wg_show.ts";

/** File of the daemon's own memory of its peers. */
export const PEER_CACHE_FILE: string = `${SERVER_PATHS.daemonState}/peers.json`;
/** The mesh interface is brought up again at most this often, milliseconds. */
const MESH_RESTART_EVERY_MS = 15_000;

/** What WireGuard has now; undefined when the interface is missing. */
export async function observeWireguard(
  context: Pick<DaemonContext, "process">,
  signal?: AbortSignal,
): Promise<WireguardState | undefined> {
  const argv = ["wg", "show", MESH_INTERFACE, "dump"] as const;
  const result = await tryRun(context, argv, signal);
  if (isOk(result)) return parseWgDump(result.stdout);
  if (/No such device|Unable to access interface/i.test(result.stderr)) return undefined;
  throw new Error(renderFailure(argv, result));
}

/** Keeps the mesh as rows, seeds and cache say. */
export class TopologyDuty {
  readonly #context: DaemonContext;
  #restartedAtMs = -Infinity;
  #cacheText: string | undefined;
  #reported = "";

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /** One look. A removed server leaves its mesh as it is. */
  async run(signal: AbortSignal): Promise<number | void> {
    const context = this.#context;
    if (context.facts.standsDown) return;
    const wireguard = await observeWireguard(context, signal);
    const known = await this.#membership();
    const holders = new Set(wireguard?.peers.map((peer) => peer.publicKey));
    const topology = planTopology(context.config, known, holders);
    context.facts.peers = topology.peers;
    this.#report(topology);
    if (!wireguard) return await this.#restartMesh(signal);
    const observed: MeshObserved = {
      wireguard,
      routes: await observeRoutes(context, signal),
      mtu: context.facts.mtu,
    };
    for (const step of planMesh(context.config, topology, observed)) {
      // Another duty leaves the key of a removed server one address, to tell it so.
      if (step.kind === "removePeer" && context.facts.told.has(step.publicKey)) continue;
      const argv = argvMeshStep(step, MESH_INTERFACE);
      const result = await tryRun(context, argv, signal);
      if (isOk(result)) context.logger.info("mesh changed", { ...step });
      else context.logger.warn("mesh not changed", { ...step, error: renderFailure(argv, result) });
    }
    await this.#remember(topology.peers);
  }

  async #membership() {
    const { files, view, facts } = this.#context;
    this.#cacheText ??= await files.read(PEER_CACHE_FILE) ?? "";
    return {
      rows: withRemembered(view.servers.values(), facts.removed),
      seeds: parsePeerSeeds(await files.read(SERVER_PATHS.peerSeed) ?? ""),
      cache: parsePeerSeeds(this.#cacheText),
    };
  }

  async #remember(peers: readonly PeerSeed[]): Promise<void> {
    const text = renderPeerSeeds(peers);
    if (text === this.#cacheText) return;
    await this.#context.files.replace(PEER_CACHE_FILE, text, { mode: 0o600 });
    this.#cacheText = text;
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
    const text = JSON.stringify(topology.conflicts);
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
  const names = new Map(peers.map((peer) => [peer.public_key, peer.server_id]));
  return new Map(wireguard.peers.flatMap(({ publicKey, endpoint }): [string, string][] => {
    const name = names.get(publicKey);
    return name === undefined || endpoint === undefined ? [] : [[name, endpoint]];
  }));
}

/** Tries silent peers at their other endpoints. */
export class EndpointDuty {
  readonly #context: DaemonContext;
  #trials: TrialStarts = new Map();

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /** One look at every peer's last handshake. */
  async run(signal: AbortSignal): Promise<void> {
    const { facts, config, clock, logger } = this.#context;
    const wireguard = await observeWireguard(this.#context, signal);
    if (!wireguard || facts.standsDown) return;
    facts.endpointsInUse = endpointsInUse(facts.peers, wireguard);
    const plan = planRotations(facts.peers, wireguard, {
      nowMs: clock.nowMs(),
      trials: this.#trials,
      silent: facts.silent,
      ownEndpoints: facts.endpoints ?? config.endpoints,
    });
    this.#trials = plan.trials;
    for (const rotation of plan.rotations) {
      await mustRun(this.#context, argvRotation(rotation, MESH_INTERFACE), signal);
      logger.info("trying another endpoint", { ...rotation });
    }
  }
}
