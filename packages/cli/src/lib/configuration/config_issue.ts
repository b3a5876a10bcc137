import { JijiError } from "@jiji/core/runtime";

/** One problem of a configuration file, with the place to look at. */
export interface ConfigIssue {
  /** Path of the file as shown to the user. */
  readonly file: string;
  /** 1-based. */
  readonly line: number;
  /** 1-based, in characters. */
  readonly column: number;
  /** Key path, e.g. `services.web.ports[0]`; empty for the whole file. */
  readonly path: string;
  /** What is wrong, quoting the value. */
  readonly message: string;
  /** What to write instead. */
  readonly fix?: string;
}

/** The configuration file is missing, malformed or invalid. */
export class ConfigError extends JijiError {
  override readonly code: string = "config";
  override readonly exitCode: number = 3;
  /** Every problem, ordered by position; empty when there is no file at all. */
  readonly issues: readonly ConfigIssue[];

  /** @param message the rendered problems, as shown to the user. */
  constructor(
    message: string,
    options: { readonly issues?: readonly ConfigIssue[]; readonly hint?: string } = {},
  ) {
    super(message, options.hint === undefined ? {} : { hint: options.hint });
    this.issues = options.issues ?? [];
  }
}
