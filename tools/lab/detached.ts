/** Starting programs that outlive the command that starts them. */
import { runCommand } from "../prepare/command.ts";
import { type CgroupLayout, ensureGroup, shellJoinGroup } from "./cgroups.ts";

/** A program to start. */
export interface DetachedProgram {
  /** Control group it runs in, so that it can be found again. */
  readonly group: string;
  /** File for what it prints. */
  readonly log: string;
  /** Shell commands that end in `exec PROGRAM …`. */
  readonly script: string;
  /** Network namespace file to run in; without it, the one of the caller. */
  readonly network?: string;
  /** Whether it stays in the machine's own mount namespace. */
  readonly sharesMounts?: boolean;
}

/** Quotes a word for a POSIX shell. */
export function shellQuote(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** Quotes an argument list for a POSIX shell. */
export function shellWords(argv: readonly string[]): string {
  return argv.map(shellQuote).join(" ");
}

/**
 * Starts a program in a session, control group and mount namespace of its own: Ctrl-C at the
 * terminal does not reach it, and mounts it makes end with it.
 */
export async function startDetached(
  layout: CgroupLayout,
  program: DetachedProgram,
): Promise<void> {
  await ensureGroup(layout, program.group);
  const script = [
    "set -e",
    `exec </dev/null >>${shellQuote(program.log)} 2>&1`,
    shellJoinGroup(layout, program.group),
    program.script,
  ].join("\n");
  const network = program.network === undefined ? [] : ["nsenter", `--net=${program.network}`];
  const mounts = program.sharesMounts ? [] : ["unshare", "--mount", "--propagation", "slave"];
  await runCommand(["setsid", "--fork", ...network, ...mounts, "sh", "-c", script]);
}
