import { messageOf, parseServerStatus, SERVER_PATHS, type ServerStatus } from "@jiji/core";
import { OBSERVE_TIMEOUT_MS } from "../../constants.ts";
import {
  isAllLinked,
  linkProblems,
  renderLinks,
  renderServers,
  renderTold,
} from "../../lib/network/status_text.ts";
import { linkMatrix, type StatusView } from "../../lib/network/status_view.ts";
import {
  type CommandContext,
  type CommonOptions,
  type Ports,
  setupCommandContext,
} from "../../utils/command_helpers.ts";
import { mustRun } from "../../utils/remote.ts";

/**
 * `jiji network status`: the whole cluster at a glance, also when part of it is down.
 *
 * @throws {JijiError} only when no server at all could be asked.
 */
export async function networkStatus(options: CommonOptions, ports: Ports): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const { statuses, problems } = await readStatuses(context);
  const asked = new Set([...context.hosts.keys(), ...context.unreachable.keys()]);
  const view = linkMatrix(context.configuration.servers, statuses, {
    nowMs: ports.clock.nowMs(),
    asked,
  });
  if (context.output.json) {
    return context.output.result({
      ...view,
      linked: isAllLinked(view),
      problems: Object.fromEntries([...problems].map(([name, told]) => [name, told.join("; ")])),
      link_problems: linkProblems(view),
    });
  }
  show(context, view, problems);
}

async function readStatuses(context: CommandContext) {
  const statuses = new Map<string, ServerStatus>();
  const problems = new Map<string, readonly string[]>();
  for (const [name, error] of context.unreachable) problems.set(name, [messageOf(error)]);
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
      const told = [...status.problems, ...(status.daemon?.notices ?? [])];
      if (told.length > 0) problems.set(name, told);
    } catch (error) {
      problems.set(name, [messageOf(error)]);
    }
  }));
  return { statuses, problems };
}

function show(
  context: CommandContext,
  view: StatusView,
  problems: ReadonlyMap<string, readonly string[]>,
): void {
  const { output, configuration } = context;
  const head = [
    configuration.network.clusterCidrText,
    `${view.servers.length} server${view.servers.length === 1 ? "" : "s"}`,
    isAllLinked(view) ? "all linked" : "NOT all linked",
  ];
  output.line(head.join(` ${output.symbols.dot} `));
  output.line();
  renderServers(view, output.symbols).forEach((line) => output.line(line));
  const links = renderLinks(view);
  if (links.length > 0) output.line();
  links.forEach((line) => output.line(line));
  const notes = [...linkProblems(view), ...renderTold(problems)];
  if (notes.length > 0) output.line();
  notes.forEach((note) => output.line(`  ${output.symbols.warn} ${note}`));
}
