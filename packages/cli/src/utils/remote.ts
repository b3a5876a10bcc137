import { type Argv, type CommandResult, isOk, RemoteCommandError } from "@jiji/core";
import type { RemoteHost } from "../types/remote_host.ts";

/** Limits and input of a command that must succeed. */
export interface MustRunOptions {
  /** What the command is for, for the error: `pulling the image failed`. */
  readonly what: string;
  readonly timeoutMs: number;
  readonly stdin?: string;
  readonly signal?: AbortSignal;
}

/**
 * Runs a command that has to succeed and gives what it printed.
 *
 * @throws {RemoteCommandError} when it does not.
 */
export async function mustRun(
  host: RemoteHost,
  argv: Argv,
  options: MustRunOptions,
): Promise<string> {
  const result = await host.run(argv, {
    timeoutMs: options.timeoutMs,
    ...(options.stdin === undefined ? {} : { stdin: options.stdin }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  if (isOk(result)) return result.stdout;
  throw commandError(host, argv, { what: options.what, result });
}

/** The error for a command that ended with `result`. */
export function commandError(
  host: RemoteHost,
  argv: Argv,
  options: { readonly what: string; readonly result: CommandResult; readonly hint?: string },
): RemoteCommandError {
  const { result } = options;
  return new RemoteCommandError(`${options.what} on ${host.name}`, {
    host: host.address,
    argv,
    exitCode: result.exitCode,
    ...(result.signal === undefined ? {} : { signal: result.signal }),
    stderrTail: result.stderr || result.stdout,
    durationMs: result.durationMs,
  }, options.hint === undefined ? {} : { hint: options.hint });
}

/**
 * Runs a script that has to succeed. It travels over stdin, so nothing in it shows in a process
 * list; parameters go in as `$1`, `$2`.
 *
 * @throws {RemoteCommandError} when it does not.
 */
export function mustRunScript(
  host: RemoteHost,
  script: string,
  options: MustRunOptions & { readonly args?: readonly string[] },
): Promise<string> {
  return mustRun(host, ["sh", "-s", "--", ...(options.args ?? [])], { ...options, stdin: script });
}
