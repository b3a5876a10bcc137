import { JijiError, messageOf, systemProcess } from "@jiji/core";
import { startImageRegistry } from "../lib/images/image_registry.ts";
import { registryFolder } from "../lib/images/image_shipping.ts";
import { RegistryError } from "../lib/registry/registry_commands.ts";
import { loginHere, loginOn, logoutHere, logoutOn } from "../lib/registry/registry_login.ts";
import type { Configuration } from "../lib/configuration/configuration.ts";
import type { RegistryLogin } from "../lib/configuration/builder.ts";
import type { RemoteHost } from "../types/remote_host.ts";
import { auditOrWarn } from "../utils/audit.ts";
import {
  cacheFolder,
  type CommandContext,
  type CommonOptions,
  headline,
  loadConfiguration,
  type Ports,
  requireAllReachable,
  setupCommandContext,
} from "../utils/command_helpers.ts";
import { confirmOrStop } from "../utils/confirm.ts";

/** Options of `jiji registry …`. */
export interface RegistryOptions extends CommonOptions {
  /** Leave this machine alone. */
  readonly skipLocal?: boolean | undefined;
  /** Leave the servers alone. */
  readonly skipRemote?: boolean | undefined;
  readonly yes?: boolean | undefined;
}

/** This machine, in results. */
const HERE = "this machine";

/**
 * `jiji registry setup`: makes sure that images can be shipped: logs in to a remote registry, or
 * checks that the port of the local one is free.
 *
 * @throws {JijiError} when the port is taken; {RegistryError} when the registry refuses.
 */
export async function registrySetup(options: RegistryOptions, ports: Ports): Promise<void> {
  const configuration = await loadConfiguration(options, ports);
  const { builder } = configuration;
  if (builder.registry.type === "remote") return await loginAll(configuration, options, ports);
  const { port } = builder.registry;
  if (!options.skipLocal) {
    await startImageRegistry({ folder: registryFolder(cacheFolder()), port })
      [Symbol.asyncDispose]();
  }
  if (ports.output.json) return ports.output.result({ type: "local", port });
  ports.output.success(
    `Nothing to set up: jiji itself is the registry while it deploys, on port ${port}.`,
  );
}

/**
 * `jiji registry login`: logs this machine's engine and the servers in to the remote registry.
 *
 * @throws {RegistryError} naming where it was refused.
 */
export async function registryLogin(options: RegistryOptions, ports: Ports): Promise<void> {
  await loginAll(await loadConfiguration(options, ports), options, ports);
}

async function loginAll(
  configuration: Configuration,
  options: RegistryOptions,
  ports: Ports,
): Promise<void> {
  const login = configuration.builder.registry.login();
  if (login === undefined) return nothingToLogInTo(ports);
  await everywhere(options, ports, {
    configuration,
    action: "registry login",
    done: `Logged in to ${login.server} as ${login.username}`,
    login,
    here: (local) => loginHere(login, local),
    there: async (host, context) => {
      const { configuration: { builder, project }, signal } = context;
      await loginOn(host, login, { engine: builder.engine, project, keep: true, signal });
    },
  });
}

/**
 * `jiji registry logout`: forgets the remote registry's login on this machine and the servers.
 *
 * @throws {PartialFailureError} when a server could not be changed.
 */
export async function registryLogout(options: RegistryOptions, ports: Ports): Promise<void> {
  await logoutAll(await loadConfiguration(options, ports), options, ports);
}

async function logoutAll(
  configuration: Configuration,
  options: RegistryOptions,
  ports: Ports,
): Promise<void> {
  const { registry } = configuration.builder;
  const { server } = registry;
  if (registry.type === "local" || server === undefined) return nothingToLogInTo(ports);
  await everywhere(options, ports, {
    configuration,
    action: "registry logout",
    done: `Logged out of ${server}`,
    login: { server },
    here: (local) => logoutHere(server, local),
    there: (host, context) => logoutOn(host, context.configuration.project),
  });
}

/**
 * `jiji registry remove`: the local registry's layers kept on this machine go; of a remote registry
 * only the logins.
 *
 * @throws {UsageError} without a terminal and without `--yes`.
 */
export async function registryRemove(options: RegistryOptions, ports: Ports): Promise<void> {
  const configuration = await loadConfiguration(options, ports);
  if (configuration.builder.registry.type === "remote") {
    return await logoutAll(configuration, options, ports);
  }
  const folder = registryFolder(cacheFolder());
  if (!options.skipLocal) {
    confirmOrStop({
      lines: [`  delete ${folder}: layers that were shipped from this machine, of all projects`],
      word: "yes",
      yes: options.yes ?? false,
    });
    await Deno.remove(folder, { recursive: true }).catch((error: unknown) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
  }
  if (ports.output.json) return ports.output.result({ type: "local", removed: folder });
  ports.output.success("Removed the layers kept here; the next deploy ships whole images again.");
}

function nothingToLogInTo({ output }: Ports): void {
  if (output.json) return output.result({ type: "local", done: [] });
  output.success("Nothing to do: the local registry needs no login.");
}

interface RegistryAction {
  readonly configuration: Configuration;
  readonly action: string;
  readonly done: string;
  readonly login: Pick<RegistryLogin, "server">;
  here(local: Parameters<typeof loginHere>[1]): Promise<void>;
  there(host: RemoteHost, context: CommandContext): Promise<void>;
}

async function everywhere(
  options: RegistryOptions,
  ports: Ports,
  action: RegistryAction,
): Promise<void> {
  const { output, signal } = ports;
  const done: string[] = [];
  const failures: unknown[] = [];
  if (!options.skipLocal) {
    const { engine } = action.configuration.builder;
    try {
      await action.here({ process: systemProcess, engine, signal });
      done.push(HERE);
    } catch (error) {
      failures.push(error);
    }
  }
  if (!options.skipRemote) failures.push(...await onServers(options, ports, { action, done }));
  if (output.json) {
    output.result({
      server: action.login.server,
      done,
      failed: failures.map(messageOf),
    });
  }
  if (failures.length > 0) throw failureOf(failures, done);
  if (!output.json) output.success(`${action.done}: ${done.join(", ")}.`);
}

async function onServers(
  options: RegistryOptions,
  ports: Ports,
  work: { readonly action: RegistryAction; readonly done: string[] },
): Promise<unknown[]> {
  await using context = await setupCommandContext(options, ports, {
    scope: "services",
    configuration: work.action.configuration,
  });
  requireAllReachable(context);
  context.output.note(headline(context, work.action.login.server));
  const failures: unknown[] = [];
  await Promise.all([...context.hosts].map(async ([name, host]) => {
    const entry = { action: work.action.action, message: work.action.login.server } as const;
    try {
      await work.action.there(host, context);
      work.done.push(name);
    } catch (error) {
      failures.push(error);
    }
    const status = work.done.includes(name) ? "success" : "failed";
    await auditOrWarn(context, host, { ...entry, status });
  }));
  work.done.sort((a, b) => a === HERE ? -1 : b === HERE ? 1 : a < b ? -1 : 1);
  return failures;
}

function failureOf(failures: readonly unknown[], done: readonly string[]): JijiError {
  const hints = failures.flatMap((error) => error instanceof JijiError ? error.hint ?? [] : []);
  return new RegistryError([...new Set(failures.map(messageOf))].join("\n"), {
    hint: [...new Set(hints)].join("\n") || "mend what is named above and run this again",
    ...(done.length > 0 ? { serving: `done: ${done.join(", ")}` } : {}),
  });
}
