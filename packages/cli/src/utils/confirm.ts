import { JijiError, UsageError } from "@jiji/core";

/** How a question is put. */
export interface ConfirmOptions {
  /** What will happen, lines shown before the question. */
  readonly lines: readonly string[];
  /** Text that must be typed; `yes` for ordinary things, a name for destructive ones. */
  readonly word: string;
  /** `--yes` was given. */
  readonly yes: boolean;
}

/**
 * Asks before something is taken away. Nothing but the word itself is a yes.
 *
 * @throws {UsageError} without a terminal and without `--yes`; {JijiError} when the answer is no.
 */
export function confirmOrStop(options: ConfirmOptions): void {
  if (options.yes) return;
  if (!Deno.stdin.isTerminal() || !Deno.stderr.isTerminal()) {
    throw new UsageError("this needs a yes, and there is no terminal to ask at", {
      hint: "add --yes to do it without asking",
      serving: "nothing was changed",
    });
  }
  const answer = prompt([...options.lines, `Type ${options.word} to go on:`].join("\n"));
  if (answer?.trim() === options.word) return;
  throw new JijiError("stopped: the answer was not yes", { serving: "nothing was changed" });
}
