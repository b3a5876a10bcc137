import { JijiError, messageOf, parseDnsNames, parseServerStatus, SERVER_PATHS } from "@jiji/core";
import { observeHost } from "../../lib/deployment/deployment_observation.ts";
import { askServers } from "../../lib/network/ask_servers.ts";
import {
  findCandidates,
  inspectContainer,
  type InspectSources,
  type InspectView,
} from "../../lib/network/inspect_view.ts";
import { renderTable } from "../../lib/output/table.ts";
import type { ObservedHost } from "../../types/deployment.ts";
import {
  type CommandContext,
  type CommonOptions,
  type Ports,
  setupCommandContext,
} from "../../utils/command_helpers.ts";

/** Options of `jiji network inspect`. */
export interface InspectOptions extends CommonOptions {
  /** Beginning of an id, or a name. */
  readonly container: string;
}

/**
 * `jiji network inspect`: one container as its engine, every server's state, names and the proxy see
 * it. `--hosts` says whose containers are meant.
 *
 * @throws {JijiError} when there is none, or more than one.
 */
export async function networkInspect(options: InspectOptions, ports: Ports): Promise<void> {
  await using context = await setupCommandContext(options, ports, {
    scope: "servers",
    witnesses: true,
  });
  const { sources, problems } = await ask(context);
  const meant = new Set(context.servers.map((server) => server.name));
  const candidates = findCandidates(options.container, sources, meant);
  const [chosen] = candidates;
  if (!chosen) {
    const unknown = [...problems.keys()].sort().join(", ");
    throw new JijiError(`no container is called ${options.container} or has such an id`, {
      hint: unknown ? `${unknown} could not be asked` : "see what there is: jiji services list",
    });
  }
  if (candidates.length > 1) {
    const lines = candidates.map(({ id, name, server }) =>
      `  ${server}  ${name}  ${id.slice(0, 12)}`
    );
    throw new JijiError(
      `${options.container} is ${candidates.length} containers\n${lines.join("\n")}`,
      { hint: "say more of the id, or whose: --hosts NAME" },
    );
  }
  const view = inspectContainer(chosen, sources);
  if (context.output.json) {
    return context.output.result({ ...view, unanswered: Object.fromEntries(problems) });
  }
  show(context, view, problems);
}

async function ask(context: CommandContext) {
  const { signal, configuration } = context;
  const hosts = [...context.hosts.values(), ...context.witnesses];
  const { engine } = configuration.builder;
  const observed = new Map<string, ObservedHost>();
  const problems = new Map<string, string>();
  for (const [name, error] of context.unreachable) problems.set(name, messageOf(error));
  const observing = Promise.all(hosts.map(async (host) => {
    const what = { engine, project: configuration.project };
    await observeHost(host, what, signal).then(
      (found) => observed.set(host.name, found),
      (error) => problems.set(host.name, messageOf(error)),
    );
  }));
  const bin = SERVER_PATHS.bin;
  const [statuses, names] = await Promise.all([
    askServers(hosts, {
      argv: [`${bin}/jiji-daemon`, "status", "--json"],
      what: "asking jiji-daemon failed",
      parse: parseServerStatus,
      signal,
    }),
    askServers(hosts, {
      argv: [`${bin}/jiji-dns`, "names", "--json"],
      what: "asking jiji-dns failed",
      parse: parseDnsNames,
      signal,
    }),
    observing,
  ]);
  for (const [name, text] of [...statuses.problems, ...names.problems]) problems.set(name, text);
  const sources: InspectSources = { statuses: statuses.answers, names: names.answers, observed };
  return { sources, problems };
}

function show(
  context: CommandContext,
  view: InspectView,
  problems: ReadonlyMap<string, string>,
): void {
  const { output } = context;
  const { symbols } = output;
  const facts = [view.name, view.server, view.version ?? "", view.id.slice(0, 12)];
  output.line(facts.filter(Boolean).join(` ${symbols.dot} `));
  output.line();
  const { engine } = view;
  const state = engine
    ? `${engine.status}, ${
      engine.address || "no address"
    }, ${engine.image}, since ${engine.created}`
    : "not known there";
  const routes = view.routes.map(({ route, target, listed }) =>
    `${route} to ${target}${listed ? "" : listed === null ? " ?" : " MISSING"}`
  );
  output.line(`  engine  ${state}`);
  output.line(`  routes  ${routes.join(", ") || "none"}`);
  output.line();
  const servers = [...new Set([...Object.keys(view.rows), ...Object.keys(view.dns)])].sort();
  const rows = servers.map((server) => {
    const row = view.rows[server];
    const dns = view.dns[server];
    return [
      server,
      row ? `${row.ip} ${row.health}` : server in view.rows ? "no row" : "?",
      dns ? `${dns.answered ? "+" : "-"} ${dns.name}` : server in view.dns ? "unknown" : "?",
      dns?.why ?? "",
    ];
  });
  renderTable(["seen by", "row", "name", "why"], rows).forEach((line) => output.line(line));
  const open = [...view.problems, ...[...problems].map(([name, text]) => `${name}: ${text}`)];
  if (open.length > 0) output.line();
  for (const text of open) output.line(`  ${symbols.warn} ${text}`);
}
