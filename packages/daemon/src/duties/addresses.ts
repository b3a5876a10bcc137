/** Duty: where other servers reach this one, also after its addresses have changed. */
import * as v from "valibot";
import { MESH_INTERFACE, PUBLIC_IP_SOURCES, SERVER_PATHS } from "@jiji/core/cluster";
import { isPublicIp, normalizeIp } from "@jiji/core/net";
import { messageOf } from "@jiji/core/runtime";
import { type DaemonContext, mustRun, tellDoc } from "../daemon_context.ts";
import {
  ARGV_ADDRESSES,
  isBehindNat,
  parseInterfaces,
  parsePublicAddress,
  planEndpoints,
  usableAddresses,
} from "../mesh/own_addresses.ts";
import { argvEndpoints } from "../mesh/peer_monitor.ts";
import { observeWireguard } from "./topology.ts";

/** Last address that was seen from outside, so that a start without internet keeps it. */
export const SEEN_ADDRESSES_FILE: string = `${SERVER_PATHS.daemonState}/addresses.json`;
/** A source gets this long to answer, milliseconds. */
export const SOURCE_TIMEOUT_MS = 5_000;
/** Sources are asked again after this long, milliseconds; at once when a local address changed. */
export const SEEN_EVERY_MS: number = 30 * 60_000;
/** First pause after no source answered, milliseconds; it doubles up to an hour. */
const RETRY_FIRST_MS = 60_000;
const RETRY_MAX_MS = 60 * 60_000;
/** An address is one short line; what is longer is not read. */
const ANSWER_BYTES_MAX = 256;

/** Asks a URL for the caller's address: its answer, whatever that is. */
export type AskAddress = (
  url: string,
  options: { readonly timeoutMs: number; readonly signal: AbortSignal },
) => Promise<string>;

/** Over HTTP. @throws when there is no answer with status 200 in time. */
export const askAddress: AskAddress = async (url, { timeoutMs, signal }) => {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  const response = await fetch(url, {
    signal: limit,
    redirect: "error",
    headers: { accept: "text/plain", "user-agent": "jiji-daemon" },
  });
  const reader = response.body?.getReader();
  let text = "";
  const decoder = new TextDecoder();
  while (reader && text.length < ANSWER_BYTES_MAX) {
    const { done, value } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
  }
  await reader?.cancel().catch(() => undefined);
  if (response.status !== 200) throw new Error(`status ${response.status}`);
  return text;
};

const SeenSchema = v.object({
  format: v.literal(1),
  seen: v.pipe(
    v.array(v.pipe(
      v.string(),
      v.check((ip) => normalizeIp(ip) === ip && isPublicIp(ip)),
    )),
    v.maxLength(2),
  ),
});

/** Keeps this server's endpoints up to date. */
export class AddressesDuty {
  readonly #context: DaemonContext;
  readonly #ask: AskAddress;
  #seen: readonly string[] | undefined;
  /** Undefined before the first look. */
  #local: string | undefined;
  #askAtMs = -Infinity;
  #failures = 0;

  constructor(context: DaemonContext, ask: AskAddress) {
    this.#context = context;
    this.#ask = ask;
  }

  /** One look at the interfaces; the sources are asked when it is time. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#context;
    this.#seen ??= await this.#remembered();
    const interfaces = parseInterfaces(await mustRun(this.#context, ARGV_ADDRESSES, signal));
    this.#context.facts.interfaces = interfaces;
    const local = usableAddresses(interfaces);
    if (local.join() !== this.#local) {
      const isMove = this.#local !== undefined;
      this.#local = local.join();
      this.#askAtMs = -Infinity;
      if (isMove) await this.#sendFromHere(signal);
    }
    this.#tell(local);
    if (clock.monotonicMs() < this.#askAtMs) return;
    await this.#look(local, signal);
    this.#tell(local);
  }

  /**
   * WireGuard goes on sending from the address that is gone until it is told anew where its peers
   * are; they follow its first packet. Source: seen with wireguard-go, for 15 s.
   */
  async #sendFromHere(signal: AbortSignal): Promise<void> {
    const wireguard = await observeWireguard(this.#context, signal);
    const peers = (wireguard?.peers ?? []).flatMap(({ publicKey, endpoint }) =>
      endpoint === undefined ? [] : [{ publicKey, endpoint }]
    );
    if (peers.length === 0) return;
    await mustRun(this.#context, argvEndpoints(MESH_INTERFACE, peers), signal);
  }

  async #remembered(): Promise<readonly string[]> {
    try {
      const text = await this.#context.files.read(SEEN_ADDRESSES_FILE);
      const parsed = v.safeParse(SeenSchema, JSON.parse(text ?? ""));
      return parsed.success ? parsed.output.seen : [];
    } catch {
      return [];
    }
  }

  #tell(local: readonly string[]): void {
    const { facts, config, logger, wake } = this.#context;
    const known = { local, seen: this.#seen ?? [] };
    const endpoints = planEndpoints(config.endpoints, known, config.wireguard_port);
    const nat = isBehindNat(known);
    const before = facts.endpoints ?? config.endpoints;
    const changed = endpoints.join() !== before.join();
    facts.endpoints = endpoints;
    if (!tellDoc(facts, { nat }) && !changed) return;
    if (changed) logger.info("own endpoints", { endpoints, before });
    wake("heartbeat");
  }

  /** Asks one source after the other until each wanted family is known. */
  async #look(local: readonly string[], signal: AbortSignal): Promise<void> {
    const { config, clock, logger } = this.#context;
    const sources = config.public_ip_sources ?? PUBLIC_IP_SOURCES;
    this.#askAtMs = clock.monotonicMs() + SEEN_EVERY_MS;
    if (sources.length === 0) return await this.#remember([]);
    const wanted = new Set<"4" | "6">(["4"]);
    if (local.some((ip) => ip.includes(":") && isPublicIp(ip))) wanted.add("6");
    const found: string[] = [];
    const errors: string[] = [];
    for (const url of sources) {
      if (wanted.size === 0) break;
      try {
        const answer = await this.#ask(url, { timeoutMs: SOURCE_TIMEOUT_MS, signal });
        const ip = parsePublicAddress(answer);
        if (ip === undefined) errors.push(`${url}: not a public address`);
        else if (wanted.delete(ip.includes(":") ? "6" : "4")) found.push(ip);
      } catch (error) {
        signal.throwIfAborted();
        errors.push(`${url}: ${messageOf(error)}`);
      }
    }
    if (found.length > 0) {
      this.#failures = 0;
      return await this.#remember(found);
    }
    if (this.#failures === 0) {
      logger.info("public address not found; trying again now and then", { errors });
    }
    const pauseMs = Math.min(RETRY_FIRST_MS * 2 ** this.#failures, RETRY_MAX_MS);
    this.#failures += 1;
    this.#askAtMs = clock.monotonicMs() + pauseMs;
  }

  /** IPv4 first. A family that was not found this time keeps its last address. */
  async #remember(found: readonly string[]): Promise<void> {
    const { files, config } = this.#context;
    const family = (six: boolean) => (ip: string) => ip.includes(":") === six;
    const before = config.public_ip_sources?.length === 0 ? [] : this.#seen ?? [];
    const seen = [false, true].flatMap((six) =>
      found.find(family(six)) ?? before.find(family(six)) ?? []
    );
    if (seen.join() === this.#seen?.join()) return;
    this.#seen = seen;
    const text = JSON.stringify({ format: 1, seen });
    await files.replace(SEEN_ADDRESSES_FILE, text, { mode: 0o600 });
  }
}
