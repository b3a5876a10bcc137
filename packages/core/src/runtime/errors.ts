/** Facts any jiji error may carry beside its message. */
export interface JijiErrorOptions {
  /** What to do next, one sentence. */
  readonly hint?: string;
  /** What is still serving, or what was left untouched, one or more lines. */
  readonly serving?: string;
  readonly cause?: unknown;
}

/** An expected failure: it has a code for machines, an exit code, and says what to do next. */
export class JijiError extends Error {
  /** Stable word for `--json`. */
  readonly code: string = "error";
  /** Exit code of the process; documented in docs/cli.md. */
  readonly exitCode: number = 1;
  readonly hint: string | undefined;
  readonly serving: string | undefined;

  /** @param message what failed and where, without a final period. */
  constructor(message: string, options: JijiErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.hint = options.hint;
    this.serving = options.serving;
  }
}

/** Wrong option or argument on the command line. */
export class UsageError extends JijiError {
  override readonly code: string = "usage";
  override readonly exitCode: number = 2;
}

/** Which part of reaching a host failed. */
export type ConnectionPhase = "dns" | "tcp" | "hostkey" | "auth" | "timeout" | "lost";

/** A host could not be reached or refused us. */
export class ConnectionError extends JijiError {
  override readonly code: string = "connection";
  override readonly exitCode: number = 4;
  readonly host: string;
  readonly phase: ConnectionPhase;

  /** @param host the address that was tried, as the configuration writes it. */
  constructor(
    message: string,
    options: JijiErrorOptions & { readonly host: string; readonly phase: ConnectionPhase },
  ) {
    super(message, options);
    this.host = options.host;
    this.phase = options.phase;
  }
}

/** Someone else holds the project's lock. */
export class LockHeldError extends JijiError {
  override readonly code: string = "locked";
  override readonly exitCode: number = 5;
  readonly holder: string;
  readonly sinceMs: number;

  /** @param holder who has it, e.g. `ana@laptop: deploy`; sinceMs is Unix ms. */
  constructor(
    message: string,
    options: JijiErrorOptions & { readonly holder: string; readonly sinceMs: number },
  ) {
    super(message, options);
    this.holder = options.holder;
    this.sinceMs = options.sinceMs;
  }
}

/** What is known of a command that failed. */
export interface FailedCommand {
  readonly host: string;
  readonly argv: readonly string[];
  /** Exit code, or undefined when a signal or a time-out ended it. */
  readonly exitCode: number | undefined;
  readonly signal?: string;
  readonly stderrTail: string;
  readonly durationMs: number;
}

/** A remote command that had to succeed did not. */
export class RemoteCommandError extends JijiError {
  override readonly code: string = "command";
  override readonly exitCode: number = 6;
  readonly command: FailedCommand;

  /** @param message which step failed; the command's facts are added after it. */
  constructor(message: string, command: FailedCommand, options: JijiErrorOptions = {}) {
    super(`${message} (${renderFailedCommand(command)})`, options);
    this.command = command;
  }
}

/** One line with host, command and how it ended. */
export function renderFailedCommand(command: FailedCommand): string {
  const program = command.argv.join(" ");
  const shown = program.length > 160 ? `${program.slice(0, 157)}...` : program;
  const end = command.exitCode !== undefined
    ? `exit ${command.exitCode}`
    : command.signal
    ? `killed by ${command.signal}`
    : `no answer in ${Math.round(command.durationMs / 1000)} s`;
  const stderr = command.stderrTail.trim().split("\n").slice(-20).join("\n");
  return `${command.host}: ${shown}: ${end}${stderr ? `: ${stderr}` : ""}`;
}

/** A new container did not get healthy; the old one was kept. */
export class HealthGateError extends JijiError {
  override readonly code: string = "unhealthy";
  override readonly exitCode: number = 7;
}

/** Some hosts or services failed, others did not. */
export class PartialFailureError extends JijiError {
  override readonly code: string = "partial";
  override readonly exitCode: number = 8;
}

/** A bug of ours: something that cannot be was. */
export class InvariantError extends JijiError {
  override readonly code: string = "bug";
  override readonly exitCode: number = 70;
}

/** Text of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
