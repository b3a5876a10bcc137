import {
  assertNever,
  type CommandResult,
  HealthGateError,
  isOk,
  JijiError,
  parseProbeReport,
  type ProbeReport,
  randomHex,
  SERVER_PATHS,
  type ServerConfig,
} from "@jiji/core";
import { ENGINE_TIMEOUT_MS, PULL_TIMEOUT_MS, UPLOAD_TIMEOUT_MS } from "../../constants.ts";
import type { DeployStep, ShippedFile } from "../../types/deployment.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { commandError, mustRun } from "../../utils/remote.ts";
import {
  argvPull,
  argvRemove,
  argvRename,
  argvStart,
  argvStop,
  type EngineName,
} from "../engine/engine_commands.ts";
import { PruneService } from "./image_prune_service.ts";
import { ProxyService } from "./proxy_service.ts";

/** Where steps are done. */
export interface StepPlace {
  readonly host: RemoteHost;
  readonly config: ServerConfig;
  /** Content of the environment file of the service whose steps these are. */
  readonly environment: ReadonlyMap<string, string>;
  readonly signal: AbortSignal;
}

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
   * Does one step.
   *
   * @throws {HealthGateError} when a container does not get healthy; {RemoteCommandError} when a
   * command fails.
   */
  async apply(step: DeployStep): Promise<void> {
    switch (step.kind) {
      case "installProxy":
        return await this.#proxy.install(step.address);
      case "pullImage":
        return await this.#pull(step);
      case "shipFiles":
        return await this.#ship(step.files);
      case "renameContainer":
        return await this.#run(
          "renaming a container failed",
          argvRename(this.#engine, step.from, step.to),
        );
      case "startContainer":
        return await this.#start(step);
      case "resumeContainer":
        return await this.#run("starting a container failed", argvStart(this.#engine, step.name));
      case "healthGate":
        return await this.#gate(step.name, step.timeoutMs);
      case "routeProxy":
        return await this.#proxy.route(step);
      case "removeRoute":
        return await this.#proxy.removeRoute(step.route);
      case "stopContainer":
        return await this.#stop(step);
      case "removeContainer":
        return await this.#remove(step.name);
      case "pruneImages":
        return await new PruneService(this.#place.host, this.#engine).prune(step);
      default:
        return assertNever(step);
    }
  }

  async #run(what: string, argv: readonly [string, ...string[]]): Promise<void> {
    const { host, signal } = this.#place;
    await mustRun(host, argv, { what, timeoutMs: ENGINE_TIMEOUT_MS, signal });
  }

  async #pull(step: DeployStep & { kind: "pullImage" }): Promise<void> {
    const { host, signal } = this.#place;
    if (!step.always) {
      const argv = [this.#engine, "image", "inspect", "--format", "{{.Id}}", step.image] as const;
      if (isOk(await host.run(argv, { timeoutMs: ENGINE_TIMEOUT_MS, signal }))) return;
    }
    await mustRun(host, argvPull(this.#engine, step.image), {
      what: `pulling ${step.image} failed`,
      timeoutMs: PULL_TIMEOUT_MS,
      signal,
    });
  }

  async #ship(files: readonly ShippedFile[]): Promise<void> {
    const { host, signal } = this.#place;
    const folders = [...new Set(files.map((file) => file.remote.replace(/\/[^/]*$/, "")))];
    await mustRun(host, ["mkdir", "-p", ...folders], {
      what: "making folders for files failed",
      timeoutMs: ENGINE_TIMEOUT_MS,
      signal,
    });
    for (const file of files) {
      await host.upload({ path: file.local }, file.remote, {
        mode: file.mode,
        timeoutMs: UPLOAD_TIMEOUT_MS,
      });
      if (file.owner !== undefined) {
        await this.#run(`giving ${file.remote} to ${file.owner} failed`, [
          "chown",
          file.owner,
          file.remote,
        ]);
      }
    }
  }

  /**
   * One round trip: the environment goes over stdin into a 0600 file on tmpfs that is gone once the
   * engine has read it.
   */
  async #start(step: DeployStep & { kind: "startContainer" }): Promise<void> {
    const { host, environment, signal } = this.#place;
    const result = await host.run(["sh", "-s", "--", step.envFile, ...step.argv], {
      timeoutMs: ENGINE_TIMEOUT_MS * 2,
      stdin: renderStartScript(environment),
      signal,
    });
    if (isOk(result)) return;
    throw commandError(host, [this.#engine, "run", step.name], {
      what: `starting ${step.name} failed`,
      result,
    });
  }

  async #stop(step: DeployStep & { kind: "stopContainer" }): Promise<void> {
    const { host, signal } = this.#place;
    const argv = argvStop(this.#engine, step.name, step.graceSeconds);
    const timeoutMs = step.graceSeconds * 1000 + ENGINE_TIMEOUT_MS;
    const result = await host.run(argv, { timeoutMs, signal });
    if (isOk(result) || isMissing(result)) return;
    throw commandError(host, argv, { what: `stopping ${step.name} failed`, result });
  }

  async #remove(name: string): Promise<void> {
    const { host, signal } = this.#place;
    const argv = argvRemove(this.#engine, name);
    const result = await host.run(argv, { timeoutMs: ENGINE_TIMEOUT_MS, signal });
    if (isOk(result) || isMissing(result)) return;
    throw commandError(host, argv, { what: `removing ${name} failed`, result });
  }

  async #gate(name: string, timeoutMs: number): Promise<void> {
    const { host, signal } = this.#place;
    const argv = [
      `${SERVER_PATHS.bin}/jiji-daemon`,
      "probe",
      name,
      "--timeout-ms",
      String(timeoutMs),
    ] as const;
    const result = await host.run(argv, { timeoutMs: timeoutMs + ENGINE_TIMEOUT_MS, signal });
    if (isOk(result)) return;
    throw gateError(host, { name, timeoutMs, result });
  }
}

/**
 * Script that starts a container: `$1` is the path of the environment file, the rest the engine's
 * command. Values stand in a quoted here-document, which the shell takes as they are; none has a
 * line break (refused before), so none can end it.
 */
export function renderStartScript(environment: ReadonlyMap<string, string>): string {
  const end = `END_${randomHex(16)}`;
  const lines = [...environment].map(([name, value]) => `${name}=${value}\n`).join("");
  return `set -eu
umask 077
file=$1; shift
mkdir -p "$(dirname "$file")"
trap 'rm -f "$file"' EXIT
cat >"$file" <<'${end}'
${lines}${end}
"$@"
`;
}

/** The engines' words for a container that is not there: what we wanted. */
function isMissing(result: CommandResult): boolean {
  return /no such container|no container with name or id/i.test(result.stderr);
}

function gateError(
  host: RemoteHost,
  facts: { readonly name: string; readonly timeoutMs: number; readonly result: CommandResult },
): JijiError {
  let report: ProbeReport;
  try {
    report = parseProbeReport(facts.result.stdout);
  } catch {
    return commandError(host, ["jiji-daemon", "probe", facts.name], {
      what: `probing ${facts.name} failed`,
      result: facts.result,
    });
  }
  const { running, restarts } = report.state;
  const seconds = Math.round(facts.timeoutMs / 1000);
  const ended = restarts > 0
    ? "crashes when it starts"
    : running
    ? `did not get healthy in ${seconds} s`
    : "ended by itself";
  return new HealthGateError(
    `${facts.name} on ${host.name} ${ended}\n${renderProbeReport(report)}`,
  );
}

/** The evidence, indented: last answers, state, last lines. */
export function renderProbeReport(report: ProbeReport): string {
  const { state } = report;
  const last = report.tries.at(-1);
  const same = report.tries.filter((attempt) => attempt.outcome === last?.outcome).length;
  const container = state.running
    ? `running, restarted ${state.restarts} times`
    : `exited with code ${state.exit_code ?? "unknown"}${
      state.oom_killed ? ", out of memory" : ""
    }`;
  const logs = report.logs_tail.trim().split("\n").slice(-10).join("\n                ");
  return [
    `    probe       ${
      last ? `${last.outcome} (${same} of the last ${report.tries.length} tries)` : "none"
    }`,
    `    container   ${container}`,
    `    last lines  ${logs || "(none)"}`,
  ].join("\n");
}
