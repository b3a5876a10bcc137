import * as v from "valibot";
import { isOk } from "@jiji/core";
import { ConfigError } from "../configuration/config_issue.ts";
import type { AdapterPorts, AdapterSettings, SecretAdapter } from "./secret_adapter.ts";

/** Asking whether somebody is logged in, milliseconds. */
const CHECK_TIMEOUT_MS = 10_000;
/** Downloading every secret, milliseconds. */
const DOWNLOAD_TIMEOUT_MS = 30_000;

/** Names that Doppler adds by itself: not secrets of the project. */
const OWN_NAMES = ["DOPPLER_PROJECT", "DOPPLER_CONFIG", "DOPPLER_ENVIRONMENT"];

const Secrets = v.record(v.string(), v.string());

/** Secrets kept by Doppler. Source: Doppler CLI 3, `doppler secrets download --help`. */
export const dopplerAdapter: SecretAdapter = {
  name: "doppler",
  async read(settings, ports) {
    await requireLogin(ports);
    const argv = argvDownload(settings);
    const result = await ports.process.run(argv, { timeoutMs: DOWNLOAD_TIMEOUT_MS });
    if (!isOk(result)) {
      throw new ConfigError(
        `doppler gave no secrets (${argv.join(" ")}): ${lastLine(result.stderr)}`,
        { hint: "check secrets.project and secrets.config, and what the login may read" },
      );
    }
    return parseDopplerSecrets(result.stdout);
  },
};

/** The command that prints every secret; it writes no file. */
export function argvDownload(settings: AdapterSettings): readonly [string, ...string[]] {
  const { project, config } = settings;
  return [
    ...["doppler", "secrets", "download", "--no-file", "--format", "json"] as const,
    ...(project === undefined ? [] : ["--project", project]),
    ...(config === undefined ? [] : ["--config", config]),
  ];
}

/**
 * Secrets of the command's output.
 *
 * @throws {ConfigError} when it is not a map of texts; the text itself is not shown.
 */
export function parseDopplerSecrets(text: string): Record<string, string> {
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch {
    raw = undefined;
  }
  // valibot takes a list for a map.
  const parsed = v.safeParse(Secrets, Array.isArray(raw) ? undefined : raw);
  if (!parsed.success) {
    throw new ConfigError("doppler printed something that is not a map of secrets", {
      hint: "update it: doppler update",
    });
  }
  return Object.fromEntries(
    Object.entries(parsed.output).filter(([name]) => !OWN_NAMES.includes(name)),
  );
}

/** A token in the environment is enough; otherwise somebody must be logged in here. */
async function requireLogin({ process, env }: AdapterPorts): Promise<void> {
  const token = env["DOPPLER_TOKEN"];
  const argv = token ? ["doppler", "--version"] as const : ["doppler", "me"] as const;
  const result = await process.run(argv, { timeoutMs: CHECK_TIMEOUT_MS });
  if (isOk(result)) return;
  if (result.exitCode === 127) {
    throw new ConfigError("secrets.adapter is doppler, and there is no doppler command here", {
      hint: "install it, or take `secrets:` out of the configuration and use an env file",
    });
  }
  throw new ConfigError(`doppler does not answer: ${lastLine(result.stderr)}`, {
    hint: "log in with `doppler login`, or set DOPPLER_TOKEN",
  });
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1)?.slice(0, 200) ?? "";
}
