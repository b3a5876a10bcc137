import { join } from "node:path";
import { isOk, JijiError, type Process } from "@jiji/core";

/** Moments of a deploy at which the project may run a program of its own. */
export const HOOKS = [
  "pre-connect",
  "pre-build",
  "pre-deploy",
  "post-deploy",
  "on-failure",
] as const;

/** A moment of a deploy; also the file name in `.jiji/hooks/`. */
export type HookName = typeof HOOKS[number];

/** What a hook is told, as environment variables `JIJI_*`; never a secret. */
export interface HookFacts {
  readonly project: string;
  readonly environment: string | undefined;
  readonly version: string | undefined;
  /** Names of the services and servers concerned. */
  readonly services: readonly string[];
  readonly servers: readonly string[];
  /** Text of the failure, for `on-failure`. */
  readonly error?: string;
}

/** Where hooks run. */
export interface HookOptions {
  readonly process: Process;
  readonly projectRoot: string;
  readonly signal: AbortSignal;
  /** Shows what a hook printed. */
  readonly note: (line: string) => void;
}

/** A hook may build or test, but not for ever, milliseconds. */
const HOOK_TIMEOUT_MS = 30 * 60_000;

/** Environment of a hook. */
export function hookEnvironment(name: HookName, facts: HookFacts): Record<string, string> {
  return {
    JIJI_HOOK: name,
    JIJI_PROJECT: facts.project,
    JIJI_ENVIRONMENT: facts.environment ?? "",
    JIJI_VERSION: facts.version ?? "",
    JIJI_SERVICES: facts.services.join(","),
    JIJI_SERVERS: facts.servers.join(","),
    ...(facts.error === undefined ? {} : { JIJI_ERROR: facts.error }),
  };
}

/**
 * Runs `.jiji/hooks/NAME` when the project has it, in the project's root. What a hook prints is
 * shown; its failure stops what comes after it.
 *
 * @throws {JijiError} when the hook ends with anything but 0.
 */
export async function runHook(
  name: HookName,
  facts: HookFacts,
  options: HookOptions,
): Promise<void> {
  const path = join(options.projectRoot, ".jiji", "hooks", name);
  if (!await isExecutable(path)) return;
  const pairs = Object.entries(hookEnvironment(name, facts)).map(([key, value]) =>
    `${key}=${value}`
  );
  const script = 'cd "$1" && shift && exec env "$@"';
  const argv = ["sh", "-c", script, "sh", options.projectRoot, ...pairs, path] as const;
  const result = await options.process.run(argv, {
    timeoutMs: HOOK_TIMEOUT_MS,
    signal: options.signal,
  });
  const lines = (result.stdout + result.stderr).split("\n").filter(Boolean);
  lines.forEach((line) => options.note(`  ${name}  ${line}`));
  if (isOk(result)) return;
  throw new JijiError(
    `the hook .jiji/hooks/${name} ended with ${result.exitCode ?? result.signal ?? "a time-out"}`,
    { hint: "what it printed stands above; mend it and run jiji deploy again" },
  );
}

/**
 * A file that is there but may not be executed is surely meant to run.
 *
 * @throws {JijiError} for such a file.
 */
async function isExecutable(path: string): Promise<boolean> {
  try {
    const info = await Deno.stat(path);
    if (!info.isFile) return false;
    if (((info.mode ?? 0o111) & 0o111) !== 0) return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
  throw new JijiError(`the hook ${path} is not executable`, { hint: `chmod +x ${path}` });
}
