import { type Clock, messageOf, SERVER_PATHS } from "@jiji/core";
import pLimit from "p-limit";
import { DNS_TTL_MS } from "../../constants.ts";
import type {
  DeploymentPlan,
  DeployStep,
  DesiredService,
  InstancePlan,
  ObservedHost,
} from "../../types/deployment.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import type { Emit } from "../output/events.ts";
import { ContainerDeploymentService } from "./container_deployment_service.ts";
import { awaitConvergence } from "./convergence_barrier.ts";
import { renderStep } from "../output/deployment_plan_text.ts";

/** Folder of environment files while a container starts; on tmpfs. */
export const ENV_FOLDER: string = `${SERVER_PATHS.run}/env`;

/** What carrying out a plan needs. */
export interface OrchestratorOptions {
  readonly hosts: ReadonlyMap<string, RemoteHost>;
  /** Reachable servers without part in this deploy: their containers call its services too. */
  readonly witnesses: readonly RemoteHost[];
  readonly observed: ReadonlyMap<string, ObservedHost>;
  /** Environment of each service by name. */
  readonly environments: ReadonlyMap<string, ReadonlyMap<string, string>>;
  readonly onFailure: "rollback" | "keep";
  /** Servers worked on at once. */
  readonly maxParallel: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly emit: Emit;
}

/** How it ended for one service on one server. */
export interface InstanceOutcome {
  readonly service: string;
  readonly host: string;
  readonly result: "as is" | "done" | "failed" | "put back" | "not tried";
  /** Version that serves there now, as far as is known. */
  readonly serving: string | undefined;
  readonly error: unknown;
}

/** One instance on its way. */
interface Run {
  readonly plan: InstancePlan;
  /** Monotonic ms. */
  readonly startedMs: number;
  error: unknown;
  began: boolean;
  switched: boolean;
  undone: boolean;
  /** Steps of the plan that were begun, and those that came to their end. */
  readonly tried: Set<DeployStep>;
  readonly finished: Set<DeployStep>;
}

/**
 * Carries out a plan: services one after the other, each on all its servers side by side. New
 * containers get healthy everywhere before any route moves, and no old container goes before every
 * route has moved and every reachable jiji-dns knows. After a failed service the rest is not tried.
 */
export class DeploymentOrchestrator {
  readonly #options: OrchestratorOptions;

  /** Nothing runs before {@link DeploymentOrchestrator.run}. */
  constructor(options: OrchestratorOptions) {
    this.#options = options;
  }

  /** Outcomes of all instances; failures are values here. */
  async run(plan: DeploymentPlan): Promise<InstanceOutcome[]> {
    const outcomes: InstanceOutcome[] = [];
    let failed = false;
    for (const { service, instances } of plan.services) {
      const runs = instances.map((instance) => ({
        plan: instance,
        startedMs: this.#options.clock.monotonicMs(),
        error: undefined,
        began: false,
        switched: false,
        undone: false,
        tried: new Set<DeployStep>(),
        finished: new Set<DeployStep>(),
      }));
      if (!failed) await this.#deployService(service, runs);
      outcomes.push(...runs.map((run) => outcomeOf(run, { service, tried: !failed })));
      failed ||= runs.some((run) => run.error !== undefined);
    }
    return outcomes;
  }

  async #deployService(service: DesiredService, runs: readonly Run[]): Promise<void> {
    const changing = runs.filter((run) => !isIdle(run.plan));
    const keep = this.#options.onFailure === "keep";
    const going = () => changing.filter((run) => run.error === undefined);
    const phases = ["recover", "prepare", "start", "switch"] as const;
    for (const phase of phases) {
      await this.#parallel(going(), (run) => this.#phase(run, phase));
      const failed = changing.filter((run) => run.error !== undefined && !run.undone);
      await this.#parallel(failed, (run) => this.#undo(run), { quiet: true });
      if (failed.length > 0 && !keep) {
        await this.#parallel(going(), (run) => this.#undo(run), { quiet: true });
        return;
      }
    }
    if (going().length === 0) return;
    await this.#barrier(going(), service);
    await this.#parallel(going(), async (run) => {
      await this.#phase(run, "retire");
      this.#done(run);
    });
  }

  #done(run: Run): void {
    const { clock, emit } = this.#options;
    const summary = run.plan.action === "route" ? "routed" : "serving";
    const durationMs = clock.monotonicMs() - run.startedMs;
    emit({ kind: "done", lane: laneOf(run.plan), summary, durationMs });
  }

  async #parallel(
    runs: readonly Run[],
    work: (run: Run) => Promise<void>,
    options: { readonly quiet?: boolean } = {},
  ): Promise<void> {
    const limit = pLimit(this.#options.maxParallel);
    await Promise.all(runs.map((run) =>
      limit(async () => {
        try {
          await work(run);
        } catch (error) {
          if (!options.quiet) run.error = error;
        }
      })
    ));
  }

  async #phase(
    run: Run,
    phase: "recover" | "prepare" | "start" | "switch" | "retire",
  ): Promise<void> {
    for (const step of run.plan[phase]) {
      // Once a route has moved, going on to the end is the shortest way to a clean state.
      if (!run.switched && phase !== "retire") this.#options.signal.throwIfAborted();
      if (phase === "start") run.began = true;
      if (phase === "switch") run.switched = true;
      run.tried.add(step);
      await this.#step(run, step, isInterruptible(step) ? this.#options.signal : UNINTERRUPTED);
      run.finished.add(step);
    }
  }

  async #step(run: Run, step: DeployStep, signal: AbortSignal): Promise<void> {
    const { clock, emit, hosts, observed, environments } = this.#options;
    const lane = laneOf(run.plan);
    const title = renderStep(step);
    const startedMs = clock.monotonicMs();
    emit({ kind: "started", lane, title: title.doing });
    const service = new ContainerDeploymentService({
      host: hosts.get(run.plan.host)!,
      config: observed.get(run.plan.host)!.config,
      environment: environments.get(run.plan.service) ?? new Map(),
      signal,
    });
    try {
      await service.apply(step);
    } catch (error) {
      if ("bestEffort" in step) {
        emit({ kind: "notice", lane, message: `${title.doing}: ${messageOf(error)}` });
        return;
      }
      const message = messageOf(error).split("\n")[0] ?? "";
      emit({ kind: "failed", lane, title: title.doing, message });
      throw error;
    }
    const durationMs = clock.monotonicMs() - startedMs;
    emit({ kind: "finished", lane, title: title.doing, detail: title.done, durationMs });
  }

  /** Undoing must work after Ctrl-C too, so it has a signal of its own. */
  async #undo(run: Run): Promise<void> {
    if (run.undone) return;
    run.undone = true;
    if (!run.began && !run.switched) return;
    const { emit } = this.#options;
    const signal = AbortSignal.timeout(UNDO_TIMEOUT_MS);
    for (const step of run.plan.undo) {
      if (!isToUndo(step, run)) continue;
      try {
        await this.#step(run, step, signal);
      } catch (error) {
        // The other steps are still worth doing; the next deploy finds what is left by its labels.
        emit({ kind: "notice", lane: laneOf(run.plan), message: messageOf(error) });
      }
    }
  }

  async #barrier(runs: readonly Run[], service: DesiredService): Promise<void> {
    const { clock, emit, hosts, witnesses } = this.#options;
    const expectations = runs.flatMap((run) => run.plan.expect);
    const signal = AbortSignal.timeout(UNDO_TIMEOUT_MS);
    const stragglers = await awaitConvergence(
      [...hosts.values(), ...witnesses],
      expectations,
      signal,
    );
    for (const { host, reason } of stragglers) {
      emit({
        kind: "notice",
        lane: host,
        message: `jiji-dns did not follow in time (${reason}); ` +
          `old containers of ${service.service} stay ${DNS_TTL_MS / 1000} s longer`,
      });
    }
    if (stragglers.length > 0) await clock.sleep(DNS_TTL_MS);
  }
}

/** The signal of steps that Ctrl-C does not cut short; they have their own time limits. */
const UNINTERRUPTED = new AbortController().signal;

/**
 * Whether Ctrl-C may cut a step short: it only looks, or what it leaves half done harms nobody. Any
 * other is waited for, since undoing must know what it did.
 */
function isInterruptible(step: DeployStep): boolean {
  return ["installProxy", "pullImage", "shipFiles", "healthGate"].includes(step.kind);
}

/** Whether a step of the undoing has anything to undo; before the rename the name is the old one's. */
function isToUndo(step: DeployStep, run: Run): boolean {
  const renames = run.plan.start.filter((candidate) => candidate.kind === "renameContainer");
  switch (step.kind) {
    case "routeProxy":
      return run.switched;
    case "removeContainer":
      return renames.every((rename) => run.finished.has(rename));
    case "renameContainer":
      return renames.some((rename) => run.tried.has(rename));
    default:
      return true;
  }
}

/** Undoing and converging together take seconds; past this something hangs, milliseconds. */
const UNDO_TIMEOUT_MS = 120_000;

function laneOf(plan: InstancePlan): string {
  return `${plan.host} ${plan.service}`;
}

/** Whether nothing at all is to be done. */
export function isIdle(plan: InstancePlan): boolean {
  return plan.recover.length + plan.prepare.length + plan.start.length + plan.switch.length === 0;
}

function outcomeOf(
  run: Run,
  facts: { readonly service: DesiredService; readonly tried: boolean },
): InstanceOutcome {
  const { plan } = run;
  const base = { service: plan.service, host: plan.host, error: run.error };
  const { version } = facts.service;
  if (isIdle(plan)) return { ...base, result: "as is", serving: plan.before };
  if (!facts.tried) return { ...base, result: "not tried", serving: plan.before };
  if (run.error !== undefined) {
    return { ...base, result: "failed", serving: run.undone ? plan.before : version };
  }
  if (run.undone) {
    const begun = run.began || run.switched;
    return { ...base, result: begun ? "put back" : "not tried", serving: plan.before };
  }
  return { ...base, result: "done", serving: version };
}
