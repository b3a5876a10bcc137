import {
  type Argv,
  type CommandResult,
  ConnectionError,
  CONTAINER_NETWORK,
  PROXY_VOLUME,
  type RunOptions,
  SERVER_PATHS,
} from "@jiji/core";
import type {
  RemoteHost,
  RemoteStreamOptions,
  RemoteStreamResult,
  UploadContent,
  UploadOptions,
} from "../src/types/remote_host.ts";
import { failed, type MockResult, ok, runEngine } from "./mock_engine.ts";
import { behaves, type MockContainer, type MockServerState } from "./mock_server_state.ts";

/** Ends the CLI in the middle: every command of every host fails from then on. */
export class KillSwitch {
  /** Commands that got through. */
  commands = 0;
  readonly #at: number;
  readonly #when: "before" | "after";

  /** @param at number of the command, 1 = first; `when`: whether that one still runs. */
  constructor(at: number, when: "before" | "after") {
    this.#at = at;
    this.#when = when;
  }

  /** Whether the next command may run. */
  mayRun(): boolean {
    this.commands++;
    return this.#when === "before" ? this.commands < this.#at : this.commands <= this.#at;
  }

  /** Whether the answer to it still arrives. */
  get mayAnswer(): boolean {
    return this.commands < this.#at;
  }
}

/** What a stubbed command gives. */
export type MockResponse = Partial<Pick<CommandResult, "exitCode" | "stdout" | "stderr">>;

/**
 * A host without any connection: parses argument lists and changes its {@link MockServerState} as
 * the real server would. A command that it does not know fails the test.
 */
export class MockSSHManager implements RemoteHost {
  readonly name: string;
  readonly address: string;
  readonly state: MockServerState;
  /** Every command so far, words joined by blanks. */
  readonly commands: string[] = [];
  readonly #responses: { pattern: string | RegExp; response: MockResponse }[] = [];
  readonly #kill: KillSwitch | undefined;

  /** @param state may be shared by several managers, one after the other. */
  constructor(state: MockServerState, kill?: KillSwitch) {
    this.name = state.name;
    this.address = `root@${state.name}:22`;
    this.state = state;
    this.#kill = kill;
  }

  /** Answers commands that contain or match `pattern`; the state does not see them. */
  addMockResponse(pattern: string | RegExp, response: MockResponse): void {
    this.#responses.push({ pattern, response });
  }

  /** See {@link RemoteHost.run}. */
  async run(argv: Argv, options: RunOptions): Promise<CommandResult> {
    options.signal?.throwIfAborted();
    await Promise.resolve();
    const text = argv.join(" ");
    this.#begin();
    this.commands.push(text);
    const stub = this.#responses.find(({ pattern }) =>
      typeof pattern === "string" ? text.includes(pattern) : pattern.test(text)
    );
    const stdin = typeof options.stdin === "string" ? options.stdin : "";
    const result = stub === undefined ? this.#answer(argv, stdin) : { ...ok()!, ...stub.response };
    this.state.cluster.inspect(`${this.name}: ${text}`);
    this.#end();
    if (result === undefined) {
      this.state.cluster.unknown.push(`${this.name}: ${text}`);
      throw new Error(`unknown command: ${text}`);
    }
    return { ...result, signal: undefined, durationMs: 1 };
  }

  /** Runs the command and hands on what it printed at its end. */
  async stream(argv: Argv, options: RemoteStreamOptions): Promise<RemoteStreamResult> {
    const { stdin, signal, timeoutMs } = options;
    const result = await this.run(argv, {
      timeoutMs,
      ...(stdin === undefined ? {} : { stdin }),
      ...(signal === undefined ? {} : { signal }),
    });
    options.onStdout(result.stdout);
    options.onStderr(result.stderr);
    return { exitCode: result.exitCode };
  }

  /** Keeps the file in the state. */
  async upload(content: UploadContent, remotePath: string, options: UploadOptions): Promise<void> {
    const bytes = content instanceof Uint8Array ? content : await Deno.readFile(content.path);
    this.#begin();
    this.commands.push(`upload ${remotePath}`);
    this.state.files.set(remotePath, { bytes, mode: options.mode, owner: "root:root" });
    this.#end();
    options.onProgress?.(bytes.length);
  }

  /** Nothing listens; a port is what tests look at. */
  reverseForward(remotePort: number, localPort: number): Promise<AsyncDisposable> {
    this.commands.push(`forward ${remotePort} ${localPort}`);
    return Promise.resolve({ [Symbol.asyncDispose]: () => Promise.resolve() });
  }

  /** Nothing to close. */
  dispose(): Promise<void> {
    return Promise.resolve();
  }

  #begin(): void {
    if (this.#kill?.mayRun() === false) throw this.#lost();
  }

  #end(): void {
    if (this.#kill?.mayAnswer === false) throw this.#lost();
  }

  #lost(): ConnectionError {
    return new ConnectionError("the CLI was killed", { host: this.name, phase: "lost" });
  }

  #answer(argv: Argv, stdin: string): MockResult {
    const [program, ...args] = argv;
    const { state } = this;
    switch (program) {
      case state.config.engine:
        return runEngine(state, args);
      case "sh":
        return args[0] === "-s" ? runScript(state, stdin, args.slice(2)) : undefined;
      case "mkdir":
        args.slice(1).forEach((folder) => state.folders.add(folder));
        return ok();
      case "rm":
        state.files.delete(args.at(-1) ?? "");
        return ok();
      case "chown":
        return chown(state, args);
      case "date":
        return ok(`${Math.floor(state.cluster.nextMs() / 1_000)}\n`);
      case `${SERVER_PATHS.bin}/jiji-daemon`:
        return args[0] === "probe" ? probe(state, args[1] ?? "") : undefined;
      case `${SERVER_PATHS.bin}/jiji-dns`:
        return args[0] === "await" ? awaitNames(state, args.slice(3)) : undefined;
      default:
        return undefined;
    }
  }
}

function chown(state: MockServerState, [owner = "", path = ""]: readonly string[]): MockResult {
  const file = state.files.get(path);
  if (file === undefined) return failed(1, `cannot access '${path}'`);
  file.owner = owner;
  return ok();
}

/** The scripts that travel over stdin, told apart by what only they contain. */
function runScript(state: MockServerState, script: string, args: readonly string[]): MockResult {
  if (script.includes("@container")) return ok(observation(state));
  if (script.includes("kamal-proxy.state")) return switchRoute(state, args);
  if (script.includes("kamal-proxy list")) return ok();
  if (script.includes("<<'END_")) return startWithEnvironment(state, script, args);
  return undefined;
}

/** The engine's command, then the proxy's listing. */
function switchRoute(state: MockServerState, args: readonly string[]): MockResult {
  const [, engine, ...command] = args;
  if (engine !== state.config.engine) return undefined;
  const result = runEngine(state, command);
  if (result === undefined || result.exitCode !== 0) return result;
  return state.proxyVolume ? ok(proxyState(state)) : failed(1, `no such volume: ${PROXY_VOLUME}`);
}

/** The environment file lives while the engine's command runs. */
function startWithEnvironment(
  state: MockServerState,
  script: string,
  args: readonly string[],
): MockResult {
  const [file = "", engine, ...command] = args;
  const body = /<<'(END_[a-f0-9]{32})'\n([\s\S]*)\1\n"\$@"\n$/.exec(script);
  if (engine !== state.config.engine || body === null) return undefined;
  const bytes = new TextEncoder().encode(body[2]);
  state.files.set(file, { bytes, mode: 0o600, owner: "root:root" });
  try {
    return runEngine(state, command);
  } finally {
    state.files.delete(file);
  }
}

function observation(state: MockServerState): string {
  const lines = [`@config ${btoa(JSON.stringify(state.config))}`];
  for (const container of state.containers) {
    lines.push(`@container ${JSON.stringify(inspected(state, container))}`);
  }
  if (state.proxyVolume) lines.push(`@proxy ${btoa(proxyState(state))}`);
  return `${lines.join("\n")}\n`;
}

function inspected(state: MockServerState, container: MockContainer): unknown {
  const { running } = container;
  const slash = state.config.engine === "docker" ? "/" : "";
  const status = running ? "running" : container.exitCode === 0 ? "created" : "exited";
  return {
    id: container.id,
    name: `${slash}${container.name}`,
    image: `sha256:${"1".repeat(64)}`,
    imageName: container.image,
    created: new Date(container.createdAtMs).toISOString(),
    state: { status, running, exitCode: container.exitCode, startedAt: "" },
    labels: container.labels,
    networks: { [CONTAINER_NETWORK]: { IPAddress: running ? container.address : "" } },
  };
}

function proxyState(state: MockServerState): string {
  return JSON.stringify(
    [...state.routes].map(([name, targets]) => ({ name, active_targets: targets })),
  );
}

function probe(state: MockServerState, name: string): MockResult {
  const container = state.find(name);
  const running = container?.running === true;
  const healthy = running && !behaves(container.image, "unhealthy");
  const report = {
    healthy,
    tries: [{ at_ms: 5, outcome: healthy ? "200" : running ? "503" : "connection refused" }],
    state: { running, exit_code: container?.exitCode ?? null, oom_killed: false, restarts: 0 },
    logs_tail: healthy ? "" : "listening on :8080\n",
  };
  return { exitCode: healthy ? 0 : 1, stdout: JSON.stringify(report), stderr: "" };
}

/** `name=+has,-lacks` of `jiji-dns await`. */
function awaitNames(state: MockServerState, wishes: readonly string[]): MockResult {
  const pending = wishes.flatMap((wish) => {
    const [name = "", terms = ""] = wish.split("=");
    const answers = state.dnsFrozen ? [] : state.cluster.resolve(name.replace(/\.jiji$/, ""));
    const address = (sign: string) =>
      terms.split(",").filter((term) => term.startsWith(sign)).map((term) => term.slice(1));
    const missing = address("+").filter((one) => !answers.includes(one));
    const unwanted = address("-").filter((one) => answers.includes(one));
    return missing.length + unwanted.length === 0
      ? []
      : [{ name, answers, missing, unwanted, error: null }];
  });
  const report = { converged: pending.length === 0, waited_ms: 3, pending };
  return { exitCode: pending.length === 0 ? 0 : 1, stdout: JSON.stringify(report), stderr: "" };
}
