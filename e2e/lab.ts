/** Drives bin/lab from end-to-end tests: real servers, a laptop, power loss and partitions. */
import type { EngineKind } from "../tools/lab/model.ts";
import type { LabStatus } from "../tools/lab/status.ts";
import {
  CommandError,
  type CommandOptions,
  type CommandOutcome,
  tryCommand,
  waitFor,
} from "../tools/prepare/command.ts";

export { type CommandOutcome } from "../tools/prepare/command.ts";
export { type EngineKind } from "../tools/lab/model.ts";
export { type LabStatus } from "../tools/lab/status.ts";

/** Folder of the checkout. */
export const CHECKOUT: string = new URL("..", import.meta.url).pathname.replace(/\/$/, "");

const LAB_PROGRAM = `${CHECKOUT}/bin/lab`;

/** Longest time for `up`, in milliseconds: the first on a machine prepares for minutes. */
const UP_TIMEOUT_MS = 30 * 60_000;
/** Longest time for a command without a limit of its own, in milliseconds. */
const COMMAND_TIMEOUT_MS = 5 * 60_000;

/** What a lab is started with. */
export interface LabOptions {
  /** Name of the lab, so that tests side by side do not meet. 1 to 24 characters a–z, 0–9, -. */
  readonly name: string;
  /** How many servers. Default: 3. */
  readonly servers?: number;
  /** What they come with. Default: nothing but SSH. */
  readonly engine?: EngineKind;
}

/**
 * A running lab; it ends with the scope that holds it:
 * `await using lab = await Lab.up({ name: "e2e-deploy" })`.
 */
export class Lab implements AsyncDisposable {
  /** The lab's name. */
  readonly name: string;

  private constructor(name: string) {
    this.name = name;
  }

  /**
   * Boots a fresh lab; one of the same name that an earlier test left is ended first.
   * @throws CommandError when it does not come up
   */
  static async up(options: LabOptions): Promise<Lab> {
    const lab = new Lab(options.name);
    await lab.#must(["down"]);
    await lab.grow(options.servers ?? 3, options.engine ?? "none");
    return lab;
  }

  /** Adds servers until there are `servers`. */
  async grow(servers: number, engine: EngineKind = "none"): Promise<void> {
    await this.#must(["up", String(servers), "--engine", engine], { timeoutMs: UP_TIMEOUT_MS });
  }

  /** Address of a server: s1 is 203.0.113.11. */
  address(server: string): string {
    return `203.0.113.${10 + Number(server.slice(1))}`;
  }

  /** Runs a command as the operator and returns what it left, whatever its exit code. */
  async tryRun(argv: readonly string[], options: CommandOptions = {}): Promise<CommandOutcome> {
    return await this.#try(["run", "--", ...argv], options);
  }

  /**
   * Runs a command as the operator and returns its standard output.
   * @throws CommandError when it does not end with 0
   */
  async run(argv: readonly string[], options: CommandOptions = {}): Promise<string> {
    return await this.#must(["run", "--", ...argv], options);
  }

  /** Starts a command as the operator, such as a load that goes on while the test acts. */
  spawn(
    argv: readonly string[],
    options: {
      readonly cwd?: string;
      readonly env?: Readonly<Record<string, string>>;
      /** Default: nothing to read. */
      readonly stdin?: "piped" | "null";
    } = {},
  ): Deno.ChildProcess {
    return new Deno.Command(LAB_PROGRAM, {
      args: ["run", "--", ...argv],
      env: { ...options.env, JIJI_LAB: this.name },
      stdin: options.stdin ?? "null",
      stdout: "piped",
      stderr: "piped",
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    }).spawn();
  }

  /** Runs a command as root on a server and returns what it left, whatever its exit code. */
  async tryOn(
    server: string,
    argv: readonly string[],
    options: CommandOptions = {},
  ): Promise<CommandOutcome> {
    return await this.#try(["on", server, "--", ...argv], options);
  }

  /**
   * Runs a command as root on a server and returns its standard output.
   * @throws CommandError when it does not end with 0
   */
  async on(
    server: string,
    argv: readonly string[],
    options: CommandOptions = {},
  ): Promise<string> {
    return await this.#must(["on", server, "--", ...argv], options);
  }

  /** Drops all packets between two parties, or between one and everyone. */
  async cut(from: string, to?: string): Promise<void> {
    await this.#must(["cut", from, ...(to === undefined ? [] : [to])]);
  }

  /** Ends all cuts. */
  async heal(): Promise<void> {
    await this.#must(["heal"]);
  }

  /** Power loss of servers. */
  async kill(...servers: readonly string[]): Promise<void> {
    await this.#must(["kill", ...servers]);
  }

  /** Power on of servers; returns when they answer on SSH. */
  async boot(...servers: readonly string[]): Promise<void> {
    await this.#must(["boot", ...servers]);
  }

  /** State of the lab. */
  async status(): Promise<LabStatus> {
    const status: LabStatus = JSON.parse(await this.#must(["status", "--json"]));
    return status;
  }

  /** Ends the lab; nothing of it stays. */
  async down(): Promise<void> {
    await this.#must(["down"]);
  }

  /** Ends the lab with the scope that holds it, unless `JIJI_LAB_KEEP` is set. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!Deno.env.get("JIJI_LAB_KEEP")) await this.down();
  }

  async #try(args: readonly string[], options: CommandOptions = {}): Promise<CommandOutcome> {
    return await tryCommand([LAB_PROGRAM, ...args], {
      timeoutMs: COMMAND_TIMEOUT_MS,
      ...options,
      env: { ...options.env, JIJI_LAB: this.name },
    });
  }

  async #must(args: readonly string[], options: CommandOptions = {}): Promise<string> {
    const outcome = await this.#try(args, options);
    if (outcome.code !== 0) throw new CommandError(["bin/lab", ...args], outcome);
    return outcome.stdout;
  }
}

/**
 * Waits until a condition holds, looking ten times a second.
 * @throws Error naming what was waited for when time is up
 */
export async function eventually<T>(
  what: string,
  check: () => Promise<T | undefined>,
  options: { readonly timeoutMs: number },
): Promise<T> {
  const found = await waitFor(check, { timeoutMs: options.timeoutMs, everyMs: 100 });
  if (found === undefined) throw new Error(`not within ${options.timeoutMs} ms: ${what}`);
  return found;
}

/** What is left of labs on this machine, a line each. */
export async function labLeftovers(): Promise<readonly string[]> {
  const { stdout } = await tryCommand([LAB_PROGRAM, "leftovers"]);
  return stdout.split("\n").filter(Boolean);
}
