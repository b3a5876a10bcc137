import { JijiError } from "@jiji/core";
import { observeAll } from "../lib/deployment/deployment_run.ts";
import { oneContainer, serviceContainers } from "../lib/services/service_targets.ts";
import { auditOrWarn } from "../utils/audit.ts";
import { type CommonOptions, type Ports, setupCommandContext } from "../utils/command_helpers.ts";

/** A one-off command may take long, e.g. a migration: milliseconds. */
const EXEC_TIMEOUT_MS = 6 * 3_600_000;

/** Options of `jiji services exec`. */
export interface ExecOptions extends CommonOptions {
  /** As `services list` shows it. */
  readonly instance?: string | undefined;
}

/** A command inside a container ended with a code of its own; jiji ends with the same. */
export class ExecError extends JijiError {
  override readonly code: string = "exec";
  override readonly exitCode: number;

  /** @param exitCode of the command. */
  constructor(message: string, exitCode: number) {
    super(message);
    this.exitCode = exitCode;
  }
}

/**
 * `jiji services exec`: runs a command in the one running container that matches.
 *
 * @throws {UsageError} when none or several match, {ExecError} with the command's own exit code.
 */
export async function servicesExec(
  command: readonly string[],
  options: ExecOptions,
  ports: Ports,
): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "services" });
  const { engine } = context.configuration.builder;
  const found = serviceContainers(context, await observeAll(context));
  const target = oneContainer(found, options.instance);
  const { host, container } = target;
  context.output.note(`${container.name} on ${host.name}`);
  const { exitCode } = await host.stream([engine, "exec", container.name, ...command], {
    timeoutMs: EXEC_TIMEOUT_MS,
    signal: context.signal,
    onStdout: (text) => context.output.raw(text),
    onStderr: (text) => context.output.rawError(text),
  });
  // Arguments may hold a secret: the log has the program's name alone.
  await auditOrWarn(context, host, {
    action: "services exec",
    status: exitCode === 0 ? "success" : "failed",
    message: `${container.name}: ${command[0]}`,
  });
  if (exitCode === 0) return;
  throw new ExecError(
    `${command[0]} in ${container.name} on ${host.name} ended with ${exitCode ?? "a signal"}`,
    exitCode ?? 1,
  );
}
