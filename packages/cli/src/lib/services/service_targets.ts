import { isLeavingName, UsageError } from "@jiji/core";
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
 * @param instance as `services list` shows it (`s1`, `s1-2`); any when undefined.
 * @throws {UsageError} when there is none or several, with how to choose.
 */
export function oneContainer(
  found: readonly ServiceContainer[],
  instance?: string,
): ServiceContainer {
  const running = found.filter(({ container }) => container.running && !isGoing(container.name));
  const chosen = running.filter(({ container }) =>
    instance === undefined || container.labels?.instance === instance
  );
  const [first, ...more] = chosen;
  if (!first) {
    const instances = running.flatMap(({ container }) => container.labels?.instance || []);
    throw new UsageError(
      instance === undefined || instances.length === 0
        ? "no running container matches"
        : `--instance ${instance} matches no running container`,
      {
        hint: instances.length > 0
          ? `there are: ${[...new Set(instances)].join(", ")}`
          : "see what runs: jiji services list",
      },
    );
  }
  if (more.length > 0) {
    const names = chosen.map(({ container, host }) => `${container.name} on ${host.name}`);
    throw new UsageError(`several containers match: ${names.join(", ")}`, {
      hint: "choose one with -S, -H and --instance",
    });
  }
  return first;
}

/** Renamed by a deploy that replaces it or takes it away: another one stands in its place. */
function isGoing(name: string): boolean {
  return isLeavingName(name) || /_old_\d+$/.test(name);
}
