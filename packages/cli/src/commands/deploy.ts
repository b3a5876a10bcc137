import { JijiError, systemProcess } from "@jiji/core";
import type { ServiceConfiguration } from "../lib/configuration/service.ts";
import { desiredService, serviceEnvironment } from "../lib/deployment/desired_services.ts";
import { readCertificates, type ServiceCertificates } from "../lib/proxy/certificates.ts";
import { ImageShipping } from "../lib/images/image_shipping.ts";
import {
  cacheFolder,
  type CommandContext,
  type CommonOptions,
  headline,
  type Ports,
  requireAllReachable,
  setupCommandContext,
} from "../utils/command_helpers.ts";
import { DeployHooks } from "../lib/hooks/deploy_hooks.ts";
import { observeAll, runDeployment, withLeftBehind } from "../lib/deployment/deployment_run.ts";
import { chooseVersion, readGitState } from "../utils/git.ts";
import { NO_LOCK, withLock } from "../utils/lock.ts";

/** Options of `jiji deploy`. */
export interface DeployOptions extends CommonOptions {
  readonly build?: boolean | undefined;
  readonly cache?: boolean | undefined;
  readonly version?: string | undefined;
  readonly plan?: boolean | undefined;
  readonly force?: boolean | undefined;
  readonly skipUnreachable?: boolean | undefined;
}

/**
 * `jiji deploy`: builds, ships, and switches services without dropping a request.
 *
 * @throws {ConnectionError} when a server can't be reached (nothing was changed),
 * {HealthGateError} when a new version does not get healthy, {PartialFailureError} otherwise.
 */
export async function deploy(options: DeployOptions, ports: Ports): Promise<void> {
  const startedMs = ports.clock.monotonicMs();
  const hooks = new DeployHooks(options, ports);
  await using context = await setupCommandContext(options, ports, {
    scope: "services",
    witnesses: true,
    beforeConnect: (configuration) => hooks.begin(configuration),
  });
  requireAllReachable(context, { skip: options.skipUnreachable ?? false });
  try {
    const whole = options.hosts === undefined ? await withLeftBehind(context) : context;
    await deployConnected(whole, options, { startedMs, hooks });
  } catch (error) {
    await hooks.failed(error);
    throw error;
  }
}

async function deployConnected(
  context: CommandContext,
  options: DeployOptions,
  run: { readonly startedMs: number; readonly hooks: DeployHooks },
): Promise<void> {
  const { configuration, output, signal, clock } = context;
  // Missing secrets stop everything before anything is built.
  const environments = readEnvironments(context);
  const certificates = certificatesOf(context);
  const git = await readGitState(systemProcess, configuration.projectRoot);
  const version = chooseVersion(options.version, git, clock.nowMs());
  output.note(headline(context, version));
  output.note("");
  run.hooks.know(context, version);
  await using _lock = options.plan
    ? NO_LOCK
    : await withLock(context, { reason: "deploy", scope: "project" });
  await run.hooks.run("pre-build");
  await using shipping = new ImageShipping({
    configuration,
    process: systemProcess,
    version,
    build: options.build ?? true,
    cache: options.cache ?? true,
    signal,
    emit: (event) => output.emit(event),
    now: () => clock.monotonicMs(),
  }, cacheFolder());
  const [images, observed] = await Promise.all([
    shipping.prepare(context.services),
    observeAll(context),
  ]);
  output.settle();
  const desired = await Promise.all(
    context.services.map((service) =>
      desiredService(configuration, service, {
        image: images.get(service.name)!,
        environment: environments.get(service.name)!,
        certificates: certificates.get(service.name),
      })
    ),
  );
  await run.hooks.run("pre-deploy");
  await runDeployment(context, {
    action: "deploy",
    version,
    desired,
    observed,
    environments,
    startedMs: run.startedMs,
    force: options.force ?? false,
    planOnly: options.plan ?? false,
    beforeApply: (hosts) => shipping.connect(hosts),
  });
  await run.hooks.run("post-deploy");
}

/** Certificates are judged before anything is built. */
function certificatesOf(context: CommandContext): ReadonlyMap<string, ServiceCertificates> {
  const { configuration, services, clock, output } = context;
  const read = readCertificates(configuration, services, clock.nowMs());
  if (read.errors.length > 0) throw configuration.problemError(read.errors);
  for (const { file, line, column, path, message } of read.warnings) {
    output.warn(`${file}:${line}:${column} ${path}: ${message}`);
  }
  return read.certificates;
}

function readEnvironments(context: CommandContext): Map<string, Map<string, string>> {
  const names = context.services.flatMap((service) => service.environment.secretNames);
  const secrets = context.configuration.resolveSecrets(names);
  const environments = new Map(
    context.services.map((service) => [service.name, serviceEnvironment(service, secrets)]),
  );
  for (const service of context.services) refuseLineBreaks(service, environments);
  return environments;
}

/** Engines read an environment file line by line. Source: docker-run(1), podman-run(1), --env-file. */
function refuseLineBreaks(
  service: ServiceConfiguration,
  environments: ReadonlyMap<string, ReadonlyMap<string, string>>,
): void {
  for (const [name, value] of environments.get(service.name) ?? []) {
    if (!/[\r\n\0]/.test(value)) continue;
    throw new JijiError(
      `${service.positionOf(["environment"])} services.${service.name}: the value of ${name} has ` +
        "several lines, which an environment variable of a container cannot hold",
      {
        hint: "ship it as a file (files:), or encode it, e.g. with base64",
        serving: "nothing was changed",
      },
    );
  }
}
