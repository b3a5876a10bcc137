import { type CommandResult, randomHex } from "@jiji/core";
import type { RemoteHost } from "../../types/remote_host.ts";
import {
  renderStepScript,
  type ScriptEvent,
  ScriptReader,
  type ScriptStep,
  splitErrors,
} from "./step_script.ts";

/** Limits and listeners of a batch. */
export interface BatchOptions {
  /** Limit for all of them, milliseconds. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Whether the signal may cut this step short; others are let finish. */
  isInterruptible(step: number): boolean;
  /** Called while the script runs. */
  onEvent(event: ScriptEvent): void;
}

/** Standard error is kept up to here; what a failed command says last is what tells. */
const STDERR_CHARS_MAX = 256_000;

/**
 * Runs steps as one script on a server. Gives the results of those that began, in their order; a
 * step that began and has no exit code was cut off by the time limit.
 *
 * @throws {ConnectionError} phase `lost` when the connection goes away, or the signal's reason.
 */
export async function runBatch(
  host: RemoteHost,
  steps: readonly ScriptStep[],
  options: BatchOptions,
): Promise<CommandResult[]> {
  const { signal } = options;
  const mark = `jiji-${randomHex(12)}`;
  const cut = new AbortController();
  const reader = new ScriptReader(mark);
  const outputs: string[][] = [];
  const codes: (number | undefined)[] = [];
  let stderr = "";
  const onAbort = () => {
    if (outputs.length === 0 || options.isInterruptible(outputs.length - 1)) {
      cut.abort(signal.reason);
    }
  };
  const onEvent = (event: ScriptEvent) => {
    if (event.kind === "begin") {
      outputs[event.step] = [];
      if (signal.aborted) onAbort();
    } else if (event.kind === "output") outputs[event.step]?.push(event.line);
    else codes[event.step] = event.exitCode;
    options.onEvent(event);
  };
  signal.throwIfAborted();
  signal.addEventListener("abort", onAbort);
  let exitCode: number | undefined;
  try {
    const end = await host.stream(["sh", "-s", "--", mark], {
      timeoutMs: options.timeoutMs,
      stdin: renderStepScript(steps, mark),
      signal: cut.signal,
      onStdout: (text) => reader.read(text).forEach(onEvent),
      onStderr: (text) => stderr = (stderr + text).slice(-STDERR_CHARS_MAX),
    });
    exitCode = end.exitCode;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
  const errors = splitErrors(stderr, mark);
  const result = (index: number): CommandResult => ({
    exitCode: codes[index],
    signal: undefined,
    stdout: outputs[index]?.join("\n") ?? "",
    stderr: errors.get(index)?.trim() ?? "",
    durationMs: 0,
  });
  if (outputs.length > 0) return outputs.map((_, index) => result(index));
  // The script itself did not run: its end is the first step's.
  return [{ ...result(0), exitCode: exitCode || undefined, stderr: stderr.trim() }];
}
