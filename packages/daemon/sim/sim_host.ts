/** Commands and files of a simulated server. */
import type { Argv, CommandResult, Process } from "@jiji/core/runtime";
import type { Files } from "../src/daemon_context.ts";
import type { SimKernel } from "./sim_kernel.ts";

function done(stdout = ""): CommandResult {
  return { exitCode: 0, signal: undefined, stdout, stderr: "", durationMs: 0 };
}

/** Runs a daemon's commands; files outlive a loss of power. */
export class SimHost {
  readonly files = new Map<string, string>();
  /** After so many more steps of a key change the power goes; undefined: it stays. */
  stepsUntilPowerLoss: number | undefined;
  readonly #onPowerLoss: () => void;

  /** @param onPowerLoss is called in the middle of a key change, see `stepsUntilPowerLoss`. */
  constructor(onPowerLoss: () => void) {
    this.#onPowerLoss = onPowerLoss;
  }

  /** Text of a file, without its line end; empty when there is none. */
  readonly read = (path: string): string => (this.files.get(path) ?? "").trim();

  /** The daemon's files. */
  get store(): Files {
    return {
      read: (path) => Promise.resolve(this.files.get(path)),
      replace: (path, text) => {
        this.files.set(path, text);
        return Promise.resolve();
      },
    };
  }

  /** The daemon's commands; one that it does not use is an error. */
  process(kernel: SimKernel, nowMs: () => number): Process {
    return {
      run: (argv, options) => {
        try {
          return Promise.resolve(this.#run(argv, { kernel, nowMs, stdin: options.stdin }));
        } catch (error) {
          return Promise.reject(error);
        }
      },
      lines: () => {
        throw new Error("no event stream in the simulation");
      },
    };
  }

  #run(
    argv: Argv,
    o: {
      readonly kernel: SimKernel;
      readonly nowMs: () => number;
      readonly stdin: unknown;
    },
  ): CommandResult {
    const [program, ...words] = argv;
    // Private keys are the public ones here.
    if (program === "wg" && words[0] === "pubkey") return done(String(o.stdin));
    if (isStepOfKeyChange(argv)) this.#countStep();
    if (program === "systemctl" && words[0] === "restart") return done();
    if (program === "mv") return this.#move(words);
    return o.kernel.run(argv, o.nowMs());
  }

  #countStep(): void {
    if (this.stepsUntilPowerLoss === undefined) return;
    this.stepsUntilPowerLoss -= 1;
    if (this.stepsUntilPowerLoss >= 0) return;
    this.stepsUntilPowerLoss = undefined;
    this.#onPowerLoss();
    throw new Error("power loss");
  }

  #move(words: readonly string[]): CommandResult {
    const [from, to] = words.slice(-2);
    const text = this.files.get(from ?? "");
    if (text === undefined || to === undefined) throw new Error(`cannot move ${from}`);
    this.files.delete(from!);
    this.files.set(to, text);
    return done();
  }
}

function isStepOfKeyChange(argv: Argv): boolean {
  return argv[0] === "mv" || argv[0] === "systemctl" || argv.includes("private-key") ||
    (argv.includes("addr") && !argv.includes("show"));
}
