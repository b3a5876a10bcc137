import { isOk, messageOf, PartialFailureError, SERVER_PATHS } from "@jiji/core";
import { ENGINE_TIMEOUT_MS } from "../constants.ts";
import { observeAll } from "../lib/deployment/deployment_run.ts";
import { namedVolumes, removeContainers } from "../lib/services/service_removal.ts";
import { type ServiceContainer, serviceContainers } from "../lib/services/service_targets.ts";
import type { ObservedHost } from "../types/deployment.ts";
import { auditOrWarn } from "../utils/audit.ts";
import {
  type CommandContext,
  type CommonOptions,
  headline,
  type Ports,
  requireAllReachable,
  setupCommandContext,
} from "../utils/command_helpers.ts";
import { confirmOrStop } from "../utils/confirm.ts";
import { withLock } from "../utils/lock.ts";
import { mustRunScript } from "../utils/remote.ts";

/** Options of `jiji services remove`. */
export interface RemoveOptions extends CommonOptions {
  readonly yes?: boolean | undefined;
  /** Also delete the named volumes of the configuration. */
  readonly volumes?: boolean | undefined;
}

/**
 * `jiji services remove`: takes the chosen services off their servers: routes, containers, and
 * volumes only when told. Containers are found by their labels alone.
 *
 * @throws {PartialFailureError} naming what could not be removed.
 */
export async function servicesRemove(options: RemoveOptions, ports: Ports): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "services" });
  requireAllReachable(context);
  const { output, services } = context;
  const observed = await observeAll(context);
  const found = serviceContainers(context, observed);
  output.note(headline(context));
  output.note("");
  const lines = found.map(({ container, host }) => `  remove ${container.name} on ${host.name}`);
  const volumes = options.volumes ? namedVolumes(context.services) : [];
  volumes.forEach((volume) => lines.push(`  delete volume ${volume}, with its data`));
  if (lines.length === 0) {
    return output.success("Nothing to do: no container of these services is there.");
  }
  confirmOrStop({ lines, word: "yes", yes: options.yes ?? false });
  await using _lock = await withLock(context, { reason: "services remove", scope: "project" });
  const failures = await removeEverywhere(context, { observed, found, volumes });
  if (failures.length > 0) {
    throw new PartialFailureError(failures.join("\n"), {
      hint: "run jiji services remove again; what is gone already is passed over",
    });
  }
  output.success(`Removed ${services.map((service) => service.name).join(", ")}.`);
}

interface Removal {
  readonly observed: ReadonlyMap<string, ObservedHost>;
  readonly found: readonly ServiceContainer[];
  readonly volumes: readonly string[];
}

async function removeEverywhere(context: CommandContext, removal: Removal): Promise<string[]> {
  const failures: string[] = [];
  await Promise.all([...context.hosts].map(async ([name, host]) => {
    const own = removal.found.filter((found) => found.host.name === name);
    let failure: string | undefined;
    try {
      await removeOn(context, { ...removal, found: own, name });
    } catch (error) {
      failure = messageOf(error);
      failures.push(failure);
    }
    await auditOrWarn(context, host, {
      action: "services remove",
      status: failure === undefined ? "success" : "failed",
      message: failure ??
        (own.map(({ container }) => container.name).join(", ") || "nothing there"),
    });
  }));
  return failures;
}

/** Arguments: folder of the project, services. Releases hold secrets, so they go as well. */
const FORGET_SCRIPT = `set -eu
base=$1; shift
for service in "$@"; do rm -rf -- "$base/releases/$service" "$base/files/$service"; done
`;

/** Containers and routes first, then what was kept of the services. */
async function removeOn(
  context: CommandContext,
  removal: Removal & { readonly name: string },
): Promise<void> {
  const host = context.hosts.get(removal.name)!;
  const { config } = removal.observed.get(removal.name)!;
  await removeContainers(host, config, {
    containers: removal.found.map(({ container }) => container),
    drainTimeoutMs: context.configuration.deploy.drainTimeoutMs,
    signal: context.signal,
  });
  await mustRunScript(host, FORGET_SCRIPT, {
    args: [
      `${SERVER_PATHS.projects}/${context.configuration.project}`,
      ...context.services.map((service) => service.name),
    ],
    what: "removing kept releases failed",
    timeoutMs: ENGINE_TIMEOUT_MS,
  });
  for (const volume of removal.volumes) {
    const argv = [config.engine, "volume", "rm", volume] as const;
    const result = await host.run(argv, { timeoutMs: ENGINE_TIMEOUT_MS });
    const missing = /no such volume|no volume with name/i.test(result.stderr);
    if (!isOk(result) && !missing) throw new Error(`${host.name}: ${result.stderr.trim()}`);
  }
}
