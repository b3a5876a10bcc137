import { join } from "node:path";
import {
  ConnectionError,
  HealthGateError,
  JijiError,
  messageOf,
  PartialFailureError,
  randomHex,
  systemProcess,
} from "@jiji/core";
import type { RemoteHost } from "../types/remote_host.ts";
import type { DeploymentPlan, DesiredService, ObservedHost } from "../types/deployment.ts";
import type { ServiceConfiguration } from "../lib/configuration/service.ts";
import { renderDuration } from "../lib/output/symbols.ts";
import { planDeployment } from "../lib/services/deployment_plan.ts";
import { renderPlanSteps, renderPlanSummary } from "../lib/services/deployment_plan_text.ts";
import { observeHost } from "../lib/services/deployment_observation.ts";
import {
  DeploymentOrchestrator,
  ENV_FOLDER,
  type InstanceOutcome,
  isIdle,
} from "../lib/services/deployment_orchestrator.ts";
import { desiredService, serviceEnvironment } from "../lib/services/desired_services.ts";
import { ImageShipping } from "../lib/services/image_shipping.ts";
import { writeAudit } from "../utils/audit.ts";
import {
  type CommandContext,
  type CommonOptions,
  headline,
  type Ports,
  setupCommandContext,
} from "../utils/command_helpers.ts";
import { chooseVersion, readGitState } from "../utils/git.ts";
import { withLock } from "../utils/lock.ts";

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
  await using context = await setupCommandContext(options, ports, {
    scope: "services",
    witnesses: true,
  });
  const { configuration, output, signal, clock } = context;
  refuseUnreachable(context, options);
  // Missing secrets stop everything before anything is built.
  const environments = readEnvironments(context);
  const git = await readGitState(systemProcess, configuration.projectRoot);
  const version = chooseVersion(options.version, git, clock.nowMs());
  output.note(headline(context, version));
  output.note("");
  await using _lock = options.plan
    ? noLock()
    : await withLock(context, { reason: "deploy", scope: "project" });
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
      })
    ),
  );
  const plan = planDeployment(desired, observed, {
    nowMs: clock.nowMs(),
    deployment: `${clock.nowMs().toString(36)}-${randomHex(4)}`,
    force: options.force ?? false,
    envFolder: ENV_FOLDER,
  });
  if (options.plan) return showPlan(context, plan);
  renderPlanSummary(plan).forEach((line) => output.note(line));
  if (isNothing(plan)) return nothingToDo(context, clock.monotonicMs() - startedMs);
  output.note("");
  await shipping.connect(hostsToChange(context, plan));
  const outcomes = await new DeploymentOrchestrator({
    hosts: context.hosts,
    witnesses: context.witnesses,
    observed,
    environments,
    onFailure: configuration.deploy.onFailure,
    maxParallel: configuration.deploy.maxParallel,
    clock,
    signal,
    emit: (event) => output.emit(event),
  }).run(plan);
  output.settle();
  await audit(context, outcomes, version);
  report(context, { outcomes, desired, version, durationMs: clock.monotonicMs() - startedMs });
}

function noLock(): AsyncDisposable {
  return { [Symbol.asyncDispose]: () => Promise.resolve() };
}

function cacheFolder(): string {
  const base = Deno.env.get("XDG_CACHE_HOME") || join(Deno.env.get("HOME") ?? "/tmp", ".cache");
  return join(base, "jiji");
}

function refuseUnreachable(context: CommandContext, options: DeployOptions): void {
  const { unreachable, output } = context;
  if (unreachable.size === 0) return;
  const names = [...unreachable.keys()].join(", ");
  const lines = [...unreachable.values()].map((error) => {
    const hint = error instanceof JijiError && error.hint ? `\n    ${error.hint}` : "";
    return `  ${messageOf(error)}${hint}`;
  });
  if (options.skipUnreachable && context.hosts.size > 0) {
    output.warn(`left out, since unreachable: ${names}; the next deploy catches up`);
    return;
  }
  const [first] = unreachable.values();
  throw new ConnectionError(`${names} can't be reached\n${lines.join("\n")}`, {
    host: names,
    phase: first instanceof ConnectionError ? first.phase : "tcp",
    serving: "nothing was changed anywhere",
    hint: `deploy without ${unreachable.size > 1 ? "them" : "it"}: jiji deploy --skip-unreachable`,
  });
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

async function observeAll(context: CommandContext): Promise<Map<string, ObservedHost>> {
  const { engine } = context.configuration.builder;
  const observed = await Promise.all(
    [...context.hosts.values()].map((host) => observeHost(host, engine, context.signal)),
  );
  return new Map(observed.map((host) => [host.name, host]));
}

function isNothing(plan: DeploymentPlan): boolean {
  return plan.services.every(({ instances }) => instances.every(isIdle));
}

function nothingToDo(context: CommandContext, durationMs: number): void {
  const { output } = context;
  if (output.json) return output.result({ changed: [], duration_ms: Math.round(durationMs) });
  const seconds = renderDuration(durationMs);
  output.success(`Nothing to do: everything runs as configured (checked in ${seconds}).`);
}

function showPlan(context: CommandContext, plan: DeploymentPlan): void {
  const { output } = context;
  if (output.json) return output.result(plan);
  if (isNothing(plan)) return output.line("nothing to do");
  renderPlanSummary(plan).forEach((line) => output.line(line));
  output.line("");
  renderPlanSteps(plan).forEach((line) => output.line(line));
}

function hostsToChange(context: CommandContext, plan: DeploymentPlan): RemoteHost[] {
  const names = new Set(
    plan.services.flatMap(({ instances }) =>
      instances.filter((instance) => !isIdle(instance)).map((instance) => instance.host)
    ),
  );
  return [...names].flatMap((name) => context.hosts.get(name) ?? []);
}

async function audit(
  context: CommandContext,
  outcomes: readonly InstanceOutcome[],
  version: string,
): Promise<void> {
  const changed = outcomes.filter((outcome) =>
    outcome.result !== "as is" && outcome.result !== "not tried"
  );
  const hosts = [...new Set(changed.map((outcome) => outcome.host))];
  await Promise.allSettled(hosts.map((name) => {
    const own = changed.filter((outcome) => outcome.host === name);
    const failed = own.some((outcome) => outcome.result !== "done");
    return writeAudit(context.hosts.get(name)!, {
      action: "deploy",
      status: failed ? "failed" : "success",
      message: own.map((outcome) => `${outcome.service}: ${outcome.result}`).join(", "),
      version,
    }, { project: context.configuration.project, nowMs: context.clock.nowMs() });
  }));
}

interface Report {
  readonly outcomes: readonly InstanceOutcome[];
  readonly desired: readonly DesiredService[];
  readonly version: string;
  readonly durationMs: number;
}

function report(context: CommandContext, facts: Report): void {
  const { output, signal } = context;
  if (output.json) {
    output.result({
      version: facts.version,
      instances: facts.outcomes.map(({ error, ...outcome }) => ({
        ...outcome,
        ...(error === undefined ? {} : { error: messageOf(error) }),
      })),
      duration_ms: Math.round(facts.durationMs),
    });
  }
  const failed = facts.outcomes.filter((outcome) => outcome.error !== undefined);
  if (failed.length > 0) throw failure(facts, failed, signal.aborted);
  if (output.json) return;
  const done = facts.outcomes.filter((outcome) => outcome.result === "done");
  const idle = facts.outcomes.filter((outcome) => outcome.result === "as is");
  const unchanged = idle.length > 0 ? ` Unchanged: ${perService(idle)}.` : "";
  output.success(
    `Deployed ${facts.version} in ${renderDuration(facts.durationMs)}: ${
      perService(done)
    }.${unchanged}`,
  );
}

/** `web on s1 s2, jobs on s3`. */
function perService(outcomes: readonly InstanceOutcome[]): string {
  const hosts = new Map<string, string[]>();
  for (const { service, host } of outcomes) {
    hosts.set(service, [...(hosts.get(service) ?? []), host]);
  }
  return [...hosts].map(([service, names]) => `${service} on ${names.join(" ")}`).join(", ");
}

function failure(
  facts: Report,
  failed: readonly InstanceOutcome[],
  interrupted: boolean,
): JijiError {
  const texts = interrupted ? ["interrupted; what had begun was put back"] : foldByHost(failed);
  const options = {
    serving: servingNow(facts.outcomes),
    hint: "mend what is named above and run jiji deploy again",
  };
  const message = texts.join("\n");
  const errors = failed.map((outcome) => outcome.error);
  if (errors.every((error) => error instanceof HealthGateError)) {
    return new HealthGateError(message, options);
  }
  return new PartialFailureError(message, options);
}

/** Equal failures on several servers are told once. */
function foldByHost(failed: readonly InstanceOutcome[]): string[] {
  const hosts = new Map<string, string[]>();
  for (const outcome of failed) {
    const text = messageOf(outcome.error).replaceAll(` on ${outcome.host}`, " on {hosts}");
    hosts.set(text, [...(hosts.get(text) ?? []), outcome.host]);
  }
  return [...hosts].map(([text, names]) => text.replaceAll("{hosts}", names.join(", ")));
}

/** Per service: which version serves where, so that nobody has to guess after a failure. */
export function servingNow(outcomes: readonly InstanceOutcome[]): string {
  const lines = new Map<string, string[]>();
  for (const outcome of outcomes) {
    const key = `${outcome.service} ${outcome.serving ?? "nothing"}`;
    const note = outcome.result === "put back" ? `${outcome.host} (put back)` : outcome.host;
    lines.set(key, [...(lines.get(key) ?? []), note]);
  }
  return [...lines].map(([key, hosts]) => `${key} on ${hosts.join(" ")}`).join("\n");
}
