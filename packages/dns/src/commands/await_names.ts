/** `jiji-dns await`: the convergence barrier of a deploy. */
import type { BarrierReport } from "@jiji/core/cluster";
import { parseIpv4 } from "@jiji/core/net";
import { type Clock, messageOf, UsageError } from "@jiji/core/runtime";
import { answeredAddresses } from "../dns_message.ts";
import { RCODE, TYPE } from "../dns_protocol.ts";
import type { ServerAddress } from "../upstream.ts";
import { ask } from "./ask.ts";

/** What a name must answer before the barrier opens. */
export interface Expectation {
  readonly name: string;
  readonly present: readonly string[];
  readonly absent: readonly string[];
}

/** What a name answers now: addresses, or why there was no answer. */
export type Observation =
  | { readonly kind: "addresses"; readonly addresses: readonly string[] }
  | { readonly kind: "failed"; readonly error: string };

/** Pause between two looks, milliseconds. */
export const AWAIT_EVERY_MS = 50;

/** A question waits this long, milliseconds; the last one as well, for a busy server is no wrong one. */
const QUESTION_MS = 1_000;

/**
 * `casa-api.jiji=+10.210.1.5,-10.210.1.4` as an expectation.
 *
 * @throws {UsageError} naming the part that is wrong.
 */
export function parseExpectation(text: string): Expectation {
  const [name = "", list, ...rest] = text.split("=");
  const items = list?.split(",") ?? [];
  if (!/^[A-Za-z0-9._-]+$/.test(name) || list === undefined || rest.length > 0) {
    throw new UsageError(`"${text}" is not NAME=+IP,-IP`);
  }
  for (const item of items) {
    if (!/^[+-]/.test(item) || parseIpv4(item.slice(1)) === undefined) {
      throw new UsageError(`"${item}" in "${text}" is not +IP or -IP`);
    }
  }
  const pick = (sign: string) =>
    items.filter((item) => item.startsWith(sign)).map((item) => item.slice(1));
  return { name, present: pick("+"), absent: pick("-") };
}

/** What still keeps the barrier closed, or undefined when this name has converged. */
export function judgeExpectation(
  expectation: Expectation,
  observation: Observation,
): BarrierReport["pending"][number] | undefined {
  const answers = observation.kind === "addresses" ? [...observation.addresses] : [];
  const missing = expectation.present.filter((ip) => !answers.includes(ip));
  const unwanted = expectation.absent.filter((ip) => answers.includes(ip));
  const error = observation.kind === "failed" ? observation.error : null;
  if (missing.length === 0 && unwanted.length === 0 && error === null) return undefined;
  return { name: expectation.name, answers, missing, unwanted, error };
}

/** Asks until every expectation holds or the time is over; the last answers may come after it. */
export async function awaitNames(
  expectations: readonly Expectation[],
  options: { readonly server: ServerAddress; readonly timeoutMs: number; readonly clock: Clock },
): Promise<BarrierReport> {
  const { clock, timeoutMs, server } = options;
  const startMs = clock.monotonicMs();
  while (true) {
    const pending = (await Promise.all(
      expectations.map(async (expectation) =>
        judgeExpectation(expectation, await observe(expectation.name, server))
      ),
    )).filter((one) => one !== undefined);
    const waitedMs = Math.round(clock.monotonicMs() - startMs);
    if (pending.length === 0 || waitedMs >= timeoutMs) {
      return { converged: pending.length === 0, waited_ms: waitedMs, pending };
    }
    await clock.sleep(Math.min(AWAIT_EVERY_MS, timeoutMs - waitedMs));
  }
}

async function observe(name: string, server: ServerAddress): Promise<Observation> {
  try {
    const question = { name, type: TYPE.A };
    const { packet, message } = await ask(server, question, { timeoutMs: QUESTION_MS });
    if (message.rcode !== RCODE.NOERROR && message.rcode !== RCODE.NXDOMAIN) {
      return { kind: "failed", error: `rcode ${message.rcode}` };
    }
    return { kind: "addresses", addresses: answeredAddresses(packet, message) };
  } catch (error) {
    return { kind: "failed", error: messageOf(error) };
  }
}
