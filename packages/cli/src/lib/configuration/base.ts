import * as v from "valibot";
import { ConfigError, type ConfigIssue, renderIssues, sortIssues } from "./config_issue.ts";
import type { ConfigDocument, Pointer } from "./format/document.ts";
import type { ConfigPath } from "./format/config_path.ts";
import { splitProblem } from "./format/schema_parts.ts";
import type { SecretSource } from "./secrets.ts";

/** What every section of a configuration shares. */
export interface ConfigContext {
  readonly document: ConfigDocument;
  /** The folder that holds `.jiji`, absolute. */
  readonly projectRoot: string;
  readonly environmentName: string | undefined;
  readonly secrets: SecretSource;
  /** Home folder of the user, for `~/`. */
  readonly home: string | undefined;
  /** Absolute path of the env file that was read; absent when there is none. */
  readonly envFile?: string | undefined;
}

/** Takes a problem at a path below the section. */
export type Report = (
  path: ConfigPath,
  message: string,
  options?: { readonly fix?: string | undefined; readonly pointer?: Pointer },
) => void;

/**
 * A section of the configuration. Values are parsed at the first access and kept; a section with
 * problems throws them all then. `issues()` gives the same problems without throwing.
 */
export abstract class BaseConfiguration<Values> {
  /** Shared by all sections. */
  protected readonly context: ConfigContext;
  /** Where the section is in the file. */
  protected readonly path: ConfigPath;
  readonly #schema: v.GenericSchema<unknown, Values>;
  readonly #memo = new Map<string, unknown>();

  /** @param schema of the section's own keys. */
  constructor(context: ConfigContext, path: ConfigPath, schema: v.GenericSchema<unknown, Values>) {
    this.context = context;
    this.path = path;
    this.#schema = schema;
  }

  /** Every problem of this section's own keys, and of what they mean together. */
  issues(): readonly ConfigIssue[] {
    return this.memo("issues", () => {
      const { document } = this.context;
      const found: ConfigIssue[] = [];
      const report: Report = (path, message, options) => {
        found.push(document.issue([...this.path, ...path], message, options));
      };
      const parsed = this.#parsed();
      if (parsed.success) this.check(parsed.output, report);
      else reportSchemaIssues(parsed.issues, report);
      this.checkAlways(report);
      return sortIssues(found);
    });
  }

  /** `file:line:column` of a key of this section, for error texts. */
  positionOf(path: ConfigPath = []): string {
    return this.context.document.positionOf([...this.path, ...path]);
  }

  /** What this section's keys must fulfil together; called when each of them parsed. */
  protected check(_values: Values, _report: Report): void {}

  /** What can be said even when some keys did not parse; reads the document. */
  protected checkAlways(_report: Report): void {}

  /**
   * The section's values.
   *
   * @throws {ConfigError} with the section's problems.
   */
  protected get values(): Values {
    const issues = this.issues();
    const parsed = this.#parsed();
    if (issues.length > 0 || !parsed.success) throw configError(this.context.document, issues);
    return parsed.output;
  }

  /** Computes once, keeps for later. */
  protected memo<T>(name: string, compute: () => T): T {
    if (!this.#memo.has(name)) this.#memo.set(name, compute());
    return this.#memo.get(name) as T;
  }

  #parsed(): v.SafeParseResult<v.GenericSchema<unknown, Values>> {
    return this.memo("parsed", () => {
      const raw = this.context.document.at(this.path);
      return v.safeParse(this.#schema, raw ?? {});
    });
  }
}

/** One error with every problem, rendered with frames. */
export function configError(
  document: ConfigDocument,
  issues: readonly ConfigIssue[],
): ConfigError {
  const sorted = sortIssues(issues);
  return new ConfigError(renderIssues(document.file, document.text, sorted), { issues: sorted });
}

function reportSchemaIssues(
  issues: readonly v.BaseIssue<unknown>[],
  report: Report,
): void {
  for (const issue of issues) {
    const path = (issue.path ?? []).map((item) => item.key as string | number);
    const { message, fix } = splitProblem(issue.message);
    const missing = issue.type === "strict_object" && issue.expected !== "never" &&
      issue.expected !== "Object";
    const unknownKey = issue.type === "strict_object" && issue.expected === "never";
    report(missing ? path.slice(0, -1) : path, message, {
      fix,
      pointer: unknownKey ? "key" : "value",
    });
  }
}
