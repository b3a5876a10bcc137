import { JijiError, Secret, UsageError } from "@jiji/core";
import type { ServiceConfiguration } from "../lib/configuration/service.ts";
import { observeAll, runDeployment } from "../lib/deployment/deployment_run.ts";
import {
  chooseRelease,
  readReleases,
  type ReleaseRecord,
} from "../lib/deployment/release_records.ts";
import { serviceContainers } from "../lib/services/service_targets.ts";
import { renderTable } from "../lib/output/table.ts";
import {
  type CommandContext,
  type CommonOptions,
  headline,
  type Ports,
  requireAllReachable,
  setupCommandContext,
} from "../utils/command_helpers.ts";
import { NO_LOCK, withLock } from "../utils/lock.ts";

/** Options of `jiji services rollback` and `restart`. */
export interface ReleaseOptions extends CommonOptions {
  readonly to?: string | undefined;
  /** Only show what is kept. */
  readonly list?: boolean | undefined;
  readonly plan?: boolean | undefined;
}

/**
 * `jiji services rollback`: back to the last release that is not the one running, or to a named one,
 * with the configuration and environment it had, without dropping a request.
 *
 * @throws {JijiError} listing what is possible when there is nothing to go back to.
 */
export async function servicesRollback(options: ReleaseOptions, ports: Ports): Promise<void> {
  const startedMs = ports.clock.monotonicMs();
  await using context = await setupCommandContext(options, ports, SCOPE);
  requireAllReachable(context);
  const releases = await allReleases(context);
  hideSecrets(context, releases);
  if (options.list) return listReleases(context, releases);
  await using _lock = options.plan
    ? NO_LOCK
    : await withLock(context, { reason: "rollback", scope: "project" });
  await runReleases(context, options, { action: "rollback", startedMs, releases });
}

/**
 * `jiji services restart`: replaces the running containers by new ones of the same release, on the
 * path of a deploy.
 *
 * @throws {JijiError} when no release is kept of a running service.
 */
export async function servicesRestart(options: ReleaseOptions, ports: Ports): Promise<void> {
  const startedMs = ports.clock.monotonicMs();
  await using context = await setupCommandContext(options, ports, SCOPE);
  requireAllReachable(context);
  const releases = await allReleases(context);
  hideSecrets(context, releases);
  await using _lock = options.plan
    ? NO_LOCK
    : await withLock(context, { reason: "restart", scope: "project" });
  await runReleases(context, options, { action: "restart", startedMs, releases });
}

/** Instances of a service on each server: `web=3`. */
const SCALE = /^([a-z0-9_-]+)=(\d{1,3})$/;

/**
 * `jiji services scale web=3`: as many instances on each of the service's servers, of the release
 * that runs there, until the next deploy.
 *
 * @throws {UsageError} for what is not `SERVICE=NUMBER`, {JijiError} when no release is kept.
 */
export async function servicesScale(
  words: readonly string[],
  options: ReleaseOptions,
  ports: Ports,
): Promise<void> {
  const startedMs = ports.clock.monotonicMs();
  const scales = parseScales(words);
  const chosen = { ...options, services: [...scales.keys()].join(",") };
  await using context = await setupCommandContext(chosen, ports, SCOPE);
  requireAllReachable(context);
  for (const service of context.services) checkScale(service, scales.get(service.name) ?? 1);
  const releases = await allReleases(context);
  hideSecrets(context, releases);
  await using _lock = options.plan
    ? NO_LOCK
    : await withLock(context, { reason: "scale", scope: "project" });
  await runReleases(context, options, { action: "scale", startedMs, releases, scales });
}

function parseScales(words: readonly string[]): Map<string, number> {
  return new Map(words.map((word) => {
    const match = SCALE.exec(word);
    const count = Number(match?.[2]);
    if (!match || count < 1 || count > 100) {
      throw new UsageError(`${word} is not SERVICE=NUMBER`, {
        hint: "e.g. jiji services scale web=3, 1 to 100 on each server; " +
          "to take a service away: jiji services remove",
      });
    }
    return [match[1]!, count] as const;
  }));
}

/** What several instances on one server can't share. */
function checkScale(service: ServiceConfiguration, count: number): void {
  const published = service.ports.some((port) => port.hostPort !== undefined);
  if (count === 1 || !(service.stopFirst || published || service.networkMode !== "bridge")) return;
  throw new UsageError(
    `${service.positionOf([])} ${service.name} can't have several instances on one server: ` +
      "it has stop_first, a port of the server, or a network mode of its own",
    { serving: "nothing was changed" },
  );
}

const SCOPE = { scope: "services", witnesses: true } as const;

type Releases = ReadonlyMap<string, readonly ReleaseRecord[]>;

/** Releases of each chosen service, newest first, from all its connected servers. */
async function allReleases(context: CommandContext): Promise<Releases> {
  const { project } = context.configuration;
  return new Map(
    await Promise.all(context.services.map(async ({ name, hosts }) => {
      const lists = await Promise.all(
        hosts.flatMap((host) => context.hosts.get(host) ?? [])
          .map((host) => readReleases(host, { project, service: name })),
      );
      const newest = lists.flat().sort((a, b) => b.atMs - a.atMs);
      return [name, newest] as const;
    })),
  );
}

/** Secrets of releases are none of the env file's any more, but are to be shown no more than those. */
function hideSecrets({ configuration, output }: CommandContext, releases: Releases): void {
  const kept = [...releases.values()].flat().flatMap(({ service, environment }) =>
    (service.secretNames ?? []).flatMap((name) => environment[name] ?? [])
  ).map((value) => new Secret(value));
  output.hide(() => [...configuration.secretsGiven(), ...kept]);
}

function listReleases(context: CommandContext, releases: Releases): void {
  const rows = [...releases].flatMap(([service, records]) => {
    const seen = new Set<number>();
    return records.filter(({ atMs }) => !seen.has(atMs) && seen.add(atMs)).map((record) => ({
      service,
      version: record.service.version,
      at: new Date(record.atMs).toISOString(),
    }));
  });
  const { output } = context;
  if (output.json) return output.result({ releases: rows });
  const cells = rows.map((row) => [row.service, row.version, row.at]);
  renderTable(["service", "version", "deployed"], cells).forEach((line) => output.line(line));
}

interface ReleaseRun {
  readonly action: "rollback" | "restart" | "scale";
  readonly startedMs: number;
  readonly releases: Releases;
  /** Instances on each server by service, when they are to change. */
  readonly scales?: ReadonlyMap<string, number>;
}

async function runReleases(
  context: CommandContext,
  options: ReleaseOptions,
  run: ReleaseRun,
): Promise<void> {
  const observed = await observeAll(context);
  const running = new Map(
    serviceContainers(context, observed).map(({ service, container }) => [service, container]),
  );
  const chosen = context.services.map(({ name }) => {
    const current = running.get(name)?.labels?.version;
    const releases = run.releases.get(name) ?? [];
    const to = run.action === "rollback" ? options.to : current;
    if (run.action !== "rollback" && current === undefined) {
      throw new JijiError(`${name} does not run, so there is nothing to ${run.action}`, {
        hint: "start it with: jiji deploy",
      });
    }
    return chooseRelease(releases, { service: name, running: current, to });
  });
  const versions = [...new Set(chosen.map((record) => record.service.version))].join(", ");
  context.output.note(headline(context, versions));
  context.output.note("");
  const reachable = (hosts: readonly string[]) => hosts.filter((host) => context.hosts.has(host));
  await runDeployment(context, {
    action: run.action,
    version: versions,
    // The image is on the servers still: what a release retains is not pruned.
    desired: chosen.map(({ service }) => ({
      ...service,
      hosts: reachable(service.hosts),
      scale: run.scales?.get(service.service) ?? service.scale,
      pull: "missing",
    })),
    observed,
    environments: new Map(
      chosen.map(({ service, environment }) => [
        service.service,
        new Map(Object.entries(environment)),
      ]),
    ),
    startedMs: run.startedMs,
    force: run.action === "restart",
    planOnly: options.plan ?? false,
  });
}
