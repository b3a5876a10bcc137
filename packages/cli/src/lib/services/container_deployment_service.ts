import {
  assertNever,
  type CommandResult,
  isOk,
  JijiError,
  PROXY_CONTAINER,
  PROXY_VOLUME,
  renderHealthyLine,
  SERVER_PATHS,
  type ServerConfig,
} from "@jiji/core";
import { ENGINE_TIMEOUT_MS, PULL_TIMEOUT_MS } from "../../constants.ts";
import type { DeployStep, DesiredService } from "../../types/deployment.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { type AuditEntry, auditFile, renderAuditLine } from "../../utils/audit.ts";
import { commandError } from "../../utils/remote.ts";
import {
  argvPull,
  argvRemove,
  argvRename,
  argvStart,
  argvStop,
  type EngineName,
} from "../engine/engine_commands.ts";
import { argvDeployRoute } from "../engine/proxy_commands.ts";
import { shipCertificates, shipFiles } from "./file_shipping.ts";
import { gateError } from "../health/health_gate.ts";
import { ProxyService, verifyRoute } from "./proxy_service.ts";
import { releaseArguments, renderRelease } from "../deployment/release_records.ts";
import { runBatch } from "../deployment/step_batch.ts";
import { HEALTHY_LOOK_MS, type ScriptStep } from "../deployment/step_script.ts";

/** Where steps are done. */
export interface StepPlace {
  readonly host: RemoteHost;
  readonly config: ServerConfig;
  /** See {@link ObservedHost.proxyFolder}. */
  readonly proxyFolder: string | undefined;
  readonly service: DesiredService;
  /** Content of the environment file of the service whose steps these are. */
  readonly environment: ReadonlyMap<string, string>;
  /** What the audit log is told of a server's part; status and version are added. */
  readonly audit: Pick<AuditEntry, "action" | "version">;
  readonly nowMs: number;
  readonly signal: AbortSignal;
}

/** What is told of each step. */
export interface StepListener {
  begin(step: DeployStep): void;
  end(step: DeployStep): void;
  /** A step that may fail failed. */
  missed(step: DeployStep, error: unknown): void;
  /** A line that a release command wrote. */
  line(step: DeployStep, text: string): void;
}

/** Steps that have to be done by this program, not by a script on the server. */
type LocalStep = DeployStep & {
  readonly kind: "installProxy" | "shipFiles" | "shipCertificates";
};

function isLocal(step: DeployStep): step is LocalStep {
  return ["installProxy", "shipFiles", "shipCertificates"].includes(step.kind);
}

type RemoteStep = Exclude<DeployStep, LocalStep>;

/**
 * The running daemon checks a new container at once and says so without a program being started for
 * it; after this long a probe of our own finds out more, milliseconds.
 */
const TOLD_WAIT_MS = 1_000;

/** The proxy checks a target this long before it refuses a switch, milliseconds. */
const PROXY_DEPLOY_TIMEOUT_MS = 30_000;

/** Container lifecycle on one server: does the steps of a plan, decides nothing. */
export class ContainerDeploymentService {
  readonly #place: StepPlace;
  readonly #engine: EngineName;
  readonly #proxy: ProxyService;

  /** One per service and server. */
  constructor(place: StepPlace) {
    this.#place = place;
    this.#engine = place.config.engine;
    this.#proxy = new ProxyService(place.host, place.config, place.signal);
  }

  /**
   * Does steps in their order, those that need nothing of this machine in one round trip.
   *
   * @throws {HealthGateError} when a container does not get healthy; {RemoteCommandError} when a
   * command fails.
   */
  async apply(steps: readonly DeployStep[], listener: StepListener): Promise<void> {
    let rest = [...steps];
    while (rest.length > 0) {
      const [first] = rest;
      if (first && isLocal(first)) {
        listener.begin(first);
        await this.#local(first);
        listener.end(first);
        rest = rest.slice(1);
        continue;
      }
      const until = rest.findIndex(isLocal);
      const batch = rest.slice(0, until < 0 ? rest.length : until) as RemoteStep[];
      const done = await this.#batch(batch, listener);
      rest = rest.slice(done);
    }
  }

  async #local(step: LocalStep): Promise<void> {
    const { host, signal } = this.#place;
    switch (step.kind) {
      case "installProxy":
        return await this.#proxy.install(step.address);
      case "shipFiles":
        return await shipFiles(host, step, signal);
      case "shipCertificates":
        return await shipCertificates(host, step, { engine: this.#engine, signal });
      default:
        return assertNever(step);
    }
  }

  /** One round trip; gives how many steps are behind it. */
  async #batch(steps: readonly RemoteStep[], listener: StepListener): Promise<number> {
    const { host, signal } = this.#place;
    const results = await runBatch(host, steps.map((step) => this.#scriptStep(step)), {
      timeoutMs: steps.reduce((sum, step) => sum + timeoutOf(step), 0),
      signal,
      isInterruptible: (index) => isInterruptible(steps[index]!),
      onEvent: (event) => {
        const step = steps[event.step];
        if (!step) return;
        if (event.kind === "begin") listener.begin(step);
        if (event.kind === "output" && step.kind === "runRelease") listener.line(step, event.line);
        const ended = event.kind === "end" && event.exitCode === 0;
        if (ended && step.kind !== "routeProxy") listener.end(step);
      },
    });
    for (const [index, result] of results.entries()) {
      const step = steps[index]!;
      const error = this.#verdict(step, result);
      if (error === undefined && (step.kind === "routeProxy" || !isOk(result))) listener.end(step);
      if (error !== undefined && !("bestEffort" in step)) throw error;
      if (error !== undefined) listener.missed(step, error);
    }
    return results.length;
  }

  /** What is wrong with how a step ended; undefined when it did what it was to do. */
  #verdict(step: RemoteStep, result: CommandResult): JijiError | undefined {
    const { host } = this.#place;
    if (step.kind === "healthGate" && !isOk(result)) {
      const { service, environment } = this.#place;
      return gateError(host, { ...step, result, service, environment });
    }
    if (step.kind === "routeProxy" && isOk(result)) {
      return verifyRoute(host, step, result.stdout);
    }
    if (isOk(result)) return undefined;
    const missing = /no such container|no container with name or id/i;
    const gone = (step.kind === "stopContainer" || step.kind === "removeContainer") &&
      missing.test(result.stderr);
    if (gone || (step.kind === "removeRoute" && /service not found/.test(result.stderr))) {
      return undefined;
    }
    if (step.kind === "runRelease") return releaseError(host, step, result);
    return commandError(host, this.#shown(step), { what: `${failureOf(step)}`, result });
  }

  /** The command of a step as an error shows it. */
  #shown(step: RemoteStep): readonly [string, ...string[]] {
    if (step.kind === "startContainer") return [this.#engine, "run", step.name];
    return this.#scriptStep(step).argv;
  }

  #scriptStep(step: RemoteStep): ScriptStep {
    const engine = this.#engine;
    const { host, environment, audit, service, nowMs, proxyFolder } = this.#place;
    const plain = (argv: ScriptStep["argv"]): ScriptStep => ({ argv, bestEffort: false });
    const secretFile = (path: string) => ({ path, content: renderEnvironment(environment) });
    switch (step.kind) {
      case "pullImage": {
        const pull = argvPull(engine, step.image, step);
        return plain(step.always ? pull : ["pull_missing", engine, step.image, ...pull]);
      }
      case "renameContainer":
        return plain(argvRename(engine, step.from, step.to));
      case "startContainer":
        return { ...plain(step.argv), secretFile: secretFile(step.envFile) };
      case "runRelease": {
        const seconds = String(Math.ceil(step.timeoutMs / 1000));
        const argv = ["run_release", engine, step.name, seconds, ...step.argv] as const;
        return { ...plain([...argv]), secretFile: secretFile(step.envFile) };
      }
      case "resumeContainer":
        return plain(argvStart(engine, step.name));
      case "healthGate": {
        const { name, timeoutMs, deployment } = step;
        const daemon = `${SERVER_PATHS.bin}/jiji-daemon`;
        const probe = (ms: number) => [daemon, "probe", name, "--timeout-ms", String(ms)] as const;
        if (deployment === undefined) return plain([...probe(timeoutMs)]);
        const told = Math.min(TOLD_WAIT_MS, Math.floor(timeoutMs / 2));
        const looks = String(Math.ceil(told / HEALTHY_LOOK_MS));
        const line = renderHealthyLine({ deployment, name });
        return plain(["await_healthy", line, looks, ...probe(timeoutMs - told)]);
      }
      case "routeProxy": {
        const times = { ...step, deployTimeoutMs: PROXY_DEPLOY_TIMEOUT_MS };
        const argv = argvDeployRoute(engine, step.route, times);
        return plain(["switch_route", engine, PROXY_VOLUME, proxyFolder ?? "", ...argv]);
      }
      case "removeRoute":
        return plain([
          "drain_route",
          engine,
          PROXY_CONTAINER,
          step.route,
          String(step.drainTimeoutMs),
        ]);
      case "stopContainer":
        return plain(argvStop(engine, step.name, step.graceSeconds));
      case "removeContainer":
        return plain(argvRemove(engine, step.name));
      case "removeImages":
        return { argv: [engine, "rmi", ...step.images], bestEffort: true };
      case "keepRelease": {
        const record = { format: 1, atMs: nowMs, service } as const;
        return {
          argv: ["keep_release", ...releaseArguments(service, step.file)],
          stdin: renderRelease({ ...record, environment: Object.fromEntries(environment) }),
          bestEffort: true,
        };
      }
      case "writeAudit":
        return {
          argv: ["append_line", auditFile(service.project)],
          stdin: renderAuditLine(host, { ...audit, status: "success", message: step.message }, {
            project: service.project,
            nowMs,
          }),
          bestEffort: true,
        };
      default:
        return assertNever(step);
    }
  }
}

/** Whether Ctrl-C may cut a step short: it only looks, or what it leaves half done harms nobody. */
function isInterruptible(step: DeployStep): boolean {
  return ["installProxy", "pullImage", "shipFiles", "shipCertificates", "healthGate", "runRelease"]
    .includes(step.kind);
}

/** How long a step may take, milliseconds. */
function timeoutOf(step: RemoteStep): number {
  switch (step.kind) {
    case "pullImage":
      return PULL_TIMEOUT_MS;
    case "healthGate":
    case "runRelease":
      return step.timeoutMs + ENGINE_TIMEOUT_MS;
    case "routeProxy":
      return PROXY_DEPLOY_TIMEOUT_MS + step.drainTimeoutMs + ENGINE_TIMEOUT_MS;
    case "removeRoute":
      return step.drainTimeoutMs + ENGINE_TIMEOUT_MS;
    case "stopContainer":
      return step.graceSeconds * 1000 + ENGINE_TIMEOUT_MS;
    case "startContainer":
      return ENGINE_TIMEOUT_MS * 2;
    default:
      return ENGINE_TIMEOUT_MS;
  }
}

function failureOf(step: RemoteStep): string {
  switch (step.kind) {
    case "pullImage":
      return `pulling ${step.image} failed`;
    case "renameContainer":
      return `renaming ${step.from} failed`;
    case "startContainer":
      return `starting ${step.name} failed`;
    case "resumeContainer":
      return `starting ${step.name} again failed`;
    case "healthGate":
      return `probing ${step.name} failed`;
    case "routeProxy":
      return `switching ${step.route.name} failed`;
    case "removeRoute":
      return `removing the route ${step.route} failed`;
    case "stopContainer":
      return `stopping ${step.name} failed`;
    case "removeContainer":
      return `removing ${step.name} failed`;
    case "runRelease":
      return `${step.name} failed`;
    case "removeImages":
      return "removing old images failed";
    case "keepRelease":
      return "keeping the release for rollback failed";
    case "writeAudit":
      return "writing the audit log failed";
    default:
      return assertNever(step);
  }
}

/** Lines of a failed release command that its error shows. */
const RELEASE_LINES = 30;

function releaseError(
  host: RemoteHost,
  step: DeployStep & { kind: "runRelease" },
  result: CommandResult,
): JijiError {
  const seconds = Math.round(step.timeoutMs / 1000);
  const ended = result.exitCode === 124 || result.exitCode === 137
    ? `did not end within ${seconds} s`
    : `ended with code ${result.exitCode ?? "unknown"}`;
  const lines = [result.stdout, result.stderr].join("\n").trim().split("\n").slice(-RELEASE_LINES);
  return new JijiError(
    `the release command of ${step.name.replace(/_release$/, "")} ${ended} on ${host.name}\n` +
      lines.map((line) => `    ${line}`).join("\n"),
    { hint: "no container was replaced; mend the command or what it works on" },
  );
}

/** Content of an environment file: `NAME=value` a line; no value has a line break (refused before). */
function renderEnvironment(environment: ReadonlyMap<string, string>): string {
  return [...environment].map(([name, value]) => `${name}=${value}\n`).join("");
}
