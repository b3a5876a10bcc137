import type { Process } from "@jiji/core";

/** Which secrets of a service are wanted; what the names mean is the adapter's business. */
export interface AdapterSettings {
  readonly project: string | undefined;
  readonly config: string | undefined;
}

/** What an adapter may use. */
export interface AdapterPorts {
  readonly process: Process;
  /** This process's environment. */
  readonly env: Readonly<Record<string, string>>;
}

/** A service that keeps secrets, reached through its own command line. */
export interface SecretAdapter {
  /** `adapter:` of the configuration. */
  readonly name: string;
  /**
   * All its secrets by name, in one go.
   *
   * @throws {ConfigError} when its command is missing, not logged in, or fails; never with a value.
   */
  read(settings: AdapterSettings, ports: AdapterPorts): Promise<Readonly<Record<string, string>>>;
}
