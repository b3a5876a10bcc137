import { type BarrierReport, isOk, messageOf, parseBarrierReport, SERVER_PATHS } from "@jiji/core";
import { BARRIER_TIMEOUT_MS, OBSERVE_TIMEOUT_MS } from "../../constants.ts";
import type { NameExpectation } from "../../types/deployment.ts";
import type { RemoteHost } from "../../types/remote_host.ts";

/** A server whose jiji-dns did not come to know of a change in time. */
export interface Straggler {
  readonly host: string;
  readonly reason: string;
}

/**
 * Arguments of `jiji-dns await`: every name with what it must answer and what no longer. Several
 * expectations for one name are joined.
 */
export function argvAwait(expectations: readonly NameExpectation[]): [string, ...string[]] {
  const wanted = new Map<string, string[]>();
  for (const { name, has, lacks } of expectations) {
    const terms = [
      ...(has === undefined ? [] : [`+${has}`]),
      ...(lacks === undefined ? [] : [`-${lacks}`]),
    ];
    wanted.set(name, [...(wanted.get(name) ?? []), ...terms]);
  }
  return [
    `${SERVER_PATHS.bin}/jiji-dns`,
    "await",
    "--timeout-ms",
    String(BARRIER_TIMEOUT_MS),
    ...[...wanted].map(([name, terms]) => `${name}=${terms.join(",")}`),
  ];
}

/**
 * Waits until the jiji-dns of every reachable server answers as expected, and names those that did
 * not in time: the caller then waits out the TTL of their last answers.
 */
export async function awaitConvergence(
  hosts: Iterable<RemoteHost>,
  expectations: readonly NameExpectation[],
  signal: AbortSignal,
): Promise<Straggler[]> {
  if (expectations.length === 0) return [];
  const argv = argvAwait(expectations);
  const reports = await Promise.all([...hosts].map(async (host) => {
    try {
      const timeoutMs = BARRIER_TIMEOUT_MS + OBSERVE_TIMEOUT_MS;
      const result = await host.run(argv, { timeoutMs, signal });
      if (isOk(result)) return [];
      return [{ host: host.name, reason: stragglerReason(result.stdout, result.stderr) }];
    } catch (error) {
      signal.throwIfAborted();
      return [{ host: host.name, reason: messageOf(error) }];
    }
  }));
  return reports.flat();
}

function stragglerReason(stdout: string, stderr: string): string {
  let report: BarrierReport;
  try {
    report = parseBarrierReport(stdout);
  } catch {
    return `jiji-dns does not answer: ${stderr.trim().split("\n").at(-1) ?? ""}`;
  }
  return report.pending
    .map((name) => `${name.name} answers ${name.error ?? (name.answers.join(", ") || "nothing")}`)
    .join("; ");
}
