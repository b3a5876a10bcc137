/** Running programs of the machine: the only place in tools/ that starts processes and waits. */

/** What a finished program left. */
export interface CommandOutcome {
  /** Exit code; 128 + signal number when a signal ended it. */
  readonly code: number;
  /** All it printed. */
  readonly stdout: string;
  /** All it complained. */
  readonly stderr: string;
}

/** How to run a program. */
export interface CommandOptions {
  /** Folder it runs in. */
  readonly cwd?: string;
  /** Variables added to those of this process. */
  readonly env?: Readonly<Record<string, string>>;
  /** Text for its standard input; without it the input is empty. */
  readonly input?: string;
  /** When to kill it, in milliseconds. Default: 60 s. */
  readonly timeoutMs?: number;
  /** Called with each complete line of standard error and output, as it comes. */
  readonly onLine?: (line: string) => void;
}

/** A program ended with another exit code than 0, or could not be started. */
export class CommandError extends Error {
  /** Class name, as errors carry it. */
  override readonly name = "CommandError";
  /** The argument list that failed. */
  readonly argv: readonly string[];
  /** What it left. */
  readonly outcome: CommandOutcome;

  /** Keeps the facts and renders the last lines of its output. */
  constructor(argv: readonly string[], outcome: CommandOutcome) {
    super(renderFailure(argv, outcome));
    this.argv = argv;
    this.outcome = outcome;
  }
}

/** Lines of output shown with a failed program. */
const FAILURE_LINES_MAX = 20;

function renderFailure(argv: readonly string[], outcome: CommandOutcome): string {
  const shown = argv.join(" ").slice(0, 400);
  const lines = `${outcome.stdout}\n${outcome.stderr}`.split("\n").filter((line) => line.trim());
  const tail = lines.slice(-FAILURE_LINES_MAX).map((line) => `  ${line}`).join("\n");
  return `"${shown}" ended with code ${outcome.code}${tail ? `:\n${tail}` : ""}`;
}

async function readLines(
  stream: ReadableStream<Uint8Array>,
  onLine: ((line: string) => void) | undefined,
): Promise<string> {
  let text = "";
  let lineStart = 0;
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (!onLine) continue;
    for (let end = text.indexOf("\n", lineStart); end >= 0; end = text.indexOf("\n", lineStart)) {
      onLine(text.slice(lineStart, end));
      lineStart = end + 1;
    }
  }
  return text;
}

async function writeInput(stream: WritableStream<Uint8Array>, input: string): Promise<void> {
  const writer = stream.getWriter();
  try {
    await writer.write(new TextEncoder().encode(input));
    await writer.close();
  } catch (error) {
    // A program may end without reading its input; its exit code tells whether that is wrong.
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

/** Runs a program to its end and returns what it left, whatever its exit code. */
export async function tryCommand(
  argv: readonly string[],
  options: CommandOptions = {},
): Promise<CommandOutcome> {
  const [program = "", ...args] = argv;
  const deadline = AbortSignal.timeout(options.timeoutMs ?? 60_000);
  const command = new Deno.Command(program, {
    args,
    stdin: options.input === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
    signal: deadline,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: { ...options.env } }),
  });
  let child: Deno.ChildProcess;
  try {
    child = command.spawn();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { code: 127, stdout: "", stderr: `${program} could not be started: ${reason}` };
  }
  const written = options.input === undefined
    ? Promise.resolve()
    : writeInput(child.stdin, options.input);
  const [stdout, stderr, status] = await Promise.all([
    readLines(child.stdout, options.onLine),
    readLines(child.stderr, options.onLine),
    child.status,
    written,
  ]);
  const late = deadline.aborted ? `\nkilled after ${options.timeoutMs ?? 60_000} ms` : "";
  return { code: status.code, stdout, stderr: stderr + late };
}

/**
 * Runs a program to its end and returns its standard output.
 * @throws CommandError when it does not end with 0
 */
export async function runCommand(
  argv: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const outcome = await tryCommand(argv, options);
  if (outcome.code !== 0) throw new CommandError(argv, outcome);
  return outcome.stdout;
}

/** Whether a path exists, following links. */
export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) {
      return false;
    }
    throw error;
  }
}

/** Waits until `check` answers something other than undefined; undefined when time is up. */
export async function waitFor<T>(
  check: () => Promise<T | undefined>,
  options: { readonly timeoutMs: number; readonly everyMs?: number },
): Promise<T | undefined> {
  const endsAtMs = performance.now() + options.timeoutMs;
  while (true) {
    const found = await check();
    if (found !== undefined) return found;
    if (performance.now() >= endsAtMs) return undefined;
    await new Promise((resolve) => setTimeout(resolve, options.everyMs ?? 25));
  }
}
