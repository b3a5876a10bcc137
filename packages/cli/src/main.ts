/** The `jiji` program: runs what the command tree chose, and is the one place that ends it. */
import "./utils/commonjs_globals.ts";
import { CommanderError } from "@commander-js/extra-typings";
import { JijiError, systemClock, UsageError } from "@jiji/core/runtime";
import type { OutputFlags } from "./command_tree/base.ts";
import { buildProgram } from "./command_tree/program.ts";
import { Output, type TextSink } from "./lib/output/output.ts";
import type { Ports } from "./utils/command_helpers.ts";

function sink(stream: typeof Deno.stdout | typeof Deno.stderr): TextSink {
  const encoder = new TextEncoder();
  return {
    write(text) {
      const bytes = encoder.encode(text);
      try {
        for (let written = 0; written < bytes.length;) {
          written += stream.writeSync(bytes.subarray(written));
        }
      } catch (error) {
        // The reader went away (`jiji … | head`): that is its right.
        if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
      }
    },
    isTerminal: stream.isTerminal(),
    get columns() {
      try {
        return Deno.consoleSize().columns;
      } catch {
        return 80;
      }
    },
  };
}

function makePorts(flags: OutputFlags, signal: AbortSignal): Ports {
  const output = new Output({
    stdout: sink(Deno.stdout),
    stderr: sink(Deno.stderr),
    json: flags.json ?? false,
    quiet: flags.quiet ?? false,
    env: Deno.env.toObject(),
    clock: systemClock,
  });
  return { output, clock: systemClock, signal, cwd: Deno.cwd() };
}

/** Exit code of a program ended by Ctrl-C. Source: bash(1), EXIT STATUS: 128 + SIGINT. */
const EXIT_INTERRUPTED = 130;
/** An error nobody foresaw is our bug. */
const EXIT_BUG = 70;

/**
 * Runs a handler and turns what it throws into text and an exit code: the only place that does. The
 * first Ctrl-C lets the handler undo what it began, the second one ends at once.
 */
async function execute(
  flags: OutputFlags,
  handler: (ports: Ports) => Promise<void>,
): Promise<void> {
  const abort = new AbortController();
  const interrupt = () => {
    if (abort.signal.aborted) Deno.exit(EXIT_INTERRUPTED);
    abort.abort(new JijiError("interrupted"));
  };
  Deno.addSignalListener("SIGINT", interrupt);
  Deno.addSignalListener("SIGTERM", interrupt);
  const ports = makePorts(flags, abort.signal);
  try {
    await handler(ports);
    Deno.exit(0);
  } catch (error) {
    ports.output.failure(error);
    if (!(error instanceof JijiError)) {
      ports.output.note(error instanceof Error ? error.stack ?? "" : String(error));
      ports.output.note("This is a bug in jiji: please report it with the lines above.");
    }
    if (abort.signal.aborted) Deno.exit(EXIT_INTERRUPTED);
    Deno.exit(error instanceof JijiError ? error.exitCode : EXIT_BUG);
  }
}

/** Help and version end well; anything else commander refuses is a usage error. */
try {
  const args = Deno.args.length > 0 ? Deno.args : ["--help"];
  await buildProgram(execute).parseAsync(["jiji", "jiji", ...args]);
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  Deno.exit(error.exitCode === 0 ? 0 : new UsageError(error.message).exitCode);
}
