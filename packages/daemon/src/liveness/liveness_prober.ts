/** Who answers over the mesh: the probes' messages and what they prove. Pure. */
import * as v from "valibot";
import { type LivenessReport, SERVER_NAME } from "@jiji/core/cluster";
import { ProbeRing } from "./liveness_ring.ts";
import { type Rumor, RumorMill, RUMORS_MAX } from "./liveness_rumors.ts";

/** Pause between two rounds of probes, milliseconds. */
export const PROBE_EVERY_MS = 1_000;
/** Whoever has not answered after this long is asked again, milliseconds: it may be gone. */
export const SUSPECT_EVERY_MS = 350;
/** A probe is missed after this long, milliseconds, or twice its peer's last round trip. */
const OVERDUE_MS = 300;
/** Probes in a row without an answer that make a server silent... */
export const MISSES_MAX = 3;
/** ...when its last answer is this old as well, milliseconds: a busy server may pause for a while. */
export const UNANSWERED_MS = 2_000;
/** Who misses its probes is knocked at this often, milliseconds. */
const KNOCK_EVERY_MS = 500;
/**
 * For this long a server's kernel alone may vouch for it, milliseconds: a daemon that hangs is
 * started anew within a minute. Later nobody knows what its containers do.
 */
export const KNOCK_TRUST_MS = 90_000;
/** No probe message is longer, octets: one packet on any mesh. */
export const MESSAGE_BYTES_MAX = 1_200;
/** Servers beyond those a server always probes that it looks at in each round. */
export const SWEEP = 4;
/** Loss is the share of this many last probes. */
export const LOSS_PROBES = 32;
/** A word that names more servers is cut: they are found by the sweep as well. */
const SILENT_TOLD_MAX = 16;

const MessageSchema = v.object({
  jiji: v.literal(1),
  kind: v.picklist(["ping", "pong", "news", "bye"]),
  from: v.pipe(v.string(), v.regex(SERVER_NAME)),
  seq: v.pipe(v.number(), v.integer(), v.minValue(0)),
  /** Words of servers about those they probe; in large clusters only. */
  rumors: v.optional(v.pipe(
    v.array(v.object({
      id: v.pipe(v.string(), v.regex(SERVER_NAME)),
      version: v.pipe(v.number(), v.integer(), v.minValue(0)),
      silent: v.pipe(
        v.array(v.pipe(v.string(), v.regex(SERVER_NAME))),
        v.maxLength(SILENT_TOLD_MAX),
        v.readonly(),
      ),
    })),
    v.maxLength(RUMORS_MAX),
    v.readonly(),
  )),
});

/**
 * A probe, its answer (`seq` is the probe's), words that can't wait for a probe, or the last word of
 * a server that is shutting down.
 */
export type ProbeMessage = v.InferOutput<typeof MessageSchema>;

/** The message's bytes. */
export function encodeProbe(message: Omit<ProbeMessage, "jiji">): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify({ jiji: 1, ...message }));
}

/** The message in these bytes, or undefined: anyone can send to a UDP port. */
export function decodeProbe(bytes: Uint8Array): ProbeMessage | undefined {
  if (bytes.length > MESSAGE_BYTES_MAX) return undefined;
  try {
    const parsed = v.safeParse(MessageSchema, JSON.parse(new TextDecoder().decode(bytes)));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/** How messages become bytes. */
export interface ProbeWire {
  encode(message: Omit<ProbeMessage, "jiji">): Uint8Array<ArrayBuffer>;
  decode(bytes: Uint8Array): ProbeMessage | undefined;
}

/** As they travel between real servers. */
export const PROBE_WIRE: ProbeWire = { encode: encodeProbe, decode: decodeProbe };

/** A server to probe. */
export interface ProbeTarget {
  readonly serverId: string;
  readonly address: string;
}

interface SentProbe {
  readonly seq: number;
  /** Monotonic. */
  readonly sentAtMs: number;
}

/** Probes that were given up and may still be answered. */
const OVERDUE_KEPT = 4;
const NO_PROBES: readonly SentProbe[] = [];

interface PeerLiveness {
  readonly serverId: string;
  address: string;
  /** Probed in every round: on the ring, or because it did not answer the sweep. */
  probed: "always" | "watched" | "swept";
  misses: number;
  /** When it answered last, or was probed first (monotonic). */
  answeredAtMs: number | undefined;
  /** By what this server found itself. */
  unanswering: boolean;
  rttMs: number | undefined;
  /** The probe that is out. */
  out: SentProbe | undefined;
  /** Those before it that were given up: a late answer still tells how long the way takes. */
  overdue: readonly SentProbe[];
  /** Whether the last probes were lost, a bit each, the latest lowest. */
  lostBits: number;
  /** How many of these bits count. */
  probes: number;
  /** When the server itself was last heard, monotonic ms. */
  heardAtMs: number;
  /** When its kernel last answered a knock, monotonic ms. */
  openedAtMs: number;
  /** When it was last knocked at, monotonic ms. */
  knockedAtMs: number;
  isKnocking: boolean;
  /** It said goodbye after this probe: what answers earlier ones was sent before. */
  leftSeq: number;
}

/** A probe to send. */
export interface Probe {
  readonly address: string;
  readonly seq: number;
}

/**
 * What is known of each peer. A new peer counts as answering until it has missed its probes. In
 * small clusters everyone probes everyone. In larger ones a server probes its neighbours on a ring
 * in every round and a few others in turns, and believes the neighbours of the rest: what it costs
 * grows with the logarithm of the cluster.
 */
export class LivenessTable {
  readonly #self: string;
  /** Sorted by name. */
  #peers = new Map<string, PeerLiveness>();
  /** Those that are probed in every round, whatever they answer. */
  #always: (readonly [id: string, peer: PeerLiveness])[] = [];
  /** The others, by name: looked at in turns. */
  #others: readonly PeerLiveness[] = [];
  /** Those that missed a probe or have one out: all that a round must look at beside its own. */
  readonly #open = new Map<string, PeerLiveness>();
  readonly #mill: RumorMill;
  #ring = new ProbeRing([]);
  #members = "";
  #seq = 0;
  #swept = 0;
  #silent: ReadonlySet<string> = new Set();

  /** @param self this server's name. */
  constructor(self: string) {
    this.#self = self;
    this.#mill = new RumorMill(self);
  }

  /** Takes over who the peers are; forgets those that are gone. */
  setTargets(targets: readonly ProbeTarget[]): void {
    for (const { serverId, address } of targets) {
      const known = this.#peers.get(serverId);
      if (known) known.address = address;
      else this.#peers.set(serverId, { ...NEW_PEER, serverId, address });
    }
    const wanted = new Set(targets.map((target) => target.serverId));
    const members = [...wanted].sort().join(" ");
    if (members === this.#members) return;
    this.#members = members;
    this.#peers = new Map([...this.#peers].filter(([id]) => wanted.has(id)).sort(byName));
    this.#mill.keep(wanted);
    this.#ring = new ProbeRing([this.#self, ...wanted]);
    const always = new Set(this.#ring.targetsOf(this.#self));
    for (const [id, peer] of this.#peers) {
      if (always.has(id)) peer.probed = "always";
      else if (peer.probed === "always") peer.probed = "swept";
    }
    this.#always = [...this.#peers].filter(([, peer]) => peer.probed === "always");
    this.#others = [...this.#peers.values()].filter((peer) => peer.probed !== "always");
    for (const id of this.#open.keys()) if (!wanted.has(id)) this.#open.delete(id);
  }

  /** Counts what the last round left unanswered and gives the probes of the next. */
  nextRound(nowMs: number): Probe[] {
    this.#seq += 1;
    const probes: Probe[] = [];
    for (const peer of this.#open.values()) this.#countMiss(peer, nowMs);
    const watched = [...this.#open.values()].filter((peer) => peer.probed === "watched");
    for (const [, peer] of this.#always) probes.push(this.#probe(peer, nowMs));
    for (const peer of [...watched, ...this.#sweep()]) probes.push(this.#probe(peer, nowMs));
    return probes;
  }

  #probe(peer: PeerLiveness, nowMs: number): Probe {
    peer.out = { seq: this.#seq, sentAtMs: nowMs };
    peer.answeredAtMs ??= nowMs;
    this.#open.set(peer.serverId, peer);
    return { address: peer.address, seq: this.#seq };
  }

  /** Peers that have not answered yet and are not given up. */
  get hasSuspects(): boolean {
    for (const peer of this.#open.values()) {
      if (peer.out && !peer.unanswering) return true;
    }
    return false;
  }

  /** The same as a round, between two of them, for peers that missed a probe alone. */
  suspectRound(nowMs: number): Probe[] {
    this.#seq += 1;
    const probes: Probe[] = [];
    for (const peer of this.#open.values()) {
      if (peer.unanswering || !isOverdue(peer, nowMs)) continue;
      this.#countMiss(peer, nowMs);
      probes.push(this.#probe(peer, nowMs));
    }
    return probes;
  }

  /**
   * Peers that missed a probe and are not given up: whether their kernels answer must be found out,
   * and {@link knocked} told. A daemon that is started anew takes its server from nobody.
   */
  knocks(nowMs: number): ProbeTarget[] {
    const due: ProbeTarget[] = [];
    for (const peer of this.#open.values()) {
      const { serverId, address } = peer;
      if (peer.unanswering || peer.isKnocking || peer.misses === 0) continue;
      if (nowMs - peer.knockedAtMs < KNOCK_EVERY_MS) continue;
      peer.isKnocking = true;
      peer.knockedAtMs = nowMs;
      due.push({ serverId, address });
    }
    return due;
  }

  /** What came of a knock at an address. */
  knocked(target: ProbeTarget, o: { readonly isOpen: boolean; readonly nowMs: number }): void {
    const peer = this.#peers.get(target.serverId);
    if (!peer) return;
    peer.isKnocking = false;
    if (o.isOpen && peer.address === target.address) peer.openedAtMs = o.nowMs;
  }

  /** Peers whose daemons have been silent for so long that only their kernels vouch for them. */
  get daemonless(): readonly string[] {
    const found: string[] = [];
    for (const [id, { misses, unanswering, openedAtMs, answeredAtMs }] of this.#open) {
      if (unanswering || misses < MISSES_MAX || answeredAtMs === undefined) continue;
      if (openedAtMs - answeredAtMs >= UNANSWERED_MS) found.push(id);
    }
    return found.sort();
  }

  /** Takes a server's last word: nobody needs to wait for what it will not answer. */
  left(serverId: string): void {
    const peer = this.#peers.get(serverId);
    if (!peer) return;
    peer.unanswering = true;
    peer.leftSeq = this.#seq;
    if (peer.probed === "swept") peer.probed = "watched";
    this.#open.set(serverId, peer);
  }

  /** Addresses of all peers. */
  get addresses(): readonly string[] {
    return [...this.#peers.values()].map((peer) => peer.address);
  }

  #countMiss(peer: PeerLiveness, nowMs: number): void {
    if (!peer.out) return;
    this.#count(peer, true);
    peer.misses += 1;
    if (peer.misses >= MISSES_MAX && isGivenUp(peer, nowMs)) peer.unanswering = true;
    if (peer.probed === "swept") peer.probed = "watched";
    peer.overdue = [...peer.overdue, peer.out].slice(-OVERDUE_KEPT);
    peer.out = undefined;
  }

  /** The few that are looked at in this round, in turns. */
  #sweep(): PeerLiveness[] {
    const others = this.#others;
    const chosen: PeerLiveness[] = [];
    for (let tries = 0; tries < others.length && chosen.length < SWEEP; tries++) {
      this.#swept = (this.#swept + 1) % others.length;
      const peer = others[this.#swept]!;
      if (peer.probed === "swept") chosen.push(peer);
    }
    return chosen;
  }

  /**
   * Takes an answer. It counts only from the peer's own address; a late answer to an earlier round
   * counts too, since it shows that the peer lives.
   */
  answered(
    message: Pick<ProbeMessage, "from" | "seq">,
    o: { readonly address: string; readonly nowMs: number },
  ): void {
    const peer = this.#peers.get(message.from);
    if (!peer || peer.address !== o.address || message.seq > this.#seq) return;
    if (message.seq <= peer.leftSeq) return;
    if (peer.out?.seq === message.seq) {
      peer.rttMs = Math.max(0, o.nowMs - peer.out.sentAtMs);
      this.#count(peer, false);
      peer.out = undefined;
    } else {
      const late = peer.overdue.find(({ seq }) => seq === message.seq);
      if (late) peer.rttMs = Math.max(0, o.nowMs - late.sentAtMs);
    }
    if (!peer.out) this.#open.delete(peer.serverId);
    peer.overdue = NO_PROBES;
    peer.heardAtMs = o.nowMs;
    peer.answeredAtMs = o.nowMs;
    peer.misses = 0;
    peer.unanswering = false;
    if (peer.probed === "watched") peer.probed = "swept";
  }

  #count(peer: PeerLiveness, isLost: boolean): void {
    peer.lostBits = (peer.lostBits << 1) | Number(isLost);
    peer.probes = Math.min(peer.probes + 1, LOSS_PROBES);
  }

  /** Takes note that a peer itself was heard, asking. */
  heard(serverId: string, nowMs: number): void {
    const peer = this.#peers.get(serverId);
    if (peer) peer.heardAtMs = nowMs;
  }

  /** Whether this address belongs to the peer of this name. */
  isPeer(serverId: string, address: string): boolean {
    return this.#peers.get(serverId)?.address === address;
  }

  /** Takes words that a message carried; whether there was news, which is to be passed on. */
  take(
    rumors: readonly Rumor[],
    o: { readonly wallMs: number; readonly nowMs: number },
  ): boolean {
    if (this.#ring.isWhole) return false;
    const isKnown = ({ id }: Rumor) => id === this.#self || this.#peers.has(id);
    return this.#mill.take(rumors.every(isKnown) ? rumors : rumors.filter(isKnown), o);
  }

  /** Words for the next message. */
  rumors(): Rumor[] {
    return this.#ring.isWhole ? [] : this.#mill.next();
  }

  /** Whom news go to at once. */
  neighbours(): string[] {
    return this.#always.filter(([, peer]) => !peer.unanswering).map(([, peer]) => peer.address);
  }

  /** Judges everyone anew; whether the own word changed, which is to be passed on. */
  judge(o: { readonly wallMs: number; readonly nowMs: number }): boolean {
    const silent = new Set<string>();
    for (const [id, peer] of this.#open) {
      if (peer.probed !== "swept" && peer.unanswering) silent.add(id);
    }
    for (const id of this.#mill.accused) {
      const peer = this.#peers.get(id);
      if (peer?.probed === "swept" && this.#isRumoured(id, peer)) silent.add(id);
    }
    this.#silent = silent;
    if (this.#ring.isWhole) return false;
    const told = this.#always.filter(([, peer]) => peer.unanswering);
    return this.#mill.say(told.slice(0, SILENT_TOLD_MAX).map(([id]) => id), o);
  }

  #isRumoured(id: string, peer: PeerLiveness): boolean {
    const watchers = this.#ring.watchersOf(id);
    const o = { watchers, silent: this.#silent, heardAtMs: peer.heardAtMs };
    return this.#mill.isSilent(id, o);
  }

  /** Servers that are silent by the last judgement, sorted. */
  get silent(): readonly string[] {
    return [...this.#silent].sort();
  }

  /** The report for jiji-dns and people. */
  report(nowMs: number): LivenessReport {
    const rtts: Record<string, number> = {};
    const losses: Record<string, number> = {};
    for (const [id, peer] of this.#peers) {
      if (peer.probes > 0) losses[id] = lossOf(peer);
      if (peer.rttMs === undefined || this.#silent.has(id) || peer.misses >= MISSES_MAX) continue;
      rtts[id] = Math.round(peer.rttMs * 10) / 10;
    }
    const daemonless = [...this.daemonless];
    return {
      format: 1,
      written_at_ms: nowMs,
      silent: [...this.silent],
      ...(daemonless.length > 0 ? { daemonless } : {}),
      rtt_ms: rtts,
      loss: losses,
    };
  }
}

function isOverdue({ out, rttMs }: PeerLiveness, nowMs: number): boolean {
  return out !== undefined && nowMs - out.sentAtMs >= Math.max(OVERDUE_MS, 2 * (rttMs ?? 0));
}

/** Whether neither the daemon nor, for a while, the kernel of a server has answered for too long. */
function isGivenUp({ answeredAtMs, openedAtMs }: PeerLiveness, nowMs: number): boolean {
  if (answeredAtMs === undefined || nowMs - answeredAtMs < UNANSWERED_MS) return false;
  return nowMs - answeredAtMs >= KNOCK_TRUST_MS || nowMs - openedAtMs >= UNANSWERED_MS;
}

function lossOf({ lostBits, probes }: PeerLiveness): number {
  let lost = 0;
  for (let at = 0; at < probes; at++) lost += (lostBits >>> at) & 1;
  return Math.round(lost / probes * 1_000) / 1_000;
}

function byName([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : 1;
}

const NEW_PEER: Omit<PeerLiveness, "address" | "serverId"> = {
  probed: "swept",
  misses: 0,
  answeredAtMs: undefined,
  unanswering: false,
  rttMs: undefined,
  out: undefined,
  overdue: NO_PROBES,
  lostBits: 0,
  probes: 0,
  heardAtMs: -Infinity,
  openedAtMs: -Infinity,
  knockedAtMs: -Infinity,
  isKnocking: false,
  leftSeq: -1,
};
