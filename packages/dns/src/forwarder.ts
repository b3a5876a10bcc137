/** Asks the host's resolvers for what is not ours: bounded, merged, cached. */
import { type Clock, type Logger, messageOf } from "@jiji/core/runtime";
import { type DnsMessage, parseMessage } from "./dns_message.ts";
import { type DnsQuery, RCODE } from "./dns_protocol.ts";
import { encodeForward, ForwardCache, forwardKey } from "./forward_cache.ts";

/** Queries to resolvers in flight; more are refused, so that a flood ends here. */
export const FORWARDS_MAX = 256;
/** One resolver gets this long, milliseconds; then the next is asked. */
export const UPSTREAM_TIMEOUT_MS = 2_000;

/** A resolver that gave no answer is asked last for this long, milliseconds. */
export const SHUNNED_MS = 10_000;

/** One exchange with a resolver. */
export interface Upstream {
  /** Sends over UDP, gives the first packet that `accepts`. @throws when none comes in time. */
  udp(address: string, exchange: Exchange): Promise<Uint8Array<ArrayBuffer>>;
  /** The same over TCP. @throws when none comes in time. */
  tcp(address: string, exchange: Exchange): Promise<Uint8Array<ArrayBuffer>>;
}

/** What is sent and what counts as its answer. */
export interface Exchange {
  readonly packet: Uint8Array<ArrayBuffer>;
  readonly timeoutMs: number;
  readonly accepts: (packet: Uint8Array) => boolean;
}

/** Ports of the forwarder. */
export interface ForwarderOptions {
  /** Addresses of the resolvers for a name now, in order of preference. */
  readonly resolvers: (name: string) => Promise<readonly string[]>;
  readonly upstream: Upstream;
  readonly clock: Clock;
  /** A random 16-bit id. */
  readonly randomId: () => number;
  readonly logger: Logger;
  /** Told whether a query was answered from the cache. Default: nobody. */
  readonly onCache?: (hit: boolean) => void;
}

/** Answers of upstream resolvers; undefined where jiji-dns must say SERVFAIL. */
export class Forwarder {
  readonly #options: ForwarderOptions;
  readonly #cache = new ForwardCache();
  /** Until when each silent resolver is asked last, ms. */
  readonly #shunned = new Map<string, number>();
  readonly #inFlight = new Map<string, Promise<Uint8Array<ArrayBuffer> | undefined>>();

  constructor(options: ForwarderOptions) {
    this.#options = options;
  }

  /** The answer to `query`, with the client's id and question; undefined when there is none. */
  async forward(query: DnsQuery): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const key = forwardKey(query);
    const kept = this.#cache.get(key, this.#options.clock.monotonicMs());
    this.#options.onCache?.(kept !== undefined);
    const answer = kept ?? (await this.#ask(key, query))?.slice();
    return answer && addressTo(query, answer);
  }

  /** Answers kept now. */
  get entries(): number {
    return this.#cache.size;
  }

  #ask(key: string, query: DnsQuery): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const running = this.#inFlight.get(key);
    if (running) return running;
    if (this.#inFlight.size >= FORWARDS_MAX) return Promise.resolve(undefined);
    const asking = this.#askEach(key, query).finally(() => this.#inFlight.delete(key));
    this.#inFlight.set(key, asking);
    return asking;
  }

  async #askEach(key: string, query: DnsQuery): Promise<Uint8Array<ArrayBuffer> | undefined> {
    for (const resolver of this.#order(await this.#options.resolvers(query.name))) {
      try {
        const answer = await this.#askOne(resolver, query);
        this.#shunned.delete(resolver);
        // SERVFAIL and REFUSED of one resolver are no answer while another is left.
        if (isRefusal(answer.message.rcode)) continue;
        this.#cache.put(key, answer, this.#options.clock.monotonicMs());
        return answer.packet;
      } catch (error) {
        this.#shunned.set(resolver, this.#options.clock.monotonicMs() + SHUNNED_MS);
        this.#options.logger.debug("resolver failed", { resolver, error: messageOf(error) });
      }
    }
    return undefined;
  }

  /** Those that answered last come first; nobody is left out, for all may have failed. */
  #order(resolvers: readonly string[]): string[] {
    const nowMs = this.#options.clock.monotonicMs();
    const isShunned = (one: string) => (this.#shunned.get(one) ?? 0) > nowMs;
    for (const one of this.#shunned.keys()) if (!isShunned(one)) this.#shunned.delete(one);
    return [...resolvers.filter((one) => !isShunned(one)), ...resolvers.filter(isShunned)];
  }

  async #askOne(
    resolver: string,
    query: DnsQuery,
  ): Promise<{ packet: Uint8Array<ArrayBuffer>; message: DnsMessage }> {
    const id = this.#options.randomId();
    const exchange: Exchange = {
      packet: encodeForward(query, id),
      timeoutMs: UPSTREAM_TIMEOUT_MS,
      accepts: (packet) => isAnswerTo(packet, { id, query }),
    };
    let packet = await this.#options.upstream.udp(resolver, exchange);
    let message = parseMessage(packet);
    // RFC 7766 section 5: what was cut is asked for again over TCP.
    if (message?.truncated) {
      packet = await this.#options.upstream.tcp(resolver, exchange);
      message = parseMessage(packet);
    }
    if (!message) throw new Error("malformed answer");
    return { packet, message };
  }
}

function isRefusal(rcode: number): boolean {
  return rcode === RCODE.SERVFAIL || rcode === RCODE.REFUSED;
}

/** RFC 5452 section 9.1: id and question must be those that were sent. */
function isAnswerTo(
  packet: Uint8Array,
  sent: { readonly id: number; readonly query: DnsQuery },
): boolean {
  const message = parseMessage(packet);
  return message !== undefined && message.id === sent.id && message.name === sent.query.name &&
    message.type === sent.query.type && message.qclass === sent.query.qclass;
}

/** Puts the client's id and spelling in: the question has the same length, so all offsets hold. */
function addressTo(query: DnsQuery, answer: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  answer[0] = query.id >> 8;
  answer[1] = query.id & 255;
  answer.set(query.question, 12);
  // RFC 1035 section 4.1.1: we do offer recursion, and the answer is not ours.
  answer[2] = (answer[2] ?? 0) & ~0x04;
  answer[3] = (answer[3] ?? 0) | 0x80;
  return answer;
}
