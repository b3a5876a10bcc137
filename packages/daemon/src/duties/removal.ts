/** Duties about removed servers: remembering them, telling them, and being one. */
import { FAREWELL_PORT, MESH_INTERFACE, parseMeshSecret, SERVER_PATHS } from "@jiji/core/cluster";
import { type ServerRow, tombstoneServer } from "@jiji/core/corrosion";
import { parseCidr, serverAddress } from "@jiji/core/net";
import { isOk, messageOf } from "@jiji/core/runtime";
import { ownRow } from "../state/corrosion_client.ts";
import {
  COMMAND_TIMEOUT_MS,
  type DaemonContext,
  mustRun,
  SYSTEM_KEYS,
  tryRun,
} from "../daemon_context.ts";
import {
  areInPlace,
  argvDropRule,
  argvNarrowPeer,
  believesFarewell,
  decodeFarewell,
  encodeFarewell,
  type Farewell,
  FAREWELL_KEY_FILE,
  parseDropRules,
  planFarewells,
  presentFarewells,
} from "../farewell.ts";
import {
  doubtful,
  parseRevivals,
  planMemory,
  REMOVED_FILE,
  renderRemovedServers,
  RESTORE_AFTER_MS,
  SELECT_REVIVALS,
  withRemembered,
} from "../state/removed_servers.ts";
import { judgePartition } from "../state/split_brain.ts";
import type { WireguardState } from "../mesh/wg_show.ts";
import type { BindDatagram, DatagramSocket } from "./liveness.ts";
import { observeWireguard } from "./topology.ts";

/** Remembers removed servers, and writes their tombstones again when the state lost them. */
export class MemoryDuty {
  readonly #context: DaemonContext;
  #text: string | undefined;
  #wholeSinceMs: number | undefined;

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /** One comparison of memory and state. */
  async run(): Promise<void> {
    const { view, facts, config, api, clock, files, logger } = this.#context;
    if (!view.filled.servers) return;
    const nowMs = clock.monotonicMs();
    this.#wholeSinceMs = this.#isCutOff() ? undefined : this.#wholeSinceMs ?? nowMs;
    const settled = this.#wholeSinceMs !== undefined && !facts.standsDown &&
      nowMs - this.#wholeSinceMs >= RESTORE_AFTER_MS;
    const input = { self: config.server_id, removed: facts.removed, rows: view.servers };
    const revived = doubtful(input).length > 0
      ? parseRevivals(await api.query(SELECT_REVIVALS))
      : new Map<string, number[]>();
    const plan = planMemory({ ...input, revived, settled });
    if (plan.writes.length > 0) {
      await api.execute(plan.writes);
      logger.warn("the state had lost removals: written again", {
        servers: doubtful(input),
      });
    }
    const text = renderRemovedServers(plan.removed);
    this.#text ??= await files.read(REMOVED_FILE) ?? renderRemovedServers([]);
    // The same list stays the same object: others need not look at it again.
    if (text === this.#text && facts.removed.length === plan.removed.length) return;
    facts.removed = plan.removed;
    await files.replace(REMOVED_FILE, text, { mode: 0o600 });
    this.#text = text;
  }

  #isCutOff(): boolean {
    const { facts, config } = this.#context;
    const members = facts.peers.map((peer) => peer.server_id);
    return judgePartition({ members, self: config.server_id, silent: facts.silent }).partitioned;
  }
}

/** What is not as it should be is mended after this long, ever more rarely, milliseconds. */
const MEND_AFTER_MS = 5_000;
/** The longest pause between two tries, milliseconds. */
const MEND_PAUSE_MAX_MS = 300_000;

/**
 * Tells removed servers that they were removed, and listens whether this one was. While everything
 * is in place, as other duties see it in passing, a round starts no process.
 */
export class FarewellDuty {
  readonly #context: DaemonContext;
  readonly #bind: BindDatagram;
  #socket: DatagramSocket | undefined;
  /** What was arranged last, as text; undefined before the first time. */
  #arranged: string | undefined;
  #kept: readonly Farewell[] = [];
  #mend = { atMs: 0, pauseMs: MEND_AFTER_MS };

  constructor(context: DaemonContext, bind: BindDatagram) {
    this.#context = context;
    this.#bind = bind;
  }

  /** One round. */
  async run(signal: AbortSignal): Promise<void> {
    const { facts, view, config, clock } = this.#context;
    const socket = this.#open();
    if (facts.standsDown || !view.filled.servers) return;
    const farewells = planFarewells(withRemembered(view.servers.values(), facts.removed), {
      nowMs: clock.nowMs(),
      clusterCidr: config.cluster_cidr,
      members: [...facts.peers, { public_key: config.wireguard_public_key, block: config.block }],
    });
    if (this.#isDue(farewells)) await this.#arrange(farewells, signal);
    if (!facts.wireguard) return;
    for (const farewell of presentFarewells(this.#kept, facts.wireguard, clock.nowMs())) {
      const to = { hostname: farewell.address, port: FAREWELL_PORT };
      await socket?.send(encodeFarewell(farewell), to).catch(() => undefined);
    }
  }

  /** Other farewells than before are arranged at once, what others broke in growing pauses. */
  #isDue(farewells: readonly Farewell[]): boolean {
    const { facts, clock } = this.#context;
    const nowMs = clock.monotonicMs();
    const isNew = JSON.stringify(farewells) !== this.#arranged;
    if (isNew || areInPlace(farewells, facts)) {
      this.#mend = { atMs: nowMs + MEND_AFTER_MS, pauseMs: MEND_AFTER_MS };
      return isNew;
    }
    if (nowMs < this.#mend.atMs) return false;
    const pauseMs = Math.min(this.#mend.pauseMs * 2, MEND_PAUSE_MAX_MS);
    this.#mend = { atMs: nowMs + pauseMs, pauseMs };
    return true;
  }

  async #arrange(farewells: readonly Farewell[], signal: AbortSignal): Promise<void> {
    const { facts } = this.#context;
    const wireguard = await observeWireguard(this.#context, signal);
    facts.wireguard = wireguard;
    if (!wireguard) return;
    // Should this fail half way, it is begun anew in the next round.
    this.#arranged = undefined;
    this.#kept = await this.#keepOut(farewells, signal);
    facts.told = new Set(this.#kept.map((one) => one.publicKey));
    await this.#narrow(this.#kept, wireguard, signal);
    this.#arranged = JSON.stringify(farewells);
  }

  /** Closes the socket. */
  close(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }

  /** Rules that drop all from removed servers; gives those that have theirs. */
  async #keepOut(farewells: readonly Farewell[], signal: AbortSignal): Promise<Farewell[]> {
    const list = ["iptables", "-w", "5", "-t", "raw", "-S", "PREROUTING"] as const;
    const rules = new Set(parseDropRules(await mustRun(this.#context, list, signal)));
    const kept: Farewell[] = [];
    for (const farewell of farewells) {
      const { address } = farewell;
      const isThere = rules.has(address) ||
        isOk(await tryRun(this.#context, argvDropRule("-I", address), signal));
      if (isThere) kept.push(farewell);
    }
    const wanted = new Set(kept.map((one) => one.address));
    for (const address of rules) {
      if (wanted.has(address)) continue;
      await tryRun(this.#context, argvDropRule("-D", address), signal);
      const route = ["ip", "route", "del", `${address}/32`, "dev", MESH_INTERFACE] as const;
      await tryRun(this.#context, route, signal);
    }
    return kept;
  }

  /** Their keys lead to one address each; keys of earlier farewells go. */
  async #narrow(
    kept: readonly Farewell[],
    wireguard: WireguardState,
    signal: AbortSignal,
  ): Promise<void> {
    const { facts } = this.#context;
    const allowed = new Map(
      wireguard.peers.map((peer) => [peer.publicKey, peer.allowedIps.join()]),
    );
    for (const farewell of kept) {
      if (allowed.get(farewell.publicKey) === `${farewell.address}/32`) continue;
      await this.#setPeer(farewell, signal);
      this.#context.logger.info("a removed server will be told when it comes", {
        server: farewell.serverId,
      });
    }
    const keys = new Set([
      ...kept.map((one) => one.publicKey),
      ...facts.peers.map((peer) => peer.public_key),
    ]);
    for (const [key, prefixes] of allowed) {
      // A single IPv4 address is what farewells leave; members have a block and an identity.
      if (keys.has(key) || !/^[0-9.]+\/32$/.test(prefixes)) continue;
      await tryRun(this.#context, ["wg", "set", MESH_INTERFACE, "peer", key, "remove"], signal);
    }
  }

  async #setPeer(farewell: Farewell, signal: AbortSignal): Promise<void> {
    const { files, config, facts } = this.#context;
    const secret = farewell.psk !== undefined && farewell.psk === facts.doc?.psk
      ? parseMeshSecret(await files.read(SERVER_PATHS.meshSecret) ?? "")
      : undefined;
    const keys = this.#context.keys ?? SYSTEM_KEYS;
    const key = secret && await keys.pairKey(secret, config.server_id, farewell.serverId);
    if (key) await files.replace(FAREWELL_KEY_FILE, `${key.reveal()}\n`, { mode: 0o600 });
    try {
      await mustRun(this.#context, argvNarrowPeer(farewell, { hasKey: key !== undefined }), signal);
      const route = ["ip", "route", "replace", `${farewell.address}/32`] as const;
      await mustRun(this.#context, [...route, "dev", MESH_INTERFACE], signal);
    } finally {
      if (key) await files.replace(FAREWELL_KEY_FILE, "", { mode: 0o600 });
    }
  }

  #open(): DatagramSocket | undefined {
    const { config, logger } = this.#context;
    const block = parseCidr(config.block);
    if (this.#socket || !block) return this.#socket;
    try {
      const socket = this.#bind({ hostname: serverAddress(block), port: FAREWELL_PORT });
      this.#socket = socket;
      this.#listen(socket).catch((error) => {
        if (this.#socket !== socket) return;
        logger.warn("farewell socket failed", { error: messageOf(error) });
        this.close();
      });
    } catch (error) {
      logger.debug("no farewell socket yet", { error: messageOf(error) });
    }
    return this.#socket;
  }

  async #listen(socket: DatagramSocket): Promise<void> {
    while (true) {
      const { bytes, hostname } = await socket.receive();
      await this.#take(bytes, hostname);
    }
  }

  /** Takes a word; one that is believed makes this server stand down. */
  async #take(bytes: Uint8Array, from: string): Promise<void> {
    const { facts, config, api, clock, logger, wake } = this.#context;
    const word = decodeFarewell(bytes);
    const { peers, silent } = facts;
    if (!word || facts.standsDown) return;
    if (!believesFarewell(word, { self: config.server_id, from, peers, silent })) return;
    logger.warn("a member says that this server was removed, and none answers it", { from });
    const row = ownRow(config, { hostname: "", nowMs: clock.nowMs() });
    const removed: ServerRow = { ...row, removedAtMs: word.removed_at_ms };
    facts.removed = [...facts.removed.filter((one) => one.id !== row.id), removed];
    await api.execute([tombstoneServer(config.server_id, word.removed_at_ms)])
      .catch((error) => logger.warn("tombstone not written", { error: messageOf(error) }));
    ["memory", "heartbeat"].forEach(wake);
  }
}

/** A removed server's containers run on for this long: the others stop answering with them first. */
const STAND_DOWN_GRACE_MS = 60_000;
/** A container is asked to end for this long, seconds. */
const STOP_SECONDS = 10;

/** Stops the containers of a server that was removed; once, so that an operator may start them. */
export class StandDownDuty {
  readonly #context: DaemonContext;
  #sinceMs: number | undefined;
  #done = false;

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  /** One look at whether it is time. */
  async run(signal: AbortSignal): Promise<void> {
    const { facts, config, process, clock, logger } = this.#context;
    if (!facts.standsDown) {
      this.#sinceMs = undefined;
      return;
    }
    this.#sinceMs ??= clock.monotonicMs();
    if (this.#done || clock.monotonicMs() - this.#sinceMs < STAND_DOWN_GRACE_MS) return;
    const running = facts.containers?.filter((one) => one.running);
    if (!running) return;
    for (const { id, name } of running) {
      const result = await process.run(
        [config.engine, "stop", "--time", String(STOP_SECONDS), id],
        { timeoutMs: COMMAND_TIMEOUT_MS + STOP_SECONDS * 1_000, signal },
      );
      logger.info("standing down", { stopped: name, exitCode: result.exitCode });
    }
    this.#done = true;
  }
}
