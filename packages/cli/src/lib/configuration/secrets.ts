import { Secret } from "@jiji/core/runtime";
import { ConfigError } from "./config_issue.ts";

/** Where secrets come from. */
export interface SecretSourceOptions {
  /** Values of the env file that was read. */
  readonly fileValues: Readonly<Record<string, string>>;
  /** Values that an adapter gave, and its name. */
  readonly adapter?: {
    readonly name: string;
    readonly values: Readonly<Record<string, string>>;
  };
  /** Names of the env files that were looked for, as shown; the one read is marked. */
  readonly lookedIn: readonly string[];
  /** This process's environment. */
  readonly hostValues: Readonly<Record<string, string>>;
  /** Whether secrets may come from there (`--host-env`). */
  readonly hostAllowed: boolean;
}

/** Secrets by name. Values leave as {@link Secret} only. */
export class SecretSource {
  readonly #options: SecretSourceOptions;
  readonly #given = new Map<string, Secret>();
  readonly #literals = new Map<string, Secret>();

  /** @param options where to look. */
  constructor(options: SecretSourceOptions) {
    this.#options = options;
  }

  /**
   * One secret: from the env file, else from the adapter, else from this process's environment when
   * `--host-env` or `alwaysHost` allows it.
   */
  find(name: string, options: { readonly alwaysHost?: boolean } = {}): Secret | undefined {
    const value = this.#look(name, options)?.value;
    if (value === undefined) return undefined;
    const secret = this.#given.get(name) ?? new Secret(value);
    this.#given.set(name, secret);
    return secret;
  }

  /** Where a secret comes from: `env file`, the adapter's name, `environment`; undefined: nowhere. */
  origin(name: string, options: { readonly alwaysHost?: boolean } = {}): string | undefined {
    return this.#look(name, options)?.origin;
  }

  #look(
    name: string,
    options: { readonly alwaysHost?: boolean },
  ): { readonly value: string; readonly origin: string } | undefined {
    const { fileValues, adapter, hostValues, hostAllowed } = this.#options;
    const useHost = hostAllowed || options.alwaysHost === true;
    const places = [
      ["env file", fileValues],
      [adapter?.name ?? "", adapter?.values ?? {}],
      ["environment", useHost ? hostValues : {}],
    ] as const;
    for (const [origin, values] of places) {
      const value = Object.hasOwn(values, name) ? values[name] : undefined;
      if (value !== undefined) return { value, origin };
    }
    return undefined;
  }

  /**
   * Several secrets.
   *
   * @throws {ConfigError} that names every missing one and where they were looked for.
   */
  resolve(names: Iterable<string>, purpose: string): Map<string, Secret> {
    const found = new Map<string, Secret>();
    const missing: string[] = [];
    for (const name of new Set(names)) {
      const secret = this.find(name);
      if (secret === undefined) missing.push(name);
      else found.set(name, secret);
    }
    if (missing.length > 0) throw this.missingError(missing, purpose);
    return found;
  }

  /** The error for secrets that are not set. */
  missingError(names: readonly string[], purpose: string): ConfigError {
    const noun = names.length === 1 ? "secret" : "secrets";
    const verb = names.length === 1 ? "is" : "are";
    return new ConfigError(
      `${purpose}: ${noun} ${names.join(", ")} ${verb} not set; looked in ${this.lookedIn()}`,
      {
        hint: this.#options.hostAllowed
          ? "add them to the env file or export them"
          : "add them to the env file, or export them and pass --host-env",
      },
    );
  }

  /** A secret that the configuration itself holds; it is redacted like the others. */
  literal(value: string): Secret {
    const secret = this.#literals.get(value) ?? new Secret(value);
    this.#literals.set(value, secret);
    return secret;
  }

  /** Every value given out so far, to be redacted from whatever is shown. */
  given(): readonly Secret[] {
    return [...this.#given.values(), ...this.#literals.values()];
  }

  /** Where secrets are looked for, for messages. */
  lookedIn(): string {
    const { lookedIn, adapter, hostAllowed } = this.#options;
    const further = [
      ...(adapter === undefined ? [] : [adapter.name]),
      ...(hostAllowed ? ["the environment"] : []),
    ];
    return [...lookedIn, ...further].join(", ");
  }
}
