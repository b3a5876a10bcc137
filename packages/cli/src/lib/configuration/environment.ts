import * as v from "valibot";
import type { Secret } from "@jiji/core/runtime";
import { BaseConfiguration, type ConfigContext, type Report } from "./base.ts";
import type { ConfigPath } from "./format/config_path.ts";
import {
  keys,
  list,
  mapOf,
  problem,
  quote,
  VARIABLE_NAME,
  variableName,
} from "./format/schema_parts.ts";

/** Schema of `environment`, shared or of a service. */
export const EnvironmentSchema = keys({
  clear: v.optional(
    mapOf(
      v.union([v.string(), v.number(), v.boolean()], (issue) =>
        problem(
          `${quote(issue.input)} is not a value`,
          'text, a number, true or false; empty is ""',
        )),
    ),
    {},
  ),
  secrets: v.optional(list(variableName()), []),
});

type EnvironmentValues = v.InferOutput<typeof EnvironmentSchema>;

/** Environment variables of containers: clear ones, and secrets by name. */
export class EnvironmentConfiguration extends BaseConfiguration<EnvironmentValues> {
  readonly #shared: EnvironmentConfiguration | undefined;

  /** @param shared the project's environment, which a service's is laid over. */
  constructor(context: ConfigContext, path: ConfigPath, shared?: EnvironmentConfiguration) {
    super(context, path, EnvironmentSchema);
    this.#shared = shared;
  }

  /** Variables with their values; a service's win over the project's. Never a secret. */
  get clear(): Readonly<Record<string, string>> {
    return this.memo("clear", () => {
      const secrets = new Set(this.values.secrets);
      const inherited = Object.entries(this.#shared?.clear ?? {})
        .filter(([name]) => !secrets.has(name));
      const own = Object.entries(this.values.clear)
        .map(([name, value]) => [name, this.#text(name, value)] as const);
      return Object.fromEntries([...inherited, ...own]);
    });
  }

  /** Names of the secrets, sorted: the project's and the service's together. */
  get secretNames(): readonly string[] {
    return this.memo("secretNames", () => {
      const own = this.values.clear;
      const inherited = (this.#shared?.secretNames ?? []).filter((name) =>
        !Object.hasOwn(own, name)
      );
      return [...new Set([...inherited, ...this.values.secrets])].sort();
    });
  }

  /**
   * The secrets' values.
   *
   * @throws {ConfigError} that names every one that is not set and where it was looked for.
   */
  resolveSecrets(): Map<string, Secret> {
    return this.context.secrets.resolve(this.secretNames, this.positionOf(["secrets"]));
  }

  protected override check(values: EnvironmentValues, report: Report): void {
    for (const name of Object.keys(values.clear)) {
      if (!VARIABLE_NAME.test(name)) {
        report(["clear", name], `${quote(name)} is not a variable name`, {
          fix: "letters, digits and underscores, no digit in front",
          pointer: "key",
        });
      } else if (values.secrets.includes(name)) {
        report(["clear", name], `${name} is listed under secrets too`, { pointer: "key" });
      }
      if (String(values.clear[name]).includes("\0")) {
        report(["clear", name], "the value holds a zero byte, which no environment can");
      }
    }
  }

  /** Numbers as written, so that a version 1.10 does not become 1.1. */
  #text(name: string, value: string | number | boolean): string {
    if (typeof value !== "number") return String(value);
    return this.context.document.sourceAt([...this.path, "clear", name]) ?? String(value);
  }
}
