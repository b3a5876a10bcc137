import type { ServerConfig } from "@jiji/core";
import { ENGINE_TIMEOUT_MS } from "../../constants.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { mustRun } from "../../utils/remote.ts";
import type { ServiceConfiguration } from "../configuration/service.ts";
import { argvRemove, argvStop } from "../engine/engine_commands.ts";
import type { ObservedContainer } from "../engine/inspect.ts";
import { ProxyService } from "./proxy_service.ts";

/** A container that goes for good is asked to end for this long, seconds. */
const STOP_GRACE_SECONDS = 10;

/** What goes, and how long its visitors may take. */
export interface Removal {
  readonly containers: readonly ObservedContainer[];
  readonly drainTimeoutMs: number;
  readonly signal: AbortSignal;
}

/**
 * Takes containers and their routes off a server. Requests in flight end first, so that no visitor
 * meets a stopped container. The routes go last: the daemon would put back a route whose container
 * still runs.
 *
 * @throws {RemoteCommandError} for what could not be removed.
 */
export async function removeContainers(
  host: RemoteHost,
  config: ServerConfig,
  removal: Removal,
): Promise<void> {
  const { containers, drainTimeoutMs, signal } = removal;
  const proxy = new ProxyService(host, config, signal);
  const routes = new Set(
    containers.flatMap(({ labels }) => labels?.proxy ?? []).map(({ name }) => name),
  );
  await Promise.all([...routes].map((route) => proxy.drainRoute(route, drainTimeoutMs)));
  await Promise.all(containers.map((container) => removeContainer(host, config, container)));
  for (const route of routes) await proxy.removeRoute(route);
}

async function removeContainer(
  host: RemoteHost,
  config: ServerConfig,
  container: ObservedContainer,
): Promise<void> {
  const timeoutMs = ENGINE_TIMEOUT_MS;
  await host.run(argvStop(config.engine, container.id, STOP_GRACE_SECONDS), { timeoutMs });
  await mustRun(host, argvRemove(config.engine, container.id), {
    what: `removing ${container.name} failed`,
    timeoutMs,
  });
}

/** Names of the volumes of services: sources of mounts that are names, not paths. */
export function namedVolumes(services: readonly ServiceConfiguration[]): string[] {
  const sources = services.flatMap((service) =>
    service.volumes.map((volume) => volume.split(":")[0] ?? "")
  );
  return [...new Set(sources.filter((name) => /^[A-Za-z0-9]/.test(name)))];
}
