import {
  type Argv,
  type BarrierReport,
  DNS_STATUS_PORT,
  MESH_INTERFACE,
  messageOf,
  parseBarrierReport,
  SERVER_PATHS,
} from "@jiji/core";
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
 * The running jiji-dns is asked where there is a curl, since starting a program for it takes longer
 * than the answer. Arguments: path of the question, its time in seconds, `jiji-dns await …`.
 */
const AWAIT_SCRIPT = `question=$1 seconds=$2; shift 2
address=$(ip -4 -o address show dev ${MESH_INTERFACE} | sed -n 's/.* inet \\([0-9.]*\\).*/\\1/p')
url="http://$address:${DNS_STATUS_PORT}$question"
curl -fsS --noproxy '*' --max-time "$seconds" "$url" 2>/dev/null || exec "$@"`;

/** The command that asks one server, however it can. */
export function argvBarrier(expectations: readonly NameExpectation[]): Argv {
  const argv = argvAwait(expectations);
  const query = new URLSearchParams({ timeout_ms: String(BARRIER_TIMEOUT_MS) });
  for (const expectation of argv.slice(4)) query.append("expect", expectation);
  const seconds = String(BARRIER_TIMEOUT_MS / 1_000 + 2);
  return ["sh", "-c", AWAIT_SCRIPT, "sh", `/await?${query}`, seconds, ...argv];
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
  const argv = argvBarrier(expectations);
  const reports = await Promise.all([...hosts].map(async (host) => {
    try {
      const timeoutMs = BARRIER_TIMEOUT_MS + OBSERVE_TIMEOUT_MS;
      const result = await host.run(argv, { timeoutMs, signal });
      const reason = stragglerReason(result.stdout, result.stderr);
      return reason === undefined ? [] : [{ host: host.name, reason }];
    } catch (error) {
      signal.throwIfAborted();
      return [{ host: host.name, reason: messageOf(error) }];
    }
  }));
  return reports.flat();
}

/** Why a server has not converged; undefined when it has. */
function stragglerReason(stdout: string, stderr: string): string | undefined {
  let report: BarrierReport;
  try {
    report = parseBarrierReport(stdout);
  } catch {
    return `jiji-dns does not answer: ${stderr.trim().split("\n").at(-1) ?? ""}`;
  }
  if (report.converged) return undefined;
  return report.pending
    .map((name) => `${name.name} answers ${name.error ?? (name.answers.join(", ") || "nothing")}`)
    .join("; ");
}
