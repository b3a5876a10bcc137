import { JijiError } from "@jiji/core";
import { shownPath } from "../lib/configuration/configuration.ts";
import { ConfigurationLoader } from "../lib/configuration/loader.ts";
import { renderTable } from "../lib/output/table.ts";
import type { CommonOptions, Ports } from "../utils/command_helpers.ts";

/** Options of `jiji secrets print`. */
export interface SecretsPrintOptions extends CommonOptions {
  readonly showValues?: boolean | undefined;
}

/** Secrets that the configuration names are not set. */
export class MissingSecretsError extends JijiError {
  override readonly code: string = "config";
  override readonly exitCode: number = 3;
}

/**
 * `jiji secrets print`: every secret that the configuration names, whether it is set and where it
 * comes from; values only when asked for.
 *
 * @throws {MissingSecretsError} naming those that are not set; {ConfigError} when the file can't be
 * read.
 */
export async function secretsPrint(options: SecretsPrintOptions, ports: Ports): Promise<void> {
  const { output, cwd } = ports;
  // Not validated: a missing secret is what is to be shown.
  const configuration = await ConfigurationLoader.load({
    cwd,
    hostEnv: options.hostEnv ?? false,
    configFile: options.configFile,
    environment: options.environment,
  });
  if (!options.showValues) output.hide(() => configuration.secretsGiven());
  const { envFile, lookedIn } = configuration.secretPlaces();
  const rows = configuration.secretReferences().map(({ name, group, origin, secret }) => ({
    name,
    group,
    set: secret !== undefined,
    origin: origin ?? null,
    ...(options.showValues ? { value: secret?.reveal() ?? null } : {}),
  }));
  const shownEnvFile = envFile === undefined ? undefined : shownPath(envFile, cwd);
  if (output.json) {
    output.result({
      config_file: configuration.file,
      environment: configuration.environmentName ?? null,
      env_file: shownEnvFile ?? null,
      host_env: options.hostEnv ?? false,
      secrets: rows,
    });
  } else {
    output.note(
      [configuration.file, shownEnvFile ?? "no env file", `looked in ${lookedIn}`]
        .join(` ${output.symbols.dot} `),
    );
    output.note("");
    const cells = rows.map((row) => [
      row.group,
      row.name,
      row.set ? "set" : "MISSING",
      row.origin ?? "",
      ...("value" in row ? [JSON.stringify(row.value ?? "")] : []),
    ]);
    const header = ["used by", "name", "", "from", ...(options.showValues ? ["value"] : [])];
    renderTable(header, cells).forEach((line) => output.line(line));
  }
  const missing = [...new Set(rows.filter(({ set }) => !set).map(({ name }) => name))];
  if (missing.length === 0) return;
  throw new MissingSecretsError(`not set: ${missing.join(", ")}; looked in ${lookedIn}`, {
    hint: options.hostEnv
      ? "add them to the env file or export them"
      : "add them to the env file, or export them and pass --host-env",
  });
}
