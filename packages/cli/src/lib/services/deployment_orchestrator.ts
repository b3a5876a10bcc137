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
import { ContainerDeploymentService, type StepPlace } from "./container_deployment_service.ts";
import { awaitConvergence, type Straggler } from "../deployment/convergence_barrier.ts";
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
  /** Servers that go first, and how long they must stay healthy before the others follow. */
  readonly canary: { readonly hosts: readonly string[]; readonly waitMs: number };
  /** For the audit log. */
  readonly audit: StepPlace["audit"];
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
  readonly service: DesiredService;
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
        service,
        startedMs: this.#options.clock.monotonicMs(),
        error: undefined,
        began: false,
        switched: false,
        undone: false,
        tried: new Set<DeployStep>(),
        finished: new Set<DeployStep>(),
      }));
      if (!failed) await this.#deployService(service, runs);
      outcomes.push(...runs.map((run) => outcomeOf(run, { tried: !failed })));
      failed ||= runs.some((run) => run.error !== undefined);
    }
    return outcomes;
  }

  async #deployService(service: DesiredService, runs: readonly Run[]): Promise<void> {
    const changing = runs.filter((run) => !isIdle(run.plan));
    const keep = this.#options.onFailure === "keep";
    const going = () => changing.filter((run) => run.error === undefined);
    const waves = this.#waves(changing);
    let asked: AskedNames | undefined;
    for (const [number, wave] of waves.entries()) {
      if (number > 0) await this.#watchCanary(going().filter((run) => run.switched));
      const isLast = number === waves.length - 1;
      const stop = await this.#bringUp(wave, changing, () => {
        if (isLast) asked = this.#askEarly(going());
      });
      const failed = changing.some((run) => run.error !== undefined);
      // Whatever the policy, nothing goes further than a canary that failed.
      if (stop || (failed && number === 0 && wave.length < changing.length)) break;
    }
    const failed = changing.some((run) => run.error !== undefined);
    if (failed) asked?.cancel();
    if (failed && !keep) {
      await this.#parallel(going(), (run) => this.#undo(run), { quiet: true });
      return;
    }
    const done = going().filter((run) => run.switched);
    if (done.length === 0) return;
    const known = failed ? undefined : await asked?.stragglers;
    if (known === undefined || known.length > 0) await this.#barrier(done, service);
    await this.#parallel(done, async (run) => {
      await this.#phase(run, "retire");
      this.#done(run);
    });
  }

  /** The canaries of a service alone, then its other servers; one wave when it has no canary. */
  #waves(runs: readonly Run[]): Run[][] {
    const isCanary = (run: Run) => this.#options.canary.hosts.includes(run.plan.host);
    const waves = [runs.filter(isCanary), runs.filter((run) => !isCanary(run))];
    return waves.filter((wave) => wave.length > 0);
  }

  /** Brings a wave as far as its switch; whether the deploy of the service must stop there. */
  async #bringUp(
    wave: readonly Run[],
    all: readonly Run[],
    beforeSwitch: () => void,
  ): Promise<boolean> {
    const keep = this.#options.onFailure === "keep";
    const going = () => wave.filter((run) => run.error === undefined);
    for (const phase of ["recover", "prepare", "release", "start", "switch"] as const) {
      if (phase === "switch") beforeSwitch();
      await this.#parallel(going(), (run) => this.#phase(run, phase));
      const failed = all.filter((run) => run.error !== undefined && !run.undone);
      await this.#parallel(failed, (run) => this.#undo(run), { quiet: true });
      if (failed.length > 0 && (!keep || phase === "release")) return true;
    }
    return false;
  }

  /**
   * Looks once more after the wait: a canary that is unhealthy by then, or that has been started
   * again, has failed.
   */
  async #watchCanary(runs: readonly Run[]): Promise<void> {
    const { clock, emit, canary, signal } = this.#options;
    if (runs.length === 0) return;
    const seconds = Math.round(canary.waitMs / 1000);
    for (const run of runs) {
      const lane = laneOf(run.plan);
      emit({ kind: "notice", lane, message: `canary: watched for ${seconds} s before the others` });
    }
    await this.#parallel(runs, async (run) => {
      await clock.sleep(canary.waitMs, { signal });
      const gates = run.plan.start.filter((step) => step.kind === "healthGate")
        .map((step) => ({ ...step, deployment: undefined }));
      await this.#apply(run, { steps: gates, signal });
    });
    const failed = runs.filter((run) => run.error !== undefined);
    await this.#parallel(failed, (run) => this.#undo(run), { quiet: true });
  }

  #done(run: Run): void {
    const { clock, emit } = this.#options;
    const words: Partial<Record<InstancePlan["action"], string>> = {
      route: "routed",
      remove: "removed",
      "as is": "tidied up",
    };
    const summary = words[run.plan.action] ?? "serving";
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
    phase: "recover" | "prepare" | "release" | "start" | "switch" | "retire",
  ): Promise<void> {
    const steps = run.plan[phase];
    // Once a route has moved, going on to the end is the shortest way to a clean state.
    const isLate = phase === "retire" || phase === "switch";
    if (!isLate) this.#options.signal.throwIfAborted();
    if (phase === "start" && steps.length > 0) run.began = true;
    if (phase === "switch") {
      this.#options.signal.throwIfAborted();
      run.switched = true;
    }
    if (steps.length === 0) return;
    await this.#apply(run, {
      steps,
      signal: isLate ? UNINTERRUPTED : this.#options.signal,
    });
  }

  async #apply(
    run: Run,
    work: { readonly steps: readonly DeployStep[]; readonly signal: AbortSignal },
  ): Promise<void> {
    const { clock, emit, hosts, observed, environments, audit } = this.#options;
    const lane = laneOf(run.plan);
    let current: { readonly step: DeployStep; readonly startedMs: number } | undefined;
    try {
      await new ContainerDeploymentService({
        host: hosts.get(run.plan.host)!,
        config: observed.get(run.plan.host)!.config,
        proxyFolder: observed.get(run.plan.host)!.proxyFolder,
        service: run.service,
        environment: environments.get(run.plan.service) ?? new Map(),
        audit,
        nowMs: clock.nowMs(),
        signal: work.signal,
      }).apply(work.steps, {
        begin: (step) => {
          current = { step, startedMs: clock.monotonicMs() };
          run.tried.add(step);
          if (isBookkeeping(step)) return;
          emit({ kind: "started", lane, title: renderStep(step).doing });
        },
        end: (step) => {
          run.finished.add(step);
          if (isBookkeeping(step)) return;
          const title = renderStep(step);
          const durationMs = clock.monotonicMs() - (current?.startedMs ?? 0);
          emit({ kind: "finished", lane, title: title.doing, detail: title.done, durationMs });
        },
        missed: (step, error) => {
          emit({ kind: "notice", lane, message: `${renderStep(step).doing}: ${messageOf(error)}` });
        },
        line: (_, text) => emit({ kind: "notice", lane, message: text }),
      });
    } catch (error) {
      const message = messageOf(error).split("\n")[0] ?? "";
      if (current) emit({ kind: "failed", lane, title: renderStep(current.step).doing, message });
      throw error;
    }
  }

  /** Undoing must work after Ctrl-C too, so it has a signal of its own. */
  async #undo(run: Run): Promise<void> {
    if (run.undone) return;
    run.undone = true;
    if (!run.began && !run.switched) return;
    const { emit } = this.#options;
    const signal = AbortSignal.timeout(UNDO_TIMEOUT_MS);
    let rest = run.plan.undo.filter((step) => isToUndo(step, run));
    while (rest.length > 0) {
      const done = run.finished.size;
      try {
        await this.#apply(run, { steps: rest, signal });
        return;
      } catch (error) {
        // The other steps are still worth doing; the next deploy finds what is left by its labels.
        emit({ kind: "notice", lane: laneOf(run.plan), message: messageOf(error) });
        rest = rest.slice(run.finished.size - done + 1);
      }
    }
  }

  /**
   * Names follow the health of containers, not the route: unless a place goes without a successor,
   * every server can be asked while the route moves. Undefined when it must be asked afterwards.
   */
  #askEarly(runs: readonly Run[]): AskedNames | undefined {
    const onlyRoutes = runs.every((run) =>
      run.plan.switch.every((step) => step.kind === "routeProxy")
    );
    if (!onlyRoutes) return undefined;
    const { hosts, witnesses } = this.#options;
    const stop = new AbortController();
    const stragglers = awaitConvergence(
      [...hosts.values(), ...witnesses],
      runs.flatMap((run) => run.plan.expect),
      AbortSignal.any([stop.signal, AbortSignal.timeout(UNDO_TIMEOUT_MS)]),
    );
    stragglers.catch(() => undefined);
    return { stragglers, cancel: () => stop.abort() };
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

/** A question to every server's jiji-dns that is under way. */
interface AskedNames {
  readonly stragglers: Promise<readonly Straggler[]>;
  cancel(): void;
}

/** The signal of steps that Ctrl-C does not cut short; they have their own time limits. */
const UNINTERRUPTED = new AbortController().signal;

/** Steps of milliseconds that are told only when they fail. */
function isBookkeeping(step: DeployStep): boolean {
  return step.kind === "keepRelease" || step.kind === "writeAudit";
}

/** Whether a step of the undoing has anything to undo; before the rename the name is the old one's. */
function isToUndo(step: DeployStep, run: Run): boolean {
  const renames = [...run.plan.start, ...run.plan.switch].filter((candidate) =>
    candidate.kind === "renameContainer"
  );
  switch (step.kind) {
    case "routeProxy":
    case "removeRoute":
      return run.switched;
    case "removeContainer":
      return renames.every((rename) => rename.from !== step.name || run.finished.has(rename));
    case "renameContainer":
      return renames.some((rename) => rename.to === step.from && run.tried.has(rename));
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
  const { recover, prepare, start, retire } = plan;
  return recover.length + prepare.length + start.length + plan.switch.length + retire.length === 0;
}

function outcomeOf(
  run: Run,
  facts: { readonly tried: boolean },
): InstanceOutcome {
  const { plan } = run;
  const base = { service: plan.service, host: plan.host, error: run.error };
  const version = plan.action === "remove" ? undefined : run.service.version;
  if (isIdle(plan)) return { ...base, result: "as is", serving: plan.before };
  if (!facts.tried) return { ...base, result: "not tried", serving: plan.before };
  if (run.error !== undefined) {
    return { ...base, result: "failed", serving: run.undone ? plan.before : version };
  }
  if (!run.undone && !run.switched) return { ...base, result: "not tried", serving: plan.before };
  if (run.undone) {
    const begun = run.began || run.switched;
    return { ...base, result: begun ? "put back" : "not tried", serving: plan.before };
  }
  return { ...base, result: "done", serving: version };
}
