import { isAbsolute, join } from "node:path";
import * as util from "node:util";
import { JijiError } from "@jiji/core/runtime";

/** Node's own parser. The type package that ssh2's types bring along is older than it. */
const { parseEnv } = util as unknown as {
  parseEnv(text: string): Record<string, string | undefined>;
};

/** Which env file to look for. */
export interface EnvFileOptions {
  readonly projectRoot: string;
  readonly environment?: string;
  /** `secrets_path` of the configuration, relative to the project root. */
  readonly secretsPath?: string;
}

/** What an env file gave. */
export interface EnvFile {
  /** Absolute path of the file that was read; undefined when there is none. */
  readonly file: string | undefined;
  readonly values: Readonly<Record<string, string>>;
  /** Names of the files that were looked for, relative to the project. */
  readonly lookedIn: readonly string[];
  /** Lines that may not mean what they look like. */
  readonly warnings: readonly string[];
}

/** Env files to look for, in order; the first that exists is the only one read. Pure. */
export function envFileCandidates(options: EnvFileOptions): string[] {
  const base = options.secretsPath ?? ".env";
  return options.environment === undefined ? [base] : [`${base}.${options.environment}`, base];
}

/**
 * Variables of an env file, and a warning for each unquoted `#` directly after text: what follows
 * it is cut off as a comment. Pure.
 */
export function parseEnvFile(text: string, file: string): Pick<EnvFile, "values" | "warnings"> {
  const warnings = text.split("\n").flatMap((line, index) => {
    const match = /^\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*([^\s"'`#][^#]*[^\s#])#/.exec(line);
    return match === null ? [] : [
      `${file}:${index + 1}: ${match[1]} is cut off at its # sign; put the value in quotes`,
    ];
  });
  const values: Record<string, string> = {};
  for (const [name, value] of Object.entries(parseEnv(text))) {
    if (value !== undefined) values[name] = value;
  }
  return { values, warnings };
}

/**
 * Reads the project's env file, if there is one.
 *
 * @throws {JijiError} when a file is there but can't be read.
 */
export async function loadEnvFile(options: EnvFileOptions): Promise<EnvFile> {
  const lookedIn = envFileCandidates(options);
  for (const name of lookedIn) {
    const path = isAbsolute(name) ? name : join(options.projectRoot, name);
    try {
      return { file: path, lookedIn, ...parseEnvFile(await Deno.readTextFile(path), name) };
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) continue;
      throw new JijiError(`${path} can't be read: ${(error as Error).message}`, { cause: error });
    }
  }
  return { file: undefined, values: {}, lookedIn, warnings: [] };
}
