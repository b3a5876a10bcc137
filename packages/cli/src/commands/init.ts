import { dirname, join } from "node:path";
import { JijiError } from "@jiji/core/runtime";
import { shownPath } from "../lib/configuration/configuration.ts";

/** Where and what to write. */
export interface InitOptions {
  /** Absolute; `.jiji` is made here. */
  readonly cwd: string;
  /** Writes `deploy.<environment>.yml`. */
  readonly environment?: string | undefined;
  /** Overwrite an existing file. */
  readonly force?: boolean | undefined;
}

/** Where init speaks. */
export interface InitOutput {
  write(line: string): void;
  /** Asks before overwriting; absent off a terminal. */
  confirm?(question: string): Promise<boolean>;
}

/** A starter configuration that is valid as it stands. Pure. */
export function renderStarter(project: string): string {
  return `# What runs where. Every key is described in jiji.yml of the jiji sources.
project: ${project}

builder:
  engine: docker # or podman; on this machine and on the servers

ssh:
  user: root # or a user that may use sudo without a password
  # key_path: ~/.ssh/id_ed25519   # else the agent and your default keys are tried

servers:
  s1:
    host: 203.0.113.11 # name or address of your server
  # s2:
  #   host: 203.0.113.12

# Secrets are named here and have their values in the file .env, which you keep out of git.
# environment:
#   secrets:
#     - DATABASE_URL

services:
  web:
    build: . # a folder with a Dockerfile; or \`image: nginx:1.29\`
    hosts: [s1]
    ports:
      - 3000 # where the program listens
    proxy:
      app_port: 3000
      # host: www.example.com   # without a host name, every request leads here
      # ssl: true               # certificates are got automatically; needs a host name
      healthcheck:
        path: /up # must answer 200 once the program is ready
`;
}

/** A project name made of a folder's name. Pure. */
export function projectNameOf(folder: string): string {
  const name = folder.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "");
  return name.slice(0, 50).replace(/-+$/, "") || "app";
}

/**
 * Writes a starter configuration and says what comes next.
 *
 * @returns the path written.
 * @throws {JijiError} when there is one already and nobody agreed to overwrite it.
 */
export async function init(options: InitOptions, output: InitOutput): Promise<string> {
  const { cwd, environment, force = false } = options;
  if (environment !== undefined && !/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(environment)) {
    throw new JijiError(`${JSON.stringify(environment)} is not the name of an environment`, {
      hint: "letters, digits, dots, - and _",
    });
  }
  const name = environment === undefined ? "deploy.yml" : `deploy.${environment}.yml`;
  const path = join(cwd, ".jiji", name);
  const shown = shownPath(path, cwd);
  const others = await existingConfigs(join(cwd, ".jiji"));
  const overwrite = others.includes(name);
  if (overwrite && !force && !await output.confirm?.(`${shown} exists. Overwrite it?`)) {
    throw new JijiError(`${shown} exists already; nothing was written`, {
      hint: "edit it, or overwrite it with: jiji init --force",
    });
  }
  await writeWhole(path, renderStarter(projectNameOf(cwd.split("/").pop() ?? "")));
  output.write(`✓ ${overwrite ? "Overwrote" : "Wrote"} ${shown}`);
  const kept = others.filter((other) => other !== name);
  if (kept.length > 0) output.write(`  Untouched beside it: ${kept.join(", ")}`);
  const flag = environment === undefined ? "" : ` --environment ${environment}`;
  output.write("");
  output.write("Next:");
  output.write(`  1. edit ${shown}: your servers, your service`);
  output.write(`  2. jiji server init${flag}   prepares the servers`);
  output.write(`  3. jiji deploy${flag}        builds and starts the service`);
  return path;
}

async function existingConfigs(folder: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const entry of Deno.readDir(folder)) {
      if (/\.ya?ml$/.test(entry.name)) names.push(entry.name);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) {
      throw new JijiError(`${folder} can't be read: ${(error as Error).message}`);
    }
  }
  return names.sort();
}

/** To a temporary name and renamed, so that a full disk leaves the old file. */
async function writeWhole(path: string, text: string): Promise<void> {
  const temporary = `${path}.${crypto.randomUUID()}.tmp`;
  try {
    await Deno.mkdir(dirname(path), { recursive: true });
    await Deno.writeTextFile(temporary, text);
    await Deno.rename(temporary, path);
  } catch (error) {
    await Deno.remove(temporary).catch(() => undefined);
    throw new JijiError(`${path} can't be written: ${(error as Error).message}`, { cause: error });
  }
}
