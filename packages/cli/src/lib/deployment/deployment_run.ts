import {
  HealthGateError,
  JijiError,
  messageOf,
  PartialFailureError,
  randomHex,
  VERSION,
} from "@jiji/core";
import { renderDuration } from "../output/symbols.ts";
import { observeHost } from "./deployment_observation.ts";
import {
  DeploymentOrchestrator,
  ENV_FOLDER,
  type InstanceOutcome,
  isIdle,
} from "../services/deployment_orchestrator.ts";
import { planDeployment } from "./deployment_plan.ts";
import { UnhealthyContainerError } from "../health/health_gate.ts";
import { guardPlan } from "../refusals/plan_guard.ts";
import { renderPlanSteps, renderPlanSummary } from "../output/deployment_plan_text.ts";
import { hasService } from "./service_slots.ts";
import { findVersionSkew, renderSkewWarning, type VersionSkew } from "./version_skew.ts";
import type { DeploymentPlan, DesiredService, ObservedHost } from "../../types/deployment.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { writeAudit } from "../../utils/audit.ts";
import type { CommandContext } from "../../utils/command_helpers.ts";

/** What is to be deployed, rolled back to, or restarted. */
export interface DeploymentRun {
  /** For the audit log and the closing line. */
  readonly action: "deploy" | "rollback" | "restart" | "scale";
  readonly version: string;
  readonly desired: readonly DesiredService[];
  readonly observed: ReadonlyMap<string, ObservedHost>;
  /** Environment of each service by name. */
  readonly environments: ReadonlyMap<string, ReadonlyMap<string, string>>;
  /** Monotonic ms when the command began. */
  readonly startedMs: number;
  /** Replace even what is as it should be. */
  readonly force: boolean;
  /** Print the plan and stop. */
  readonly planOnly: boolean;
  /** Called with the servers that will pull an image, before anything changes. */
  readonly beforeApply?: (hosts: readonly RemoteHost[]) => Promise<void>;
}

/** What every connected server runs, in one round trip each. */
export async function observeAll(context: CommandContext): Promise<Map<string, ObservedHost>> {
  const { builder, project } = context.configuration;
  const what = { engine: builder.engine, project };
  const observed = await Promise.all(
    [...context.hosts.values()].map((host) => observeHost(host, what, context.signal)),
  );
  return new Map(observed.map((host) => [host.name, host]));
}

/**
 * The context with those further servers of the configuration on which a chosen service still runs
 * although it is no longer among its hosts: the deploy takes it away there. A server that does not
 * answer is left as it is.
 */
export async function withLeftBehind(context: CommandContext): Promise<CommandContext> {
  const { builder, project } = context.configuration;
  const what = { engine: builder.engine, project };
  const looked = await Promise.all(context.witnesses.map(async (host) => {
    try {
      const observed = await observeHost(host, what, context.signal);
      const has = context.services.some(({ name: service }) =>
        hasService({ project, service }, observed)
      );
      return { host, has };
    } catch {
      context.signal.throwIfAborted();
      return { host, has: false };
    }
  }));
  const behind = looked.filter(({ has }) => has).map(({ host }) => [host.name, host] as const);
  if (behind.length === 0) return context;
  return {
    ...context,
    hosts: new Map([...context.hosts, ...behind]),
    witnesses: looked.filter(({ has }) => !has).map(({ host }) => host),
  };
}

/**
 * Plan → print → apply → record → report: the one path on which containers are ever replaced.
 *
 * @throws {HealthGateError} when a version does not get healthy, {PartialFailureError} otherwise.
 */
export async function runDeployment(context: CommandContext, run: DeploymentRun): Promise<void> {
  const { configuration, output, signal, clock } = context;
  const { canaryWaitMs, onFailure, maxParallel } = configuration.deploy;
  // The way back, and more of what runs already, need no trial.
  const canary = run.action === "deploy" ? configuration.deploy.canary : [];
  await guardPlan(context, run);
  const skew = findVersionSkew(VERSION, run.observed.values());
  if (skew) output.warn(renderSkewWarning(skew));
  const plan = planDeployment(run.desired, run.observed, {
    nowMs: clock.nowMs(),
    deployment: `${clock.nowMs().toString(36)}-${randomHex(4)}`,
    force: run.force,
    release: run.action === "deploy",
    envFolder: ENV_FOLDER,
    canary,
  });
  if (run.planOnly) return showPlan(context, plan, skew);
  renderPlanSummary(plan).forEach((line) => output.note(line));
  if (isNothing(plan)) {
    return nothingToDo(context, { skew, durationMs: clock.monotonicMs() - run.startedMs });
  }
  output.note("");
  await run.beforeApply?.(hostsToPull(context, plan));
  const outcomes = await new DeploymentOrchestrator({
    hosts: context.hosts,
    witnesses: context.witnesses,
    observed: run.observed,
    environments: run.environments,
    onFailure,
    maxParallel,
    canary: { hosts: canary, waitMs: canaryWaitMs },
    audit: { action: run.action, version: run.version },
    clock,
    signal,
    emit: (event) => output.emit(event),
  }).run(plan);
  output.settle();
  await auditFailures(context, run, outcomes);
  report(context, { ...run, outcomes, skew, durationMs: clock.monotonicMs() - run.startedMs });
}

function isNothing(plan: DeploymentPlan): boolean {
  return plan.services.every(({ instances }) => instances.every(isIdle));
}

function nothingToDo(
  context: CommandContext,
  { skew, durationMs }: { readonly skew: VersionSkew | null; readonly durationMs: number },
): void {
  const { output } = context;
  if (output.json) {
    const duration_ms = Math.round(durationMs);
    return output.result({ changed: [], version_skew: skew, duration_ms });
  }
  const seconds = renderDuration(durationMs);
  output.success(`Nothing to do: everything runs as configured (checked in ${seconds}).`);
}

function showPlan(
  context: CommandContext,
  plan: DeploymentPlan,
  skew: VersionSkew | null,
): void {
  const { output } = context;
  if (output.json) return output.result({ ...plan, version_skew: skew });
  if (isNothing(plan)) return output.line("nothing to do");
  renderPlanSummary(plan).forEach((line) => output.line(line));
  output.line("");
  renderPlanSteps(plan).forEach((line) => output.line(line));
}

function hostsToPull(context: CommandContext, plan: DeploymentPlan): RemoteHost[] {
  const names = new Set(
    plan.services.flatMap(({ instances }) =>
      instances
        .filter(({ prepare }) => prepare.some((step) => step.kind === "pullImage"))
        .map((instance) => instance.host)
    ),
  );
  return [...names].flatMap((name) => context.hosts.get(name) ?? []);
}

/** What succeeded has written its line as a step of the plan. */
async function auditFailures(
  context: CommandContext,
  run: DeploymentRun,
  outcomes: readonly InstanceOutcome[],
): Promise<void> {
  const failed = outcomes.filter(({ result }) => result === "failed" || result === "put back");
  const hosts = [...new Set(failed.map((outcome) => outcome.host))];
  await Promise.allSettled(hosts.map((name) => {
    const own = failed.filter((outcome) => outcome.host === name);
    return writeAudit(context.hosts.get(name)!, {
      action: run.action,
      status: "failed",
      message: own.map((outcome) => `${outcome.service}: ${outcome.result}`).join(", "),
      version: run.version,
    }, { project: context.configuration.project, nowMs: context.clock.nowMs() });
  }));
}

interface Report extends DeploymentRun {
  readonly outcomes: readonly InstanceOutcome[];
  readonly skew: VersionSkew | null;
  readonly durationMs: number;
}

const DONE_WORDS = {
  deploy: "Deployed",
  rollback: "Rolled back to",
  restart: "Restarted",
  scale: "Scaled",
} as const;

function report(context: CommandContext, facts: Report): void {
  const { output, signal } = context;
  if (output.json) {
    output.result({
      version: facts.version,
      instances: facts.outcomes.map(({ error, ...outcome }) => ({
        ...outcome,
        ...(error === undefined ? {} : { error: messageOf(error) }),
        ...(error instanceof UnhealthyContainerError
          ? { diagnosis: error.diagnosis, probe: error.report }
          : {}),
      })),
      version_skew: facts.skew,
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
    `${DONE_WORDS[facts.action]} ${facts.version} in ${renderDuration(facts.durationMs)}: ${
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
    hint: [
      ...hintsOf(failed),
      facts.action === "deploy"
        ? "mend what is named above and run jiji deploy again"
        : "see what runs: jiji services list",
    ].join("\n"),
  };
  const message = texts.join("\n");
  const errors = failed.map((outcome) => outcome.error);
  if (errors.every((error) => error instanceof HealthGateError)) {
    return new HealthGateError(message, options);
  }
  return new PartialFailureError(message, options);
}

/** What the failures themselves advise, each once. */
function hintsOf(failed: readonly InstanceOutcome[]): string[] {
  const hints = failed.flatMap(({ error }) => error instanceof JijiError ? error.hint ?? [] : []);
  return [...new Set(hints)];
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
