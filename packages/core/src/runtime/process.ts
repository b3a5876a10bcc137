/** A program and its arguments; never a shell line. */
export type Argv = readonly [program: string, ...args: string[]];

/** How a command ended. A non-zero exit is a value here, not an exception. */
export interface CommandResult {
  /** Exit code; undefined when a signal or the time limit ended it. */
  readonly exitCode: number | undefined;
  readonly signal: string | undefined;
  readonly stdout: string;
  readonly stderr: string;
  readonly durationMs: number;
}

/** Limits and input of a command. */
export interface RunOptions {
  /** The command is killed after this long, milliseconds. */
  readonly timeoutMs: number;
  /** Written to its standard input, then closed. */
  readonly stdin?: string | Uint8Array;
  readonly signal?: AbortSignal;
  /** Laid over this process's environment; of a process of this machine only. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Limits of a command whose output is read line by line. */
export interface StreamOptions {
  readonly signal: AbortSignal;
}

/** Local processes as a port. */
export interface Process {
  /** Runs to the end and gives what it printed (each stream cut at {@link OUTPUT_BYTES_MAX}). */
  run(argv: Argv, options: RunOptions): Promise<CommandResult>;
  /** Lines of standard output until the program ends or the signal aborts. */
  lines(argv: Argv, options: StreamOptions): AsyncIterable<string>;
}

/** No command we read is larger: 2,000 containers inspected are about 16 MiB. */
export const OUTPUT_BYTES_MAX: number = 64 * 1024 * 1024;

/** Whether the command ended by itself with exit code 0. */
export function isOk(result: CommandResult): boolean {
  return result.exitCode === 0;
}

/** Processes of this machine through `Deno.Command`. */
export const systemProcess: Process = { run: runCommand, lines: commandLines };

async function runCommand(argv: Argv, options: RunOptions): Promise<CommandResult> {
  const startedMs = performance.now();
  const limit = AbortSignal.timeout(options.timeoutMs);
  const signal = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
  const [program, ...args] = argv;
  try {
    const child = new Deno.Command(program, {
      args,
      stdin: options.stdin === undefined ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
      signal,
      ...(options.env === undefined ? {} : { env: options.env }),
    }).spawn();
    if (options.stdin !== undefined) await writeStdin(child.stdin, options.stdin);
    const output = await child.output();
    return {
      exitCode: output.signal ? undefined : output.code,
      signal: output.signal ?? undefined,
      stdout: decodeOutput(output.stdout),
      stderr: decodeOutput(output.stderr),
      durationMs: performance.now() - startedMs,
    };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return {
      exitCode: 127,
      signal: undefined,
      stdout: "",
      stderr: `${program}: not found`,
      durationMs: performance.now() - startedMs,
    };
  }
}

async function writeStdin(
  stdin: WritableStream<Uint8Array<ArrayBuffer>>,
  input: string | Uint8Array,
): Promise<void> {
  const bytes = typeof input === "string" ? new TextEncoder().encode(input) : new Uint8Array(input);
  const writer = stdin.getWriter();
  try {
    await writer.write(bytes);
    await writer.close();
  } catch {
    // The program closed its input early (EPIPE); its exit code tells the story.
    await writer.abort().catch(() => undefined);
  }
}

function decodeOutput(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes.subarray(0, OUTPUT_BYTES_MAX));
}

async function* commandLines(argv: Argv, options: StreamOptions): AsyncIterable<string> {
  const [program, ...args] = argv;
  const child = new Deno.Command(program, {
    args,
    stdin: "null",
    stdout: "piped",
    stderr: "null",
    signal: options.signal,
  }).spawn();
  try {
    let rest = "";
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      const parts = (rest + text).split("\n");
      rest = parts.pop() ?? "";
      yield* parts;
      if (rest.length > OUTPUT_BYTES_MAX) throw new Error(`${program}: endless line`);
    }
    if (rest) yield rest;
  } finally {
    try {
      child.kill("SIGTERM");
    } catch {
      // It had ended already.
    }
    await child.status;
  }
}
