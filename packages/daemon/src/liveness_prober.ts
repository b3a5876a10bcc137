/** Who answers over the mesh: the probes' messages and what they prove. Pure. */
import * as v from "valibot";
import { type LivenessReport, SERVER_NAME } from "@jiji/core/cluster";

/** Pause between two rounds of probes, milliseconds. */
export const PROBE_EVERY_MS = 1_000;
/** Rounds in a row without an answer that make a server silent. */
export const MISSES_MAX = 3;
/** No probe message is longer, octets. */
export const MESSAGE_BYTES_MAX = 256;

const MessageSchema = v.object({
  jiji: v.literal(1),
  kind: v.picklist(["ping", "pong"]),
  from: v.pipe(v.string(), v.regex(SERVER_NAME)),
  seq: v.pipe(v.number(), v.integer(), v.minValue(0)),
});

/** A probe or its answer. `seq` of an answer is the probe's. */
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

/** A server to probe. */
export interface ProbeTarget {
  readonly serverId: string;
  readonly address: string;
}

interface PeerLiveness {
  address: string;
  misses: number;
  silent: boolean;
  rttMs: number | undefined;
  /** The probe that is out, and when it left (monotonic). */
  out: { seq: number; sentAtMs: number } | undefined;
}

/** What is known of each peer. A new peer counts as answering until it has missed its probes. */
export class LivenessTable {
  readonly #peers = new Map<string, PeerLiveness>();
  #seq = 0;

  /** Takes over who the peers are; forgets those that are gone. */
  setTargets(targets: readonly ProbeTarget[]): void {
    const wanted = new Map(targets.map((target) => [target.serverId, target.address]));
    for (const id of this.#peers.keys()) if (!wanted.has(id)) this.#peers.delete(id);
    for (const [id, address] of wanted) {
      const known = this.#peers.get(id);
      if (known) known.address = address;
      else {
        this.#peers.set(id, {
          address,
          misses: 0,
          silent: false,
          rttMs: undefined,
          out: undefined,
        });
      }
    }
  }

  /** Counts what the last round left unanswered and gives the probes of the next. */
  nextRound(nowMs: number): { readonly address: string; readonly seq: number }[] {
    this.#seq += 1;
    const probes: { address: string; seq: number }[] = [];
    for (const peer of this.#peers.values()) {
      if (peer.out) {
        peer.misses += 1;
        if (peer.misses >= MISSES_MAX) peer.silent = true;
      }
      peer.out = { seq: this.#seq, sentAtMs: nowMs };
      probes.push({ address: peer.address, seq: this.#seq });
    }
    return probes;
  }

  /**
   * Takes an answer. It counts only from the peer's own address; a late answer to an earlier round
   * counts too, since it shows that the peer lives.
   *
   * @returns whether a silent server came back by it.
   */
  answered(
    message: ProbeMessage,
    o: { readonly address: string; readonly nowMs: number },
  ): boolean {
    const peer = this.#peers.get(message.from);
    if (!peer || peer.address !== o.address || message.seq > this.#seq) return false;
    if (peer.out?.seq === message.seq) {
      peer.rttMs = Math.max(0, o.nowMs - peer.out.sentAtMs);
      peer.out = undefined;
    }
    peer.misses = 0;
    const returned = peer.silent;
    peer.silent = false;
    return returned;
  }

  /** Whether this address belongs to the peer of this name. */
  isPeer(serverId: string, address: string): boolean {
    return this.#peers.get(serverId)?.address === address;
  }

  /** The report for jiji-dns and people. */
  report(nowMs: number): LivenessReport {
    const sorted = [...this.#peers].sort(([a], [b]) => a < b ? -1 : 1);
    return {
      format: 1,
      written_at_ms: nowMs,
      silent: sorted.filter(([, peer]) => peer.silent).map(([id]) => id),
      rtt_ms: Object.fromEntries(
        sorted.flatMap(([id, peer]) =>
          peer.rttMs === undefined || peer.silent ? [] : [[id, Math.round(peer.rttMs * 10) / 10]]
        ),
      ),
    };
  }
}
