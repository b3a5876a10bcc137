import { ageOfNames, type DnsNames, messageOf, parseDnsNames, SERVER_PATHS } from "@jiji/core";
import { OBSERVE_TIMEOUT_MS } from "../../constants.ts";
import { renderTable } from "../../lib/output/table.ts";
import {
  type CommandContext,
  type CommonOptions,
  type Ports,
  setupCommandContext,
} from "../../utils/command_helpers.ts";
import { mustRun } from "../../utils/remote.ts";

/** One name as one or more servers answer it. */
export interface NameRow {
  readonly name: string;
  readonly healthy: number;
  readonly total: number;
  readonly answers: readonly string[];
  /** Servers that answer just this; servers may differ for a moment, or see others as silent. */
  readonly servers: readonly string[];
}

/** Names of all servers' jiji-dns, equal answers together, sorted by name. */
export function groupNames(reports: ReadonlyMap<string, DnsNames>): NameRow[] {
  const rows = new Map<string, NameRow>();
  for (const [server, report] of [...reports].sort()) {
    for (const { name, containers } of report.names) {
      const answers = containers.filter((one) => one.answered)
        .map((one) => `${one.address} (${one.server})`).sort();
      const healthy = containers.filter((one) => one.health === "healthy").length;
      const key = JSON.stringify([name, answers, healthy, containers.length]);
      const row = rows.get(key);
      const servers = [...row?.servers ?? [], server];
      rows.set(key, { name, healthy, total: containers.length, answers, servers });
    }
  }
  return [...rows.values()].sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
}

/**
 * `jiji network dns`: every name with what each server's jiji-dns answers; for one name also why.
 *
 * @throws {JijiError} only when no server at all could be asked.
 */
export async function networkDns(
  name: string | undefined,
  options: CommonOptions,
  ports: Ports,
): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const { reports, problems } = await readNames(name, context);
  const { output } = context;
  if (output.json) {
    return output.result({
      servers: Object.fromEntries(reports),
      problems: Object.fromEntries(problems),
    });
  }
  // "All" is no word for those that did not say anything.
  const all = context.hosts.size + context.unreachable.size;
  const rows = groupNames(reports).map((row) => [
    row.name,
    `${row.healthy}/${row.total}`,
    row.answers.join(", ") || "nothing",
    row.servers.length === all ? "all" : row.servers.join(", "),
  ]);
  if (rows.length === 0) output.line("no names yet");
  else renderTable(["name", "healthy", "answers", "on"], rows).forEach((row) => output.line(row));
  if (name !== undefined) showReasons(context, reports);
  for (const [server, report] of [...reports].sort()) {
    const age = ageOfNames(report);
    if (age !== undefined) problems.set(server, age);
  }
  if (problems.size > 0) output.line();
  for (const [server, text] of problems) output.line(`  ${output.symbols.warn} ${server}: ${text}`);
}

function showReasons({ output }: CommandContext, reports: ReadonlyMap<string, DnsNames>): void {
  for (const [server, report] of [...reports].sort()) {
    output.line();
    output.line(`as ${server} sees it:`);
    const containers = report.names.flatMap((found) => found.containers);
    if (containers.length === 0) output.line("  no container has this name");
    for (const one of containers) {
      const sign = one.answered ? "+" : "-";
      output.line(`  ${sign} ${one.address}  ${one.server}  ${one.version}  ${one.why}`);
    }
  }
}

async function readNames(name: string | undefined, context: CommandContext) {
  const reports = new Map<string, DnsNames>();
  const problems = new Map<string, string>();
  for (const [server, error] of context.unreachable) problems.set(server, messageOf(error));
  await Promise.all([...context.hosts].map(async ([server, host]) => {
    try {
      const only = name === undefined ? [] : [name];
      const argv = [`${SERVER_PATHS.bin}/jiji-dns`, "names", "--json", ...only] as const;
      const text = await mustRun(host, argv, {
        what: "asking jiji-dns failed",
        timeoutMs: OBSERVE_TIMEOUT_MS,
        signal: context.signal,
      });
      reports.set(server, parseDnsNames(text));
    } catch (error) {
      problems.set(server, messageOf(error));
    }
  }));
  return { reports, problems };
}
