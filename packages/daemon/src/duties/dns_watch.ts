/** Duty: jiji-dns answers. One that hangs takes the names of every container here with it. */
import { DNS_PORT, SERVER_UNITS } from "@jiji/core/cluster";
import { parseCidr, serverAddress } from "@jiji/core/net";
import { type DaemonContext, mustRun } from "../daemon_context.ts";
import { judgeService, SERVICE_UNSEEN, type ServiceHealth } from "../state/service_health.ts";
import type { BindDatagram } from "./liveness.ts";

/** An answer from this machine's memory takes milliseconds; this is for a busy one, ms. */
export const DNS_ANSWER_TIMEOUT_MS = 2_000;
/** jiji-dns may be silent this long before it is restarted, milliseconds. */
export const DNS_SILENT_MS = 15_000;

/**
 * "SOA of the service domain?", which jiji-dns answers by itself; another name's answer would be
 * that of the host's resolvers. Source: RFC 1035, section 4.1.
 */
function encodeQuestion(domain: string): Uint8Array<ArrayBuffer> {
  const labels = domain.split(".").map((label) => new TextEncoder().encode(label));
  return new Uint8Array([
    ...[0x6a, 0x69, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
    ...labels.flatMap((label) => [label.length, ...label]),
    ...[0, 0, 6, 0, 1],
  ]);
}

/** Restarts a jiji-dns that runs and answers nothing, as a question over UDP finds it. */
export class DnsWatchDuty {
  readonly #context: DaemonContext;
  readonly #bind: BindDatagram;
  #state: ServiceHealth = SERVICE_UNSEEN;

  constructor(context: DaemonContext, bind: BindDatagram) {
    this.#context = context;
    this.#bind = bind;
  }

  /** One question. A jiji-dns that was stopped by hand stays stopped. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#context;
    const answers = await this.#ask(signal);
    signal.throwIfAborted();
    const look = { answers, nowMs: clock.monotonicMs(), silentMs: DNS_SILENT_MS };
    const { state, restart } = judgeService(this.#state, look);
    this.#state = state;
    if (!restart) return;
    logger.error("restarting jiji-dns", { reason: "it does not answer", restarts: state.restarts });
    await mustRun(this.#context, ["systemctl", "try-restart", SERVER_UNITS.dns], signal);
  }

  /** Any answer is one: what it says is its own affair. */
  async #ask(signal: AbortSignal): Promise<boolean> {
    const { clock, config } = this.#context;
    const block = parseCidr(config.block);
    if (!block) return true;
    const hostname = serverAddress(block);
    let socket;
    try {
      socket = this.#bind({ hostname, port: 0 });
    } catch {
      // Without the mesh's address there is nothing that could answer: no fault of jiji-dns.
      return true;
    }
    const late = new AbortController();
    const timeout = clock.sleep(DNS_ANSWER_TIMEOUT_MS, {
      signal: AbortSignal.any([signal, late.signal]),
    }).then(() => false, () => false);
    try {
      const answer = socket.send(encodeQuestion(config.service_domain), {
        hostname,
        port: DNS_PORT,
      })
        .then(() => socket.receive()).then(() => true, () => false);
      return await Promise.race([answer, timeout]);
    } finally {
      late.abort();
      socket.close();
    }
  }
}
