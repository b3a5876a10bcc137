import { messageOf } from "@jiji/core";
import { renderTable } from "../lib/output/table.ts";
import { observeHost } from "../lib/deployment/deployment_observation.ts";
import { type ListedService, listServices } from "../lib/services/service_listing.ts";
import type { ObservedHost } from "../types/deployment.ts";
import {
  type CommonOptions,
  headline,
  type Ports,
  setupCommandContext,
} from "../utils/command_helpers.ts";

/**
 * `jiji services list`: what runs where, by the containers themselves.
 *
 * @throws {JijiError} when the configuration is wrong; servers that do not answer are named.
 */
export async function servicesList(options: CommonOptions, ports: Ports): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "services" });
  const { configuration, output } = context;
  const problems = new Map<string, string>(
    [...context.unreachable].map(([name, error]) => [name, messageOf(error)]),
  );
  const observed: ObservedHost[] = [];
  const what = { engine: configuration.builder.engine, project: configuration.project };
  await Promise.all([...context.hosts].map(async ([name, host]) => {
    try {
      observed.push(await observeHost(host, what, context.signal));
    } catch (error) {
      problems.set(name, messageOf(error));
    }
  }));
  const listed = listServices(configuration.project, context.services, observed);
  if (output.json) {
    return output.result({ services: listed, problems: Object.fromEntries(problems) });
  }
  output.note(headline(context));
  output.note("");
  const rows = listed.map((row) => [
    row.service,
    row.instance || row.server,
    row.version,
    row.state,
    row.address,
    urlsText(row),
  ]);
  renderTable(["service", "instance", "version", "state", "address", "reached at"], rows)
    .forEach((line) => output.line(line));
  for (const [name, text] of problems) output.warn(`${name}: ${text}`);
}

function urlsText(row: ListedService): string {
  return [row.dnsName, ...row.urls].filter(Boolean).join(" ");
}
