/**
 * bin/lab. Commands that become another program (run, shell, on) print its argument list, each word
 * ended by NUL, for bin/lab to execute in this process's place.
 */
import { prepare } from "../prepare/prepare.ts";
import { LAB_THINGS } from "../prepare/prepare.ts";
import { parseNames } from "../prepare/main.ts";
import { writeError, writeOut } from "../prepare/progress.ts";
import { boot, cut, down, heal, kill, leftovers, planOn, planRun, status, up } from "./commands.ts";
import { labPaths, parseLabName } from "./names.ts";
import { HELP, LabUsageError, parseUp, renderHelp } from "./usage.ts";

function writeWords(words: readonly string[]): void {
  writeOut(words.map((word) => `${word}\0`).join(""));
}

/** Runs one command of bin/lab and returns its exit code. */
async function main(args: readonly string[]): Promise<number> {
  const [command, ...rest] = args;
  if (command === undefined || command === "help" || command === "--help" || command === "-h") {
    writeOut(renderHelp(rest[0]));
    return command === undefined ? 2 : 0;
  }
  if (!HELP[command]) throw new LabUsageError(`there is no command "${command}"`);
  const ownWords = rest.slice(0, rest.indexOf("--") < 0 ? rest.length : rest.indexOf("--"));
  const asksHelp = ["run", "on"].includes(command) ? ownWords.slice(0, 1) : ownWords;
  if (asksHelp.includes("--help") || asksHelp.includes("-h")) {
    const words = command === "run" || command === "on" || command === "shell";
    if (words) writeWords(["printf", "%s", renderHelp(command)]);
    else writeOut(renderHelp(command));
    return 0;
  }
  const paths = labPaths(parseLabName(Deno.env.get("JIJI_LAB") || "default"));
  switch (command) {
    case "up":
      await up(paths, parseUp(rest));
      return 0;
    case "run":
      writeWords(await planRun(paths, rest));
      return 0;
    case "shell":
      writeWords(await planRun(paths, [Deno.env.get("SHELL") || "bash"]));
      return 0;
    case "on":
      writeWords(await planOn(paths, rest));
      return 0;
    case "cut":
      await cut(paths, rest);
      return 0;
    case "heal":
      await heal(paths);
      return 0;
    case "kill":
      await kill(paths, rest);
      return 0;
    case "boot":
      await boot(paths, rest);
      return 0;
    case "status":
      await status(paths, rest);
      return 0;
    case "down":
      await down(paths, rest);
      return 0;
    case "prepare":
      await prepare(rest.length > 0 ? parseNames(rest) : [...LAB_THINGS, "packages"]);
      return 0;
    case "leftovers":
      return await leftovers();
    default:
      throw new LabUsageError(`there is no command "${command}"`);
  }
}

if (import.meta.main) {
  try {
    Deno.exit(await main(Deno.args));
  } catch (error) {
    const usage = error instanceof LabUsageError;
    writeError(`bin/lab: ${error instanceof Error ? error.message : String(error)}\n`);
    if (usage) writeError(`See bin/lab --help.\n`);
    Deno.exit(usage ? 2 : 1);
  }
}
