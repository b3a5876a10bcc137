import type { Configuration } from "./configuration.ts";

/** Where to look for the configuration and what it may read. */
export interface LoadOptions {
  /** Search starts here and goes up. */
  readonly cwd: string;
  /** `--config`: relative to cwd. */
  readonly configFile?: string;
  /** `--environment`. */
  readonly environment?: string;
  /** `--host-env`: secrets may come from this process's environment. */
  readonly hostEnv: boolean;
  /** This process's environment; read from the system when absent. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Finds and reads the configuration. */
export declare class ConfigurationLoader {
  static load(options: LoadOptions): Promise<Configuration>;
}
