import { messageOf, parseServerStatus, SERVER_PATHS, type ServerStatus } from "@jiji/core";
import { OBSERVE_TIMEOUT_MS } from "../constants.ts";
import { linkMatrix, type StatusView } from "../lib/network/status_view.ts";
import { renderTable } from "../lib/output/table.ts";
import {
  type CommandContext,
  type CommonOptions,
  type Ports,
  setupCommandContext,
} from "../utils/command_helpers.ts";
import { mustRun } from "../utils/remote.ts";

/**
 * `jiji network status`: the whole cluster at a glance, also when part of it is down.
 *
 * @throws {JijiError} only when no server at all could be asked.
 */
export async function networkStatus(options: CommonOptions, ports: Ports): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const { statuses, problems } = await readStatuses(context);
  const view = linkMatrix(context.configuration.servers, statuses, ports.clock.nowMs());
  if (context.output.json) {
    return context.output.result({ ...view, problems: Object.fromEntries(problems) });
  }
  show(context, view, problems);
}

async function readStatuses(context: CommandContext) {
  const statuses = new Map<string, ServerStatus>();
  const problems = new Map<string, string>();
  for (const [name, error] of context.unreachable) problems.set(name, messageOf(error));
  await Promise.all([...context.hosts].map(async ([name, host]) => {
    try {
      const argv = [`${SERVER_PATHS.bin}/jiji-daemon`, "status", "--json"] as const;
      const text = await mustRun(host, argv, {
        what: "asking jiji-daemon failed",
        timeoutMs: OBSERVE_TIMEOUT_MS,
        signal: context.signal,
      });
      const status = parseServerStatus(text);
      statuses.set(name, status);
      if (status.problems.length > 0) problems.set(name, status.problems.join("; "));
    } catch (error) {
      problems.set(name, messageOf(error));
    }
  }));
  return { statuses, problems };
}

function show(
  context: CommandContext,
  view: StatusView,
  problems: ReadonlyMap<string, string>,
): void {
  const { output, configuration } = context;
  const linked = view.servers.every((server) =>
    server.state === "member" && Object.values(server.links).every((link) => link.linked)
  );
  const head = [
    configuration.network.clusterCidrText,
    `${view.servers.length} servers`,
    linked ? "all linked" : "NOT all linked",
  ];
  output.line(head.join(` ${output.symbols.dot} `));
  output.line();
  const names = view.servers.map((server) => server.name);
  const rows = view.servers.map((server) => [
    server.name,
    server.address,
    server.block ?? server.state,
    ...names.map((peer) => linkText(server, peer, output.symbols.dot)),
    server.containers === null ? "?" : String(server.containers),
    server.seen,
  ]);
  const header = [
    "server",
    "address",
    "block",
    ...names.map((name) => `to ${name}`),
    "containers",
    "seen",
  ];
  renderTable(header, rows).forEach((line) => output.line(line));
  if (problems.size === 0) return;
  output.line();
  for (const [name, text] of problems) output.line(`  ${output.symbols.warn} ${name}: ${text}`);
}

function linkText(server: StatusView["servers"][number], peer: string, dot: string): string {
  if (peer === server.name) return dot;
  const link = server.links[peer];
  if (!link) return "?";
  return link.linked && link.rttMs !== null ? `${link.rttMs.toFixed(1)} ms` : "no link";
}
