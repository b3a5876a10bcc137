import type {
  Argv,
  CommandResult,
  Process,
  RunOptions,
  StreamOptions,
} from "../src/runtime/process.ts";

/** What a faked program does: its output, or a whole result. */
export type FakeProgram = (argv: Argv, options: RunOptions) => string | Partial<CommandResult>;

/** Processes that are functions. A command nobody has described fails the test. */
export class FakeProcess implements Process {
  /** Every command that ran, in order. */
  readonly ran: Argv[] = [];
  readonly #programs: { readonly prefix: string; readonly program: FakeProgram }[] = [];
  readonly #streams: { readonly prefix: string; readonly lines: AsyncIterable<string> }[] = [];

  /** Describes commands whose words begin with `prefix`; the latest description wins. */
  on(prefix: string, program: FakeProgram | string): this {
    const run = typeof program === "string" ? () => program : program;
    this.#programs.unshift({ prefix, program: run });
    return this;
  }

  /** Describes a command that is read line by line. */
  onLines(prefix: string, lines: AsyncIterable<string>): this {
    this.#streams.unshift({ prefix, lines });
    return this;
  }

  /** Runs the description. @throws when there is none. */
  run(argv: Argv, options: RunOptions): Promise<CommandResult> {
    this.ran.push(argv);
    const found = this.#programs.find(({ prefix }) => matches(argv, prefix));
    if (!found) return Promise.reject(new Error(`FakeProcess knows no ${argv.join(" ")}`));
    const output = found.program(argv, options);
    const result = typeof output === "string" ? { stdout: output } : output;
    return Promise.resolve({
      exitCode: 0,
      signal: undefined,
      stdout: "",
      stderr: "",
      durationMs: 1,
      ...result,
    });
  }

  /** Lines of the description. @throws when there is none. */
  lines(argv: Argv, _options: StreamOptions): AsyncIterable<string> {
    this.ran.push(argv);
    const found = this.#streams.find(({ prefix }) => matches(argv, prefix));
    if (!found) throw new Error(`FakeProcess knows no stream ${argv.join(" ")}`);
    return found.lines;
  }

  /** Commands that began with `prefix`, as text. */
  commands(prefix: string): string[] {
    return this.ran.filter((argv) => matches(argv, prefix)).map((argv) => argv.join(" "));
  }
}

function matches(argv: Argv, prefix: string): boolean {
  return `${argv.join(" ")} `.startsWith(`${prefix} `);
}
