import { join } from "node:path";
import {
  type Clock,
  ConnectionError,
  JijiError,
  messageOf,
  silentLogger,
  UsageError,
} from "@jiji/core";
import type { Configuration } from "../lib/configuration/configuration.ts";
import type { ServerConfiguration } from "../lib/configuration/servers.ts";
import type { ServiceConfiguration } from "../lib/configuration/service.ts";
import { ConfigurationLoader } from "../lib/configuration/loader.ts";
import type { Output } from "../lib/output/output.ts";
import type { RemoteHost } from "../types/remote_host.ts";
import { filterByName } from "./name_filter.ts";
import { SSHConnectionPool } from "./ssh_pool.ts";

/** Options that every command with a configuration takes. */
export interface CommonOptions {
  readonly configFile?: string | undefined;
  readonly environment?: string | undefined;
  readonly hosts?: string | undefined;
  readonly services?: string | undefined;
  readonly hostEnv?: boolean | undefined;
}

/** What `main.ts` gives to every command. */
export interface Ports {
  readonly output: Output;
  readonly clock: Clock;
  /** Aborts on Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
  readonly cwd: string;
}

/** How a command wants its context. */
export interface ContextOptions {
  /** Which servers it concerns: those of the chosen services, or every one. */
  readonly scope: "services" | "servers";
  /** Also connect to every other server, as far as it can be reached: they are {@link CommandContext.witnesses}. */
  readonly witnesses?: boolean;
  /** Loaded and validated already; default: as the options say. */
  readonly configuration?: Configuration;
  /** Runs once the configuration is known, before the first connection. */
  readonly beforeConnect?: (configuration: Configuration) => Promise<void>;
}

/** Configuration, chosen servers and services, and connections; disposed whatever happens. */
export interface CommandContext extends AsyncDisposable, Ports {
  readonly configuration: Configuration;
  readonly services: readonly ServiceConfiguration[];
  readonly servers: readonly ServerConfiguration[];
  /** Open connections by server name. */
  readonly hosts: ReadonlyMap<string, RemoteHost>;
  /** Reachable servers that the command does not change but whose view matters. */
  readonly witnesses: readonly RemoteHost[];
  /** Servers that could not be reached, with the reason. */
  readonly unreachable: ReadonlyMap<string, unknown>;
}

/**
 * Command → load configuration → filter → connect. A changed host key stops everything, any other
 * failure to connect is handed to the command.
 *
 * @throws {ConfigError} for a wrong configuration, {UsageError} for filters that match nothing,
 * {ConnectionError} of phase `hostkey`.
 */
export async function setupCommandContext(
  options: CommonOptions,
  ports: Ports,
  wish: ContextOptions,
): Promise<CommandContext> {
  const configuration = wish.configuration ?? await loadConfiguration(options, ports);
  const services = chooseServices(configuration, options);
  const servers = chooseServers(configuration, services, { ...options, scope: wish.scope });
  await wish.beforeConnect?.(configuration);
  const pool = new SSHConnectionPool(configuration.servers.values(), {
    maxConcurrentStarts: configuration.ssh.maxConcurrentStarts,
    clock: ports.clock,
    onNotice: (text) => ports.output.note(text),
  });
  const chosen = new Set(servers.map((server) => server.name));
  const others = wish.witnesses
    ? [...configuration.servers.values()].filter((server) => !chosen.has(server.name))
    : [];
  const connect = (server: ServerConfiguration) => pool.connect(server.name);
  const [outcomes, witnessed] = await Promise.all([
    pool.executeConcurrent(servers, connect),
    pool.executeConcurrent(others, connect),
  ]);
  const hosts = new Map<string, RemoteHost>();
  const unreachable = new Map<string, unknown>();
  for (const outcome of outcomes) {
    if (outcome.ok) hosts.set(outcome.item.name, outcome.value);
    else unreachable.set(outcome.item.name, outcome.error);
  }
  const wrongKey = [...unreachable.values()].find((error) =>
    error instanceof ConnectionError && error.phase === "hostkey"
  );
  if (wrongKey) {
    await pool[Symbol.asyncDispose]();
    throw wrongKey;
  }
  return {
    ...ports,
    configuration,
    services,
    servers,
    hosts,
    witnesses: witnessed.flatMap((outcome) => outcome.ok ? [outcome.value] : []),
    unreachable,
    [Symbol.asyncDispose]: async () => {
      await pool.executeBestEffort(
        "closing connections",
        () => pool[Symbol.asyncDispose](),
        silentLogger,
      );
    },
  };
}

/**
 * Stops a changing command while a server can't be reached, unless it may be left out.
 *
 * @throws {ConnectionError} naming each server with the reason; nothing was changed.
 */
export function requireAllReachable(
  context: CommandContext,
  options: { readonly skip?: boolean } = {},
): void {
  const { unreachable, output } = context;
  if (unreachable.size === 0) return;
  const names = [...unreachable.keys()].join(", ");
  if (options.skip && context.hosts.size > 0) {
    output.warn(`left out, since unreachable: ${names}; the next deploy catches up`);
    return;
  }
  const lines = [...unreachable.values()].map((error) => {
    const hint = error instanceof JijiError && error.hint ? `\n    ${error.hint}` : "";
    return `  ${messageOf(error)}${hint}`;
  });
  const [first] = unreachable.values();
  throw new ConnectionError(`${names} can't be reached\n${lines.join("\n")}`, {
    host: names,
    phase: first instanceof ConnectionError ? first.phase : "tcp",
    serving: "nothing was changed anywhere",
    hint: options.skip === undefined
      ? `leave ${unreachable.size > 1 ? "them" : "it"} out: choose the others with --hosts`
      : `deploy without ${unreachable.size > 1 ? "them" : "it"}: jiji deploy --skip-unreachable`,
  });
}

/**
 * Refuses `--hosts` for a command about all servers, which would do something else with a part.
 *
 * @throws {UsageError} when it is given.
 */
export function refuseHosts(options: CommonOptions, reason: string): void {
  if (options.hosts === undefined) return;
  throw new UsageError(`--hosts has no meaning here: ${reason}`);
}

/**
 * The validated configuration that the options point at.
 *
 * @throws {ConfigError} with every problem found.
 */
export async function loadConfiguration(
  options: CommonOptions,
  ports: Ports,
): Promise<Configuration> {
  const configuration = await ConfigurationLoader.load({
    cwd: ports.cwd,
    hostEnv: options.hostEnv ?? false,
    ...(options.configFile === undefined ? {} : { configFile: options.configFile }),
    ...(options.environment === undefined ? {} : { environment: options.environment }),
  });
  ports.output.hide(() => configuration.secretsGiven());
  configuration.validate();
  return configuration;
}

/** Services of a configuration that `-S` chooses. */
export function chooseServices(
  configuration: Configuration,
  options: CommonOptions,
): ServiceConfiguration[] {
  const all = [...configuration.services.values()].map((service) => ({
    name: service.name,
    aliases: [],
    service,
  }));
  return filterByName(all, options.services, { what: "service", flag: "--services" })
    .map((item) => item.service);
}

function chooseServers(
  configuration: Configuration,
  services: readonly ServiceConfiguration[],
  options: CommonOptions & ContextOptions,
): ServerConfiguration[] {
  const used = new Set(services.flatMap((service) => service.hosts));
  const all = [...configuration.servers.values()]
    .filter((server) => options.scope === "servers" || used.has(server.name))
    .map((server) => ({ name: server.name, aliases: [server.host], server }));
  return filterByName(all, options.hosts, { what: "server", flag: "--hosts" })
    .map((item) => item.server);
}

/** `shop · production · 3 servers · docker`: what is being acted on, always the first line. */
export function headline(context: CommandContext, ...facts: readonly string[]): string {
  const { configuration, servers, output } = context;
  const count = `${servers.length} server${servers.length === 1 ? "" : "s"}`;
  const parts = [configuration.project, configuration.environmentName, count, ...facts];
  return parts.filter(Boolean).join(` ${output.symbols.dot} `);
}

/** Folder of this machine for what can be made or fetched again: layers, downloads. */
export function cacheFolder(): string {
  const base = Deno.env.get("XDG_CACHE_HOME") || join(Deno.env.get("HOME") ?? "/tmp", ".cache");
  return join(base, "jiji");
}
