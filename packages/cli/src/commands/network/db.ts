import {
  JijiError,
  messageOf,
  parseQueryResult,
  parseStateStats,
  SERVER_PATHS,
  UsageError,
} from "@jiji/core";
import { askServers } from "../../lib/network/ask_servers.ts";
import { compareStats, renderCell, type StatsView } from "../../lib/network/state_view.ts";
import { renderTable } from "../../lib/output/table.ts";
import {
  type CommandContext,
  type CommonOptions,
  headline,
  type Ports,
  setupCommandContext,
} from "../../utils/command_helpers.ts";
import { OBSERVE_TIMEOUT_MS } from "../../constants.ts";

const DAEMON = `${SERVER_PATHS.bin}/jiji-daemon`;
/** Exit code of jiji-daemon for a statement that is refused, wrong or endless. */
const EXIT_USAGE = 2;

/**
 * `jiji network db query`: a statement that only reads, on the first of the chosen servers that
 * answers.
 *
 * @throws {UsageError} for a statement that does not only read or is wrong; {JijiError} when no
 * server answers.
 */
export async function networkDbQuery(
  sql: string,
  options: CommonOptions,
  ports: Ports,
): Promise<void> {
  const statement = sql === "-" ? await readInput() : sql;
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const { output, signal } = context;
  const problems: string[] = [...context.unreachable.values()].map(messageOf);
  for (const [name, host] of [...context.hosts].sort()) {
    const argv = [DAEMON, "db", "query"] as const;
    const result = await host.run(argv, {
      timeoutMs: OBSERVE_TIMEOUT_MS,
      stdin: statement,
      signal,
    });
    const reason = result.stderr.trim().replace(/^jiji-daemon: /, "");
    if (result.exitCode === EXIT_USAGE) throw new UsageError(`${name}: ${reason}`);
    if (result.exitCode !== 0) {
      problems.push(`${name}: ${reason || `exit ${result.exitCode}`}`);
      continue;
    }
    const found = parseQueryResult(result.stdout);
    if (output.json) return output.result({ server: name, ...found });
    const rows = found.rows.map((row) => row.map(renderCell));
    renderTable(found.columns.map(renderCell), rows, { indent: 0 })
      .forEach((line) => output.line(line));
    const count = `${rows.length} row${rows.length === 1 ? "" : "s"} of ${name}`;
    return output.note(found.cut ? `${count}; there are more, add a LIMIT or a WHERE` : count);
  }
  throw new JijiError(`no server could be asked\n  ${problems.join("\n  ")}`, {
    hint: "look at jiji network status",
  });
}

async function readInput(): Promise<string> {
  return await new Response(Deno.stdin.readable).text();
}

/**
 * `jiji network db stats`: the state as each server has it, and what differs.
 *
 * @throws {JijiError} when no server answers.
 */
export async function networkDbStats(options: CommonOptions, ports: Ports): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const { output, signal } = context;
  const asked = await askServers(context.hosts.values(), {
    argv: [DAEMON, "db", "stats"],
    what: "asking jiji-daemon failed",
    parse: parseStateStats,
    signal,
  });
  const problems = new Map(asked.problems);
  for (const [name, error] of context.unreachable) problems.set(name, messageOf(error));
  if (asked.answers.size === 0) {
    throw new JijiError(`no server could be asked\n  ${[...problems.values()].join("\n  ")}`);
  }
  const isComplete = problems.size === 0;
  const removed = new Set([...asked.answers.values()].flatMap((one) => one.removed_servers));
  for (const name of removed) {
    if (asked.answers.has(name)) problems.set(name, "was removed: its state is its own");
  }
  const members = new Map([...asked.answers].filter(([name]) => !removed.has(name)));
  const view = compareStats(members);
  if (output.json) {
    return output.result({
      in_step: isComplete && view.differences.length === 0,
      servers: Object.fromEntries(asked.answers),
      differences: view.differences,
      problems: Object.fromEntries(problems),
    });
  }
  const word = view.differences.length > 0
    ? "state NOT in step"
    : isComplete
    ? "state in step"
    : "not all servers told";
  showStats(context, view, { problems, word });
}

function showStats(
  context: CommandContext,
  view: StatsView,
  { problems, word }: { readonly problems: ReadonlyMap<string, string>; readonly word: string },
): void {
  const { output } = context;
  output.line(headline(context, word));
  output.line();
  renderTable(view.header, view.rows, { right: view.right }).forEach((line) => output.line(line));
  const open = [...view.differences, ...[...problems].map(([name, text]) => `${name}: ${text}`)];
  if (open.length > 0) output.line();
  for (const text of open) output.line(`  ${output.symbols.warn} ${text}`);
}
