/** Duty: probes every peer each second and writes who answers. */
import { PROBE_PORT, SERVER_PATHS } from "@jiji/core/cluster";
import { parseCidr, serverAddress } from "@jiji/core/net";
import { messageOf } from "@jiji/core/runtime";
import type { DaemonContext } from "../daemon_context.ts";
import {
  LivenessTable,
  type Probe,
  PROBE_EVERY_MS,
  PROBE_WIRE,
  type ProbeMessage,
  type ProbeWire,
  SUSPECT_EVERY_MS,
} from "../liveness/liveness_prober.ts";

/** News wait this long for more before they are passed on, milliseconds. */
const PASS_ON_MS = 120;
/** News wait this long for more before everybody is judged anew, milliseconds. */
const JUDGE_AFTER_MS = 100;
/** While news keep coming they are passed on and judged this far apart at least, milliseconds. */
const NEWS_GAP_MS = 400;

/** A UDP socket as a port. */
export interface DatagramSocket {
  send(bytes: Uint8Array<ArrayBuffer>, to: { hostname: string; port: number }): Promise<void>;
  receive(): Promise<{ readonly bytes: Uint8Array; readonly hostname: string }>;
  close(): void;
}

/** Opens a socket on an address. @throws while the host does not have it. */
export type BindDatagram = (address: { hostname: string; port: number }) => DatagramSocket;

/** The real sockets. */
export const bindDatagram: BindDatagram = (address) => {
  const socket = Deno.listenDatagram({ transport: "udp", ...address });
  return {
    send: async (bytes, to) => {
      await socket.send(bytes, { transport: "udp", ...to });
    },
    receive: async () => {
      const [bytes, from] = await socket.receive();
      return { bytes, hostname: from.transport === "udp" ? from.hostname : "" };
    },
    close: () => socket.close(),
  };
};

/** A server that shuts down says so this often, this far apart, milliseconds. */
const BYES = 3;
const BYE_EVERY_MS = 100;

/** How long a knock may take, milliseconds: within it a lost packet is sent once more. */
export const KNOCK_TIMEOUT_MS = 1_500;

/** Whether the host with this address answers, whatever runs on it. Never throws. */
export type Knock = (address: string) => Promise<boolean>;

/**
 * Knocks at a TCP port on which nobody listens: that the kernel refuses the connection shows that
 * it is there. Source: RFC 9293, section 3.10.7.1.
 */
export const knockTcp: Knock = async (hostname) => {
  try {
    const signal = AbortSignal.timeout(KNOCK_TIMEOUT_MS);
    const connection = await Deno.connect({ hostname, port: PROBE_PORT, signal });
    connection.close();
    return true;
  } catch (error) {
    return error instanceof Deno.errors.ConnectionRefused;
  }
};

/** Probes and answers probes. */
export class LivenessDuty {
  readonly #context: DaemonContext;
  readonly #bind: BindDatagram;
  readonly #knock: Knock;
  readonly #onVerdict: () => void;
  readonly #table: LivenessTable;
  readonly #wire: ProbeWire;
  #socket: DatagramSocket | undefined;
  #silent = "";
  #peers: DaemonContext["facts"]["peers"] = [];
  #passing = false;
  #judging = false;
  #judgedAtMs = -Infinity;
  #passedAtMs = -Infinity;
  /** What was found of round trips and losses in the last round, as text. */
  #found = "";
  #roundAtMs = -Infinity;
  #daemonless = "";
  #isLeaving = false;
  #writing: Promise<void> = Promise.resolve();

  /**
   * @param o `knock` finds out whether a server is there whose daemon does not answer; `onVerdict` is
   * called when a report was written that silences others than the one before; `wire` is how messages
   * become bytes, another one in simulations.
   */
  constructor(
    context: DaemonContext,
    bind: BindDatagram,
    o: {
      readonly knock: Knock;
      readonly onVerdict?: () => void;
      readonly wire?: ProbeWire;
    },
  ) {
    this.#context = context;
    this.#bind = bind;
    this.#knock = o.knock;
    this.#onVerdict = o.onVerdict ?? (() => undefined);
    this.#wire = o.wire ?? PROBE_WIRE;
    this.#table = new LivenessTable(context.config.server_id);
  }

  /** One round; gives the pause before the next probes. Without a socket nobody is judged: it is this server that is deaf. */
  async run(): Promise<number> {
    const { clock, facts } = this.#context;
    if (facts.peers !== this.#peers) {
      this.#peers = facts.peers;
      this.#table.setTargets(facts.peers.flatMap((peer) => {
        const block = parseCidr(peer.block);
        return block ? [{ serverId: peer.server_id, address: serverAddress(block) }] : [];
      }));
    }
    if (this.#isLeaving) return PROBE_EVERY_MS;
    const socket = this.#open();
    const isRound = !socket || clock.monotonicMs() >= this.#roundAtMs;
    if (socket) {
      for (const { address, seq } of this.#nextProbes(clock.monotonicMs())) {
        this.#send(socket, { kind: "ping", address, seq });
      }
      this.#knockAtSuspects();
    }
    await this.#judge(isRound);
    if (!socket) return PROBE_EVERY_MS;
    const restMs = this.#roundAtMs - clock.monotonicMs();
    return Math.max(1, this.#table.hasSuspects ? Math.min(restMs, SUSPECT_EVERY_MS) : restMs);
  }

  /** A round when it is due, else another look at those that missed a probe. */
  #nextProbes(nowMs: number): Probe[] {
    if (nowMs < this.#roundAtMs) return this.#table.suspectRound(nowMs);
    // Rounds keep their pace, except after a pause of this very process.
    const isLate = nowMs - this.#roundAtMs > PROBE_EVERY_MS / 2;
    this.#roundAtMs = (isLate ? nowMs : this.#roundAtMs) + PROBE_EVERY_MS;
    return this.#table.nextRound(nowMs);
  }

  /** A daemon that is killed, started anew or hangs is no server that is gone. */
  #knockAtSuspects(): void {
    const { clock, logger } = this.#context;
    for (const target of this.#table.knocks(clock.monotonicMs())) {
      this.#knock(target.address).catch(() => false).then((isOpen) =>
        this.#table.knocked(target, { isOpen, nowMs: clock.monotonicMs() })
      );
    }
    const { daemonless } = this.#table;
    const text = daemonless.join();
    if (text !== this.#daemonless && text !== "") {
      logger.warn("daemons do not answer, their servers do", { servers: daemonless });
    }
    this.#daemonless = text;
  }

  /**
   * Tells the others that this server shuts down, so that nobody is led to it, a few times since
   * packets get lost; from then on it answers nobody. Ends the probing.
   */
  async leave(): Promise<void> {
    const socket = this.#socket;
    if (!socket) return;
    this.#isLeaving = true;
    for (let time = 1; time <= BYES; time++) {
      const sent = this.#table.addresses.map((address) =>
        this.#send(socket, { kind: "bye", address, seq: 0 })
      );
      await Promise.all(sent);
      if (time < BYES) await this.#context.clock.sleep(BYE_EVERY_MS);
    }
    this.close();
  }

  #send(
    socket: DatagramSocket,
    message: {
      readonly kind: ProbeMessage["kind"];
      readonly address: string;
      readonly seq: number;
    },
  ): Promise<void> {
    const { kind, address, seq } = message;
    const rumors = this.#table.rumors();
    const bytes = this.#wire.encode({
      kind,
      from: this.#context.config.server_id,
      seq,
      ...(rumors.length > 0 ? { rumors } : {}),
    });
    // A send that fails (no route, no handshake) is a probe without an answer.
    return socket.send(bytes, { hostname: address, port: PROBE_PORT }).catch(() => undefined);
  }

  /** Closes the socket. */
  close(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }

  #open(): DatagramSocket | undefined {
    const { config, logger } = this.#context;
    const block = parseCidr(config.block);
    if (this.#socket || !block) return this.#socket;
    try {
      const hostname = serverAddress(block);
      const socket = this.#bind({ hostname, port: PROBE_PORT });
      this.#socket = socket;
      logger.info("probing", { address: hostname, port: PROBE_PORT });
      this.#receive(socket).catch((error) => {
        if (this.#socket !== socket) return;
        logger.warn("probe socket failed", { error: messageOf(error) });
        this.close();
      });
    } catch (error) {
      logger.debug("no probe socket yet", { error: messageOf(error) });
    }
    return this.#socket;
  }

  async #receive(socket: DatagramSocket): Promise<void> {
    while (true) {
      const { bytes, hostname } = await socket.receive();
      const message = this.#wire.decode(bytes);
      if (!message || !this.#table.isPeer(message.from, hostname)) continue;
      await this.#take(socket, message, hostname);
    }
  }

  async #take(socket: DatagramSocket, message: ProbeMessage, address: string): Promise<void> {
    const { clock } = this.#context;
    const nowMs = clock.monotonicMs();
    if (this.#isLeaving) return;
    if (message.kind === "bye") return await this.#sayGoodbye(message.from);
    if (message.kind === "pong") this.#table.answered(message, { address, nowMs });
    else this.#table.heard(message.from, nowMs);
    if (message.kind === "ping") this.#send(socket, { kind: "pong", address, seq: message.seq });
    const news = this.#table.take(message.rumors ?? [], { nowMs, wallMs: clock.nowMs() });
    if (news) this.#passOn(socket);
    // Whoever is heard may have been silent: that is told at once, not with the next round. Where
    // many come and go it waits for those that come in the same moment.
    const wasSilent = this.#context.facts.silent.has(message.from);
    if (wasSilent && !this.#judging && nowMs - this.#judgedAtMs >= NEWS_GAP_MS) {
      this.#judgedAtMs = nowMs;
      await this.#judge().catch(() => undefined);
    } else if (wasSilent || news) this.#judgeSoon();
  }

  async #sayGoodbye(serverId: string): Promise<void> {
    this.#context.logger.info("server shuts down", { server: serverId });
    this.#table.left(serverId);
    await this.#judge().catch(() => undefined);
  }

  /** News change the verdict now; what comes in the same moment is judged with it. */
  #judgeSoon(): void {
    if (this.#judging) return;
    this.#judging = true;
    this.#context.clock.sleep(this.#pause(JUDGE_AFTER_MS, this.#judgedAtMs)).then(() => {
      this.#judging = false;
      this.#judgedAtMs = this.#context.clock.monotonicMs();
      return this.#judge();
    }).catch(() => undefined);
  }

  /** How long news wait: a moment, or until the gap to those before them is over. */
  #pause(leastMs: number, lastAtMs: number): number {
    return Math.max(leastMs, lastAtMs + NEWS_GAP_MS - this.#context.clock.monotonicMs());
  }

  /** News go to the neighbours now; what comes in the same moment goes with it. */
  #passOn(socket: DatagramSocket): void {
    if (this.#passing) return;
    this.#passing = true;
    this.#context.clock.sleep(this.#pause(PASS_ON_MS, this.#passedAtMs)).then(() => {
      this.#passing = false;
      this.#passedAtMs = this.#context.clock.monotonicMs();
      for (const address of this.#table.neighbours()) {
        this.#send(socket, { kind: "news", address, seq: 0 });
      }
    }).catch(() => undefined);
  }

  async #judge(isRound = false): Promise<void> {
    const { clock } = this.#context;
    const said = this.#table.judge({ nowMs: clock.monotonicMs(), wallMs: clock.nowMs() });
    if (said && this.#socket) this.#passOn(this.#socket);
    // Between two rounds only a changed verdict is worth a file.
    const silent = this.#table.silent;
    if (isRound || silent.join() !== this.#silent) await this.#write(silent, isRound);
  }

  async #write(servers: readonly string[], isRound: boolean): Promise<void> {
    const { files, clock, logger, facts, wake } = this.#context;
    if (isRound || this.#found === "") {
      const { rtt_ms, loss, daemonless } = this.#table.report(clock.nowMs());
      const mtu = facts.mtu && facts.mtu.size > 0 ? Object.fromEntries(facts.mtu) : undefined;
      this.#found = JSON.stringify({ rtt_ms, loss, daemonless, mtu });
    }
    const verdict = { format: 1, written_at_ms: clock.nowMs(), silent: servers };
    const text = `${JSON.stringify(verdict).slice(0, -1)},${this.#found.slice(1)}`;
    const silent = servers.join();
    const isNew = silent !== this.#silent;
    if (isNew) {
      logger.info("silent servers", { silent: servers });
      // It may be our own interface, a route or a peer that is gone.
      wake("topology");
    }
    this.#silent = silent;
    if (isNew || facts.silent.size !== servers.length) facts.silent = new Set(servers);
    // A round and a message that was heard may write at the same time: one after the other.
    const writing = this.#writing.catch(() => undefined)
      .then(() => files.replace(SERVER_PATHS.liveness, text, { mode: 0o644 }));
    this.#writing = writing;
    await writing;
    if (isNew) this.#onVerdict();
  }
}
