/** Duty: finds out how large a packet may be on the way to each server, again and again. */
import {
  MESH_INTERFACE,
  MESH_MTU_MAX,
  MESH_MTU_MIN,
  type PeerSeed,
  PROBE_PORT,
} from "@jiji/core/cluster";
import { normalizeIp, parseEndpoint } from "@jiji/core/net";
import { isOk, messageOf } from "@jiji/core/runtime";
import { type DaemonContext, mustRun, tryRun } from "../daemon_context.ts";
import {
  argvRouteGet,
  decodeSize,
  encodeSize,
  meshMtuOf,
  type OuterRoute,
  parseRouteGet,
  type SizeMessage,
  sizesAbove,
} from "../mesh/path_mtu.ts";
import type { BindDatagram, DatagramSocket } from "./liveness.ts";

/** Ways that are looked at in one run; the others have their turn later. */
export const WAYS_PER_RUN = 8;
/** A probe may take this long there and back, milliseconds; then it is sent once more. */
const ANSWER_MS = 500;
/** Lost this often, a size is taken to be too large. */
const TRIES = 3;
/** A larger size is tried after this long, milliseconds; it doubles as long as none gets through. */
const GROW_FIRST_MS = 30_000;
const GROW_MAX_MS: number = 10 * 60_000;
/** What the kernel knows of the way to an endpoint is asked again after this long, milliseconds. */
const ROUTE_EVERY_MS = 60_000;

interface Way {
  endpoint: string;
  route: OuterRoute | undefined;
  routeAtMs: number;
  /** Largest size that got through; undefined before the first. */
  known: number | undefined;
  growAtMs: number;
  growEveryMs: number;
}

interface Question {
  readonly address: string;
  best: number;
  readonly enough: number;
  readonly done: PromiseWithResolvers<void>;
}

/**
 * Sends probes of several sizes through the mesh. They go to the servers' identities, whose routes
 * have the interface's MTU; blocks get a route with the size that got through. Outer packets that
 * are too large are lost silently on ways that swallow ICMP: only an answer counts.
 */
export class PathMtuDuty {
  readonly #context: DaemonContext;
  readonly #bind: BindDatagram;
  readonly #ways = new Map<string, Way>();
  readonly #questions = new Map<number, Question>();
  #socket: { readonly address: string; readonly socket: DatagramSocket } | undefined;
  #seq = 0;
  #turn = 0;

  constructor(context: DaemonContext, bind: BindDatagram) {
    this.#context = context;
    this.#bind = bind;
    context.facts.mtu = new Map();
  }

  /** Looks at some of the ways. */
  async run(signal: AbortSignal): Promise<void> {
    const { facts } = this.#context;
    if (facts.standsDown || !this.#open()) return;
    const names = new Set(facts.peers.map((peer) => peer.server_id));
    for (const name of this.#ways.keys()) if (!names.has(name)) this.#ways.delete(name);
    const chosen = this.#choose();
    for (const peer of chosen) await this.#route(peer, signal);
    await this.#setInterface(signal);
    await Promise.all(chosen.map((peer) => this.#judge(peer, signal)));
    this.#tell();
  }

  /** Closes the socket. */
  close(): void {
    this.#socket?.socket.close();
    this.#socket = undefined;
  }

  /** Peers that answer and have an endpoint, in turns. */
  #choose(): PeerSeed[] {
    const { peers, silent, endpointsInUse } = this.#context.facts;
    const open = peers.filter((peer) =>
      !silent.has(peer.server_id) && endpointsInUse?.has(peer.server_id)
    );
    const first = this.#turn;
    const count = Math.min(WAYS_PER_RUN, open.length);
    this.#turn = open.length === 0 ? 0 : (first + count) % open.length;
    return Array.from({ length: count }, (_, index) => open[(first + index) % open.length]!);
  }

  async #route(peer: PeerSeed, signal: AbortSignal): Promise<void> {
    const { facts, clock } = this.#context;
    const nowMs = clock.monotonicMs();
    const endpoint = facts.endpointsInUse?.get(peer.server_id) ?? "";
    const way = this.#ways.get(peer.server_id) ??
      { ...NEW_WAY, known: facts.mtu?.get(peer.server_id) };
    this.#ways.set(peer.server_id, way);
    if (way.endpoint !== endpoint) {
      Object.assign(way, { endpoint, growAtMs: nowMs, growEveryMs: GROW_FIRST_MS });
    } else if (nowMs - way.routeAtMs < ROUTE_EVERY_MS) return;
    const host = parseEndpoint(endpoint)?.host ?? "";
    const result = await tryRun(this.#context, argvRouteGet(host), signal);
    way.route = isOk(result) ? parseRouteGet(result.stdout) : undefined;
    way.routeAtMs = nowMs;
  }

  /** What the first hop allows; undefined while it is not known. */
  #limit(way: Way): number | undefined {
    const { interfaces } = this.#context.facts;
    const device = interfaces?.find((one) => one.name === way.route?.device);
    if (!device || !way.route) return undefined;
    return meshMtuOf(Math.min(device.mtu, way.route.mtu ?? device.mtu), way.endpoint);
  }

  /** The interface takes what the widest way takes. */
  async #setInterface(signal: AbortSignal): Promise<void> {
    const { facts, logger } = this.#context;
    const limits = [...this.#ways.values()].flatMap((way) => this.#limit(way) ?? []);
    const there = facts.interfaces?.find((one) => one.name === MESH_INTERFACE)?.mtu;
    const mtu = Math.max(...limits, MESH_MTU_MIN);
    if (limits.length === 0 || there === undefined || mtu === there) return;
    await mustRun(
      this.#context,
      ["ip", "link", "set", "dev", MESH_INTERFACE, "mtu", `${mtu}`],
      signal,
    );
    facts.interfaces =
      facts.interfaces?.map((one) => one.name === MESH_INTERFACE ? { ...one, mtu } : one) ?? [];
    logger.info("mesh mtu", { mtu, before: there });
  }

  async #judge(peer: PeerSeed, signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#context;
    const way = this.#ways.get(peer.server_id);
    const limit = way && this.#limit(way);
    if (!way || limit === undefined) return;
    const before = way.known;
    const known = Math.min(before ?? MESH_MTU_MIN, limit);
    const nowMs = clock.monotonicMs();
    const grows = before === undefined || (known < limit && nowMs >= way.growAtMs);
    const found = grows
      ? await this.#ask(peer, [known, ...sizesAbove(known, limit)], signal)
      : await this.#ask(peer, [known], signal);
    // Too large all of a sudden, or nobody there: the least size tells.
    way.known = found ??
      await this.#ask(peer, [MESH_MTU_MIN, ...sizesAbove(MESH_MTU_MIN, limit)], signal) ??
      before;
    if (way.known === undefined) return;
    const grew = grows && way.known > known;
    if (grows || way.known < known) {
      way.growEveryMs = grew ? GROW_FIRST_MS : Math.min(way.growEveryMs * 2, GROW_MAX_MS);
      way.growAtMs = nowMs + way.growEveryMs;
    }
    if (way.known === before) return;
    logger.info("path mtu", { server: peer.server_id, mtu: way.known, before, limit });
  }

  /** The largest of these sizes that gets an answer; undefined when none does. */
  async #ask(
    peer: PeerSeed,
    sizes: readonly number[],
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const { clock } = this.#context;
    const address = normalizeIp(peer.management_ip) ?? "";
    const enough = Math.max(...sizes);
    const done = Promise.withResolvers<void>();
    const seq = this.#seq++;
    const question: Question = { address, best: 0, enough, done };
    this.#questions.set(seq, question);
    try {
      for (let time = 0; time < TRIES && question.best < enough; time++) {
        signal.throwIfAborted();
        for (const bytes of sizes) {
          if (bytes > question.best) this.#send(address, { kind: "size", bytes, seq });
        }
        const over = new AbortController();
        const both = AbortSignal.any([signal, over.signal]);
        const late = clock.sleep(ANSWER_MS, { signal: both }).catch(() => undefined);
        await Promise.race([late, done.promise]);
        over.abort();
      }
    } finally {
      this.#questions.delete(seq);
    }
    return question.best === 0 ? undefined : question.best;
  }

  #send(hostname: string, message: Omit<SizeMessage, "from">): void {
    const bytes = encodeSize({ ...message, from: this.#context.config.server_id });
    // A send that fails is a probe without an answer.
    this.#socket?.socket.send(bytes, { hostname, port: PROBE_PORT }).catch(() => undefined);
  }

  #open(): boolean {
    const { config, logger } = this.#context;
    if (this.#socket?.address === config.management_ip) return true;
    this.close();
    try {
      const socket = this.#bind({ hostname: config.management_ip, port: PROBE_PORT });
      const opened = { address: config.management_ip, socket };
      this.#socket = opened;
      this.#receive(socket).catch((error) => {
        if (this.#socket !== opened) return;
        logger.warn("size probe socket failed", { error: messageOf(error) });
        this.close();
      });
      return true;
    } catch (error) {
      logger.debug("no size probe socket yet", { error: messageOf(error) });
      return false;
    }
  }

  async #receive(socket: DatagramSocket): Promise<void> {
    while (true) {
      const { bytes, hostname } = await socket.receive();
      const message = decodeSize(bytes);
      const address = normalizeIp(hostname);
      const isPeer = message &&
        this.#context.facts.peers.some((peer) =>
          peer.server_id === message.from && normalizeIp(peer.management_ip) === address
        );
      if (!message || !isPeer || address === undefined) continue;
      if (message.kind === "size") this.#send(address, { ...message, kind: "sized" });
      else this.#answered(message, address);
    }
  }

  #answered(message: SizeMessage, address: string): void {
    const question = this.#questions.get(message.seq);
    if (question?.address !== address || message.bytes > question.enough) return;
    question.best = Math.max(question.best, message.bytes);
    if (question.best === question.enough) question.done.resolve();
  }

  #tell(): void {
    const { facts, wake } = this.#context;
    const mtu = new Map(
      [...this.#ways].flatMap(([name, { known }]): [string, number][] =>
        known === undefined ? [] : [[name, Math.min(known, MESH_MTU_MAX)]]
      ),
    );
    const text = (map: ReadonlyMap<string, number> | undefined) => [...map ?? []].sort().join();
    const changed = text(mtu) !== text(facts.mtu);
    facts.mtu = mtu;
    if (changed) wake("topology");
  }
}

const NEW_WAY: Omit<Way, "known"> = {
  endpoint: "",
  route: undefined,
  routeAtMs: -Infinity,
  growAtMs: -Infinity,
  growEveryMs: GROW_FIRST_MS,
};
