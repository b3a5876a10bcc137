import {
  JijiError,
  messageOf,
  parseStaleRows,
  SERVER_PATHS,
  type StaleRows,
  UsageError,
} from "@jiji/core";
import { askServers } from "../../lib/network/ask_servers.ts";
import { renderTable } from "../../lib/output/table.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { auditOrWarn } from "../../utils/audit.ts";
import {
  type CommandContext,
  type CommonOptions,
  headline,
  type Ports,
  setupCommandContext,
} from "../../utils/command_helpers.ts";
import { withLock } from "../../utils/lock.ts";
import { parseAge } from "../../utils/time_text.ts";

/** Options of `jiji network gc`. */
export interface GcOptions extends CommonOptions {
  /** Remove what is found. */
  readonly force?: boolean | undefined;
  /** Unhealthy containers of silent servers, `180`, `3m`; default 180 s. */
  readonly staleThreshold?: string | undefined;
  /** Everything of servers silent for this long; default 600 s. */
  readonly offlineThreshold?: string | undefined;
}

const STALE = "180s";
const OFFLINE = "600s";

/**
 * `jiji network gc`: rows that nobody keeps, with the reason for each; with `--force` they go. One
 * server is asked, and none that may be cut off removes anything.
 *
 * @throws {JijiError} when no server answers, or with `--force` while removal is refused.
 */
export async function networkGc(options: GcOptions, ports: Ports): Promise<void> {
  const thresholds = [
    "--stale-ms",
    threshold(options.staleThreshold ?? STALE, "--stale-threshold"),
    "--offline-ms",
    threshold(options.offlineThreshold ?? OFFLINE, "--offline-threshold"),
  ];
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const { output } = context;
  output.note(headline(context));
  const { host, found } = await look(context, thresholds);
  if (!options.force) return show(context, { found, removed: false });
  if (found.refusal !== null) {
    throw new JijiError(`nothing is removed: ${found.refusal}`, {
      serving: "nothing was changed",
      hint: "see who does not answer: jiji network status",
    });
  }
  if (found.rows.length === 0) return show(context, { found, removed: false });
  await using _lock = await withLock(context, { reason: "network gc", scope: "cluster" });
  const { answers, problems } = await ask(context, [host], [...thresholds, "--force"]);
  const done = answers.get(host.name);
  const failure = [...problems.values()][0] ?? done?.refusal ?? undefined;
  await auditOrWarn(context, host, {
    action: "network gc",
    status: failure === undefined ? "success" : "failed",
    message: `${done?.rows.length ?? 0} rows`,
  });
  if (!done || failure !== undefined) throw new JijiError(`rows were not removed: ${failure}`);
  show(context, { found: done, removed: done.removed });
}

/** Milliseconds as an argument; seconds when there is no unit. */
function threshold(text: string, flag: string): string {
  const durationMs = parseAge(/^\d+$/.test(text) ? `${text}s` : text);
  if (durationMs !== undefined && durationMs < 1_000_000_000) return String(durationMs);
  throw new UsageError(`${flag}: ${text} is not a duration`, {
    hint: "write seconds, 3m, 2h or 1d",
  });
}

function ask(context: CommandContext, hosts: readonly RemoteHost[], args: readonly string[]) {
  return askServers(hosts, {
    argv: [`${SERVER_PATHS.bin}/jiji-daemon`, "gc", ...args],
    what: "asking jiji-daemon failed",
    parse: parseStaleRows,
    signal: context.signal,
  });
}

/** The first server that may judge; when none may, the first that answers, with its reason. */
async function look(context: CommandContext, args: readonly string[]) {
  const { answers, problems } = await ask(context, [...context.hosts.values()], args);
  const all = [...answers];
  const [name, found] = all.find(([, one]) => one.refusal === null) ?? all[0] ?? [];
  if (name === undefined || !found) {
    const reasons = [...context.unreachable.values()].map(messageOf).concat(...problems.values());
    throw new JijiError(`no server could be asked\n  ${reasons.join("\n  ")}`);
  }
  return { host: context.hosts.get(name)!, found };
}

function show(
  context: CommandContext,
  result: { readonly found: StaleRows; readonly removed: boolean },
): void {
  const { output } = context;
  const { found, removed } = result;
  if (output.json) return output.result({ ...found, removed });
  const rows = found.rows.map((row) => [row.table, row.row, row.server, row.reason]);
  if (rows.length > 0) {
    renderTable(["table", "row", "server", "why"], rows).forEach((line) => output.line(line));
    output.line();
  }
  if (found.refusal !== null) output.warn(`nothing may be removed now: ${found.refusal}`);
  const count = `${rows.length} stale row${rows.length === 1 ? "" : "s"}`;
  if (rows.length === 0) return output.success("Nothing to do: every row is kept by somebody.");
  if (removed) return output.success(`Removed ${count}.`);
  output.line(`${count}. Remove ${rows.length === 1 ? "it" : "them"}: jiji network gc --force`);
}
