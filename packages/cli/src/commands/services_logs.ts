import { UsageError } from "@jiji/core";
import { observeAll } from "../lib/deployment/deployment_run.ts";
import { serviceContainers } from "../lib/services/service_targets.ts";
import { type LogSource, streamLogs } from "../lib/services/logs_service.ts";
import { type CommonOptions, type Ports, setupCommandContext } from "../utils/command_helpers.ts";

/** Options of `jiji services logs` and `jiji proxy logs`. */
export interface LogsOptions extends CommonOptions {
  readonly follow?: boolean | undefined;
  readonly since?: string | undefined;
  readonly lines?: string | undefined;
  readonly grep?: string | undefined;
}

/**
 * `jiji services logs`: output of all chosen containers, merged by time, each line with its server
 * and container.
 *
 * @throws {UsageError} when nothing matches.
 */
export async function servicesLogs(options: LogsOptions, ports: Ports): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "services" });
  for (const [name] of context.unreachable) context.output.warn(`${name} can't be reached`);
  const observed = await observeAll(context);
  const sources: LogSource[] = serviceContainers(context, observed).map(({ host, container }) => ({
    host,
    container: container.name,
  }));
  if (sources.length === 0) {
    throw new UsageError("no container of the chosen services is there", {
      hint: "see what runs: jiji services list",
    });
  }
  await streamLogs(context, sources, options);
}

/** `jiji proxy logs`: the same for kamal-proxy on each chosen server. */
export async function proxyLogs(options: LogsOptions, ports: Ports): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "services" });
  for (const [name] of context.unreachable) context.output.warn(`${name} can't be reached`);
  const sources = [...context.hosts.values()].map((host) => ({ host, container: "kamal-proxy" }));
  await streamLogs(context, sources, options);
}
