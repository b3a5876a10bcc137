import { messageOf, PartialFailureError } from "@jiji/core";
import { auditOrWarn } from "../utils/audit.ts";
import { type CommonOptions, type Ports, setupCommandContext } from "../utils/command_helpers.ts";

/** Options of `jiji server exec`. */
export interface ServerExecOptions extends CommonOptions {
  /** Limit of the command on each server, seconds; default 300. */
  readonly timeout?: string | undefined;
}

/**
 * `jiji server exec`: runs a command on every chosen server side by side; each line of output says
 * where it came from.
 *
 * @throws {PartialFailureError} naming the servers on which it failed or that were not reached.
 */
export async function serverExec(
  command: readonly string[],
  options: ServerExecOptions,
  ports: Ports,
): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const { output, signal } = context;
  const timeoutMs = (Number(options.timeout) || 300) * 1000;
  const [program = "true", ...args] = command;
  const failures = [...context.unreachable.values()].map(messageOf);
  const width = Math.max(0, ...[...context.hosts.keys()].map((name) => name.length));
  await Promise.all([...context.hosts].map(async ([name, host]) => {
    const lines = lineWriter((line) => output.line(`${name.padEnd(width)}  ${line}`));
    let failure: string | undefined;
    try {
      const { exitCode } = await host.stream([program, ...args], {
        timeoutMs,
        signal,
        onStdout: lines.take,
        onStderr: lines.take,
      });
      if (exitCode !== 0) failure = `${name}: ${program} ended with ${exitCode ?? "a signal"}`;
    } catch (error) {
      failure = messageOf(error);
    }
    lines.end();
    if (failure !== undefined) failures.push(failure);
    // Arguments may hold a secret: the log has the program's name alone.
    await auditOrWarn(context, host, {
      action: "server exec",
      status: failure === undefined ? "success" : "failed",
      message: program,
    });
  }));
  if (failures.length > 0) throw new PartialFailureError(failures.join("\n"));
}

/** Cuts pieces of text into lines. */
function lineWriter(write: (line: string) => void) {
  let rest = "";
  return {
    take: (text: string) => {
      const parts = (rest + text).split("\n");
      rest = parts.pop() ?? "";
      parts.forEach(write);
    },
    end: () => {
      if (rest !== "") write(rest);
    },
  };
}
