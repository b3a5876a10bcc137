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
import { parseStepScript } from "./mock_step_script.ts";
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

  /** Runs a step script step by step, any other command whole, and hands on what it printed. */
  async stream(argv: Argv, options: RemoteStreamOptions): Promise<RemoteStreamResult> {
    const { stdin, signal, timeoutMs } = options;
    const mark = argv[3] ?? "";
    if (argv[0] === "sh" && /^jiji-[a-f0-9]{24}$/.test(mark)) {
      await this.#steps(mark, typeof stdin === "string" ? stdin : "", options);
      return { exitCode: 0 };
    }
    const result = await this.run(argv, {
      timeoutMs,
      ...(stdin === undefined ? {} : { stdin }),
      ...(signal === undefined ? {} : { signal }),
    });
    options.onStdout(result.stdout);
    options.onStderr(result.stderr);
    return { exitCode: result.exitCode };
  }

  /** Each step is a command of its own here, so that a test can cut off before and after each. */
  async #steps(mark: string, script: string, options: RemoteStreamOptions): Promise<void> {
    for (const { kind, number, argv, stdin, secretFile } of parseStepScript(script)) {
      options.onStderr(`\n${mark} begin ${number}\n`);
      options.onStdout(`${mark} begin ${number}\n`);
      if (secretFile) {
        const bytes = new TextEncoder().encode(secretFile.content);
        this.state.files.set(secretFile.path, { bytes, mode: 0o600, owner: "root:root" });
      }
      let result: CommandResult;
      try {
        result = await this.run(argv, {
          timeoutMs: options.timeoutMs,
          stdin,
          ...(options.signal === undefined ? {} : { signal: options.signal }),
        });
      } finally {
        if (secretFile) this.state.files.delete(secretFile.path);
      }
      options.onStdout(`${result.stdout}\n${mark} end ${number} ${result.exitCode}\n`);
      options.onStderr(result.stderr);
      if (result.exitCode !== 0 && kind === "step") return;
    }
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
        // A server without curl: the program that the script falls back to.
        if (args[0] === "-c") return this.#answer(args.slice(5) as unknown as Argv, stdin);
        return args[0] === "-s" ? runScript(state, stdin, args.slice(2)) : undefined;
      case "mkdir":
        args.slice(1).forEach((folder) => state.folders.add(folder));
        return ok();
      case "rm":
        state.files.delete(args.at(-1) ?? "");
        return ok();
      case "pull_missing":
        return state.images.has(args[1] ?? "") ? ok() : runEngine(state, args.slice(3));
      case "await_healthy":
        return this.#answer(args.slice(2) as unknown as Argv, stdin);
      case "switch_route":
        return switchRoute(state, args);
      case "drain_route":
        return drainRoute(state, args);
      case "run_release":
        return runRelease(state, args);
      case "keep_release":
      case "append_line":
        state.files.set(args.slice(0, 2).join("/"), {
          bytes: new TextEncoder().encode(stdin),
          mode: 0o600,
          owner: "root:root",
        });
        return ok();
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

/** The scripts that travel over stdin, told apart by what only they contain. */
function runScript(
  state: MockServerState,
  script: string,
  args: readonly string[],
): MockResult {
  if (script.includes("chown -R")) return giveAway(state, args);
  if (script.includes("@container")) return ok(observation(state));
  if (script.includes("kamal-proxy list")) return ok();
  return undefined;
}

/** Kind, mode, owner and path, again and again. */
function giveAway(state: MockServerState, args: readonly string[]): MockResult {
  for (let at = 0; at < args.length; at += 4) {
    const [kind, mode = "", owner = "", path = ""] = args.slice(at, at + 4);
    if (!/^[0-7]{3,4}$/.test(mode) || !path.startsWith("/")) return undefined;
    const below = [...state.files].filter(([name]) =>
      kind === "d" ? name.startsWith(`${path}/`) : name === path
    );
    if (kind === "f" && below.length === 0) return failed(1, `cannot access '${path}'`);
    if (owner !== "-") below.forEach(([, file]) => file.owner = owner);
  }
  return ok();
}

/** The engine's command, then the proxy's listing. */
function switchRoute(state: MockServerState, args: readonly string[]): MockResult {
  const [engine, volume, _folder, ...words] = args;
  const command = vouched(words);
  if (engine !== state.config.engine || volume !== PROXY_VOLUME || command[0] !== engine) {
    return undefined;
  }
  const result = runEngine(state, command.slice(1));
  if (result === undefined || result.exitCode !== 0) return result;
  return state.proxyVolume ? ok(proxyState(state)) : failed(1, `no such volume: ${PROXY_VOLUME}`);
}

/** The command that is run while jiji-daemon vouches for its targets; any other as it is. */
function vouched(words: readonly string[]): readonly string[] {
  const [program, verb, targets = "", timeout = "", dashes, ...command] = words;
  if (program !== `${SERVER_PATHS.bin}/jiji-daemon`) return words;
  const known = verb === "vouch" && /^--targets=[0-9.]+:\d+(,[0-9.]+:\d+)*$/.test(targets) &&
    /^--timeout-ms=\d+$/.test(timeout) && dashes === "--";
  return known ? command : [];
}

function drainRoute(state: MockServerState, args: readonly string[]): MockResult {
  const [engine, proxy = "", route = "", drain = ""] = args;
  if (engine !== state.config.engine || !/^\d+$/.test(drain)) return undefined;
  return runEngine(state, ["exec", proxy, "kamal-proxy", "remove", route]);
}

/** Runs the one-off container: it is gone at its end; what its image is called decides how. */
function runRelease(state: MockServerState, args: readonly string[]): MockResult {
  const [engine, name = "", seconds = "", program, run, ...flags] = args;
  const known = engine === state.config.engine && program === engine && run === "run" &&
    /^\d+$/.test(seconds) && flags[0] === "--rm" && flags[2] === name;
  if (!known) return undefined;
  const file = flags[flags.indexOf("--env-file") + 1] ?? "";
  if (!state.files.has(file)) return failed(125, `open ${file}: no such file`);
  state.released.push(flags.slice(-1)[0] ?? "");
  return flags.some((flag) => behaves(flag, "unmigratable"))
    ? { exitCode: 3, stdout: "table is locked\n", stderr: "" }
    : ok("migrated\n");
}

function observation(state: MockServerState): string {
  const lines = [`@config ${btoa(JSON.stringify(state.config))}`];
  for (const container of state.containers) {
    lines.push(`@container ${JSON.stringify(inspected(state, container))}`);
  }
  const kept = [...state.files].filter(([path]) => path.includes("/releases/")).sort();
  for (const [, { bytes }] of kept) {
    const image = /"spec":{"image":"([^"]*)"/.exec(new TextDecoder().decode(bytes))?.[1];
    lines.push(`@release ${image}`);
  }
  for (const image of [...state.images].reverse()) lines.push(`@image ${image}`);
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
