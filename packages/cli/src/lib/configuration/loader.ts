import { dirname, isAbsolute, join, resolve } from "node:path";
import { type Process, systemProcess } from "@jiji/core/runtime";
import { loadEnvFile } from "../../utils/env_loader.ts";
import { ConfigError } from "./config_issue.ts";
import { Configuration, shownPath } from "./configuration.ts";
import { ConfigDocument } from "./format/document.ts";
import { secretReferences } from "../secrets/secret_references.ts";
import { SecretsConfiguration } from "./secret_adapters.ts";
import { SecretSource } from "./secrets.ts";

/** Where to look for the configuration and what it may read. */
export interface LoadOptions {
  /** Absolute; the search starts here and goes up. */
  readonly cwd: string;
  /** `--config`: relative to cwd. */
  readonly configFile?: string | undefined;
  /** `--environment`. */
  readonly environment?: string | undefined;
  /** `--host-env`: secrets may come from this process's environment. */
  readonly hostEnv: boolean;
  /** This process's environment; asked from the system when absent. */
  readonly env?: Readonly<Record<string, string>>;
  /** Runs the command of a secret adapter. */
  readonly process?: Process;
}

/** Names of environments: part of file names. */
const ENVIRONMENT_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** Files to look for in each folder, in order, relative to it. Pure. */
export function configCandidates(environment: string | undefined): string[] {
  const withEnvironment = environment === undefined ? [] : [
    `.jiji/deploy.${environment}`,
    `.jiji/${environment}`,
    `.jiji/jiji.${environment}`,
    `jiji.${environment}`,
  ];
  const names = environment === undefined ? [".jiji/deploy"] : withEnvironment;
  return names.flatMap((name) => [`${name}.yml`, `${name}.yaml`]);
}

/** Finds and reads the configuration. */
export class ConfigurationLoader {
  /**
   * Searches upward from `cwd`, parses the file it finds and the env file beside it, and asks the
   * secret adapter if there is one. Only the syntax is looked at; call
   * {@link Configuration.validate} for the rest.
   *
   * @throws {ConfigError} when no file is found, or it is not YAML.
   */
  static async load(options: LoadOptions): Promise<Configuration> {
    const { cwd, environment } = options;
    if (environment !== undefined && !ENVIRONMENT_NAME.test(environment)) {
      throw new ConfigError(`${JSON.stringify(environment)} is not the name of an environment`, {
        hint: "letters, digits, dots, - and _",
      });
    }
    const path = options.configFile === undefined
      ? await findConfig(cwd, environment)
      : resolve(cwd, options.configFile);
    const document = ConfigDocument.parse(shownPath(path, cwd), await readConfig(path, cwd));
    const projectRoot = rootOf(path);
    const env = options.env ?? Deno.env.toObject();
    const secretsPath = document.at(["secrets_path"]);
    const envFile = await loadEnvFile({
      projectRoot,
      ...(environment === undefined ? {} : { environment }),
      ...(typeof secretsPath === "string" ? { secretsPath } : {}),
    });
    const source = {
      fileValues: envFile.values,
      lookedIn: envFile.lookedIn.map((file) => isAbsolute(file) ? shownPath(file, cwd) : file),
      hostValues: env,
      hostAllowed: options.hostEnv,
    };
    const place = { document, projectRoot, environmentName: environment, home: env["HOME"] };
    const section = new SecretsConfiguration({ ...place, secrets: new SecretSource(source) });
    const adapter = await readAdapter(section, {
      wanted: secretReferences(document.value).map(({ name }) => name)
        .filter((name) => !Object.hasOwn(envFile.values, name)),
      given: document.at(["secrets"]) !== undefined,
      process: options.process ?? systemProcess,
      env,
    });
    const secrets = new SecretSource({
      ...source,
      ...(adapter === undefined ? {} : { adapter }),
    });
    return new Configuration({ ...place, secrets, envFile: envFile.file });
  }
}

interface AdapterWish {
  /** Names that the env file does not have. */
  readonly wanted: readonly string[];
  readonly given: boolean;
  readonly process: Process;
  readonly env: Readonly<Record<string, string>>;
}

/** Asks the adapter once, and only when the env file lacks something that the configuration names. */
async function readAdapter(
  section: SecretsConfiguration,
  wish: AdapterWish,
): Promise<{ name: string; values: Readonly<Record<string, string>> } | undefined> {
  // A malformed section is told with every other problem of the file.
  if (!wish.given || wish.wanted.length === 0 || section.issues().length > 0) return undefined;
  const { adapter, project, config } = section;
  return { name: adapter.name, values: await adapter.read({ project, config }, wish) };
}

/** The folder that holds `.jiji`; for a file elsewhere, its own folder. */
function rootOf(path: string): string {
  const folder = dirname(path);
  return folder.endsWith("/.jiji") ? dirname(folder) : folder;
}

async function findConfig(cwd: string, environment: string | undefined): Promise<string> {
  const candidates = configCandidates(environment);
  const folders: string[] = [];
  for (let folder = resolve(cwd);; folder = dirname(folder)) {
    folders.push(folder);
    for (const candidate of candidates) {
      const path = join(folder, candidate);
      if (await isFile(path)) return path;
    }
    if (dirname(folder) === folder) break;
  }
  const what = environment === undefined
    ? "no configuration found"
    : `no configuration found for environment ${environment}`;
  throw new ConfigError(
    `${what}: looked for ${candidates.join(", ")} in ${folders.join(", ")}`,
    {
      hint: environment === undefined
        ? "write one with: jiji init"
        : `write one with: jiji init --environment ${environment}`,
    },
  );
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) {
      return false;
    }
    throw new ConfigError(`${path} can't be looked at: ${(error as Error).message}`);
  }
}

async function readConfig(path: string, cwd: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    const reason = error instanceof Deno.errors.NotFound ? "there is no such file" : String(error);
    throw new ConfigError(`${shownPath(path, cwd)} can't be read: ${reason}`, {
      hint: "name another file with --config, or write one with: jiji init",
    });
  }
}
