import { UsageError } from "@jiji/core";
import type { CommandContext } from "../../utils/command_helpers.ts";
import type { ObservedContainer } from "../engine/inspect.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import type { ObservedHost } from "../../types/deployment.ts";

/** A container of a chosen service, with the server it runs on. */
export interface ServiceContainer {
  readonly service: string;
  readonly host: RemoteHost;
  readonly container: ObservedContainer;
}

/**
 * Containers of the chosen services on the connected servers, found by their labels, in the order
 * of services, then servers, then names.
 */
export function serviceContainers(
  context: CommandContext,
  observed: ReadonlyMap<string, ObservedHost>,
): ServiceContainer[] {
  const { project } = context.configuration;
  const names = [...observed.keys()].sort();
  return context.services.flatMap(({ name: service }) =>
    names.flatMap((name) =>
      observed.get(name)!.containers
        .filter(({ labels }) => labels?.project === project && labels.service === service)
        .sort((a, b) => a.name < b.name ? -1 : 1)
        .map((container) => ({ service, host: context.hosts.get(name)!, container }))
    )
  );
}

/**
 * The one container a command is about.
 *
 * @throws {UsageError} when there is none or several, with how to choose.
 */
export function oneContainer(found: readonly ServiceContainer[]): ServiceContainer {
  const running = found.filter(({ container }) => container.running);
  const [first, ...more] = running;
  if (!first) {
    throw new UsageError("no running container matches", {
      hint: "see what runs: jiji services list",
    });
  }
  if (more.length > 0) {
    const names = running.map(({ container, host }) => `${container.name} on ${host.name}`);
    throw new UsageError(`several containers match: ${names.join(", ")}`, {
      hint: "choose one with -S and -H",
    });
  }
  return first;
}
