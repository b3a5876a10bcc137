// deno-lint-ignore-file no-console -- stories tell what they measured.
/** A copy of the example project, a lab to deploy it to, and the words the stories are told in. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { LoadReport } from "../tools/load.ts";
import { CHECKOUT, type CommandOutcome, type EngineKind, eventually, Lab } from "./lab.ts";

/** Longest time of one run of jiji, milliseconds. */
const JIJI_TIMEOUT_MS = 6 * 60_000;
/** Requests a second of a load: all servers' proxies together. */
const LOAD_RATE = 60;
/** Requests in flight at once, so that one slow answer does not hold up the rest. */
const LOAD_CONCURRENCY = 12;

/** The engine that stories are told with: `JIJI_E2E_ENGINE=podman bin/test e2e/…` tells them so. */
export const STORY_ENGINE: "docker" | "podman" = Deno.env.get("JIJI_E2E_ENGINE") === "podman"
  ? "podman"
  : "docker";

/** What a shop is opened with. */
export interface ShopOptions {
  /** Name of its lab. */
  readonly name: string;
  /** Servers in the lab and in the configuration. Default: 3. */
  readonly servers?: number;
  /** What the servers come with. Default: {@link STORY_ENGINE}, so that nothing must be installed. */
  readonly engine?: EngineKind;
  /** Changes the example's configuration before the first command. */
  readonly configure?: (text: string) => string;
}

/** An event of `--json`. */
export interface ShopEvent {
  readonly event: string;
  readonly lane?: string;
  readonly title?: string;
  readonly message?: string;
}

/** A load that goes on until it is stopped. */
export interface RunningLoad {
  /** Ends it; every request is accounted for. */
  stop(): Promise<LoadReport>;
}

/** Prints a line of a story: what was measured. */
export function tell(text: string): void {
  console.log(`    · ${text}`);
}

/** A step of a story whose later steps make no sense when it fails: then the story ends. */
export async function chapter(
  t: Deno.TestContext,
  name: string,
  work: () => void | Promise<void>,
): Promise<void> {
  assert.ok(await t.step(name, work), `the story ends at: ${name}`);
}

/** Seconds since an instant of `performance.now()`, for telling. */
export function secondsSince(startedMs: number): string {
  return ((performance.now() - startedMs) / 1000).toFixed(1);
}

/** A copy of examples/shop in a folder of its own, on a lab of its own; both end with the scope. */
export class Shop implements AsyncDisposable {
  /** The servers and the laptop. */
  readonly lab: Lab;
  /** The project's folder. */
  readonly folder: string;
  readonly #base: string;

  private constructor(lab: Lab, base: string) {
    this.lab = lab;
    this.#base = base;
    this.folder = join(base, "shop");
  }

  /** Boots the servers and copies the project; nothing of jiji runs yet. */
  static async open(options: ShopOptions): Promise<Shop> {
    const servers = options.servers ?? 3;
    const lab = await Lab.up({
      name: options.name,
      servers,
      engine: options.engine ?? STORY_ENGINE,
    });
    const base = await Deno.makeTempDir({ prefix: `jiji-${options.name}-` });
    const shop = new Shop(lab, base);
    try {
      // A copy, so that a build beside the test changes nothing under it.
      await copy(`${CHECKOUT}/build`, join(base, "bin"));
      await copy(`${CHECKOUT}/examples/shop`, shop.folder);
      if (STORY_ENGINE === "podman") {
        await shop.configure((text) => text.replace("engine: docker", "engine: podman"));
      }
      if (options.configure) await shop.configure(options.configure);
    } catch (error) {
      await shop[Symbol.asyncDispose]();
      throw error;
    }
    return shop;
  }

  /** Opens a shop, makes its servers a cluster and deploys version 1 to it. */
  static async serving(options: ShopOptions): Promise<Shop> {
    const shop = await Shop.open(options);
    try {
      await shop.must("server", "init");
      await shop.must("deploy", "--version", "v1");
    } catch (error) {
      await shop[Symbol.asyncDispose]();
      throw error;
    }
    return shop;
  }

  /** Argument list that runs this build's jiji on the laptop. */
  argv(...args: readonly string[]): string[] {
    return [join(this.#base, "bin/jiji"), ...args];
  }

  /** Runs jiji in the project's folder and gives what it left, whatever its exit code. */
  async jiji(...args: readonly string[]): Promise<CommandOutcome> {
    return await this.jijiIn(this.folder, args);
  }

  /** Runs jiji in a folder. */
  async jijiIn(
    cwd: string,
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ): Promise<CommandOutcome> {
    return await this.lab.tryRun(this.argv(...args), { cwd, env, timeoutMs: JIJI_TIMEOUT_MS });
  }

  /** Runs jiji and gives its standard output; it must end with 0. */
  async must(...args: readonly string[]): Promise<string> {
    const outcome = await this.jiji(...args);
    assert.equal(outcome.code, 0, `jiji ${args.join(" ")}\n${spoken(outcome)}`);
    return outcome.stdout;
  }

  /** Another copy of the project as it is now, as on another laptop. */
  async copyProject(name: string): Promise<string> {
    const folder = join(this.#base, name);
    await Deno.remove(folder, { recursive: true }).catch(() => undefined);
    await copy(this.folder, folder);
    return folder;
  }

  /** Changes the configuration. */
  async configure(change: (text: string) => string): Promise<void> {
    await edit(join(this.folder, ".jiji/deploy.yml"), change);
  }

  /** Makes the next build of web another version. */
  async setVersion(version: string): Promise<void> {
    await Deno.writeTextFile(join(this.folder, "web/www/version"), `${version}\n`);
  }

  /** Replaces what web runs; gives back the old text. */
  async setScript(text: string): Promise<string> {
    const path = join(this.folder, "web/run.sh");
    const old = await Deno.readTextFile(path);
    await Deno.writeTextFile(path, text);
    return old;
  }

  /** What a visitor of a server's proxy reads; text of the failure when there is none. */
  async page(server: string, path = "/cgi-bin/stock"): Promise<string> {
    const url = `http://${this.lab.address(server)}${path}`;
    const outcome = await this.lab.tryRun(["curl", "-sS", "-f", "-m", "10", url]);
    return outcome.stdout + outcome.stderr;
  }

  /** Asserts that every server's proxy serves a version and reaches the api from there. */
  async assertServes(version: string, servers: readonly string[]): Promise<void> {
    for (const server of servers) {
      const page = await this.page(server);
      assert.match(page, new RegExp(`web version ${version} on `), `${server}: ${page}`);
      assert.match(page, /api says: three mugs/, `${server}: ${page}`);
    }
  }

  /** Waits until a server's proxy serves pages made with the api's answer; gives seconds. */
  async servesAgain(server: string, timeoutMs: number): Promise<string> {
    const startedMs = performance.now();
    await eventually(`${server} serves a page with the api's answer`, async () => {
      return (await this.page(server)).includes("three mugs") ? true : undefined;
    }, { timeoutMs });
    return secondsSince(startedMs);
  }

  /** Starts constant load through the proxies of servers. */
  startLoad(servers: readonly string[]): RunningLoad {
    const urls = servers.map((server) => `http://${this.lab.address(server)}/up`);
    const options = ["--concurrency", String(LOAD_CONCURRENCY), "--rate", String(LOAD_RATE)];
    const argv = [Deno.execPath(), "run", "--allow-net", `${CHECKOUT}/tools/load.ts`];
    const child = this.lab.spawn([...argv, ...options, "--expect", "ok", ...urls], {
      stdin: "piped",
    });
    const stdout = new Response(child.stdout).text();
    const stderr = new Response(child.stderr).text();
    return {
      stop: async () => {
        await child.stdin.close();
        const [text, complaint] = await Promise.all([stdout, stderr, child.status]);
        assert.ok(text.startsWith("{"), `the load ended without a report: ${complaint}`);
        const report: LoadReport = JSON.parse(text);
        return report;
      },
    };
  }

  /** Asserts that no request fails while `work` runs; tells and gives the counts. */
  async underLoad<T>(
    what: string,
    servers: readonly string[],
    work: () => Promise<T>,
  ): Promise<T> {
    const load = this.startLoad(servers);
    let report: LoadReport;
    let result: T;
    try {
      result = await work();
    } finally {
      report = await load.stop();
      tell(`${what}: ${renderLoad(report)}`);
    }
    assertNoneFailed(report, what);
    return result;
  }

  /** Names of the containers of a server, sorted. */
  async containers(server: string, engine: string = STORY_ENGINE): Promise<string[]> {
    const text = await this.lab.on(server, [engine, "ps", "-a", "--format", "{{.Names}}"]);
    return text.split("\n").filter(Boolean).sort();
  }

  /** Ends the lab and removes the project. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab[Symbol.asyncDispose]();
    await Deno.remove(this.#base, { recursive: true });
  }
}

/** What a run of jiji said, for assertions. */
export function spoken(outcome: CommandOutcome): string {
  return `exit ${outcome.code}\n${outcome.stdout}\n${outcome.stderr}`;
}

/** The events among the lines of `--json`. */
export function eventsOf(stderr: string): ShopEvent[] {
  return stderr.split("\n").filter((line) => line.startsWith("{")).map((line) => {
    const event: ShopEvent = JSON.parse(line);
    return event;
  });
}

/** One line about a load. */
export function renderLoad(report: LoadReport): string {
  const seconds = (report.durationMs / 1000).toFixed(1);
  return `${report.sent} requests sent in ${seconds} s, ${report.failed} failed, ` +
    `slowest ${report.slowestMs} ms`;
}

/** Asserts that a load was answered whole, and that it was one. */
export function assertNoneFailed(report: LoadReport, what: string): void {
  assert.ok(report.sent > 20, `${what}: only ${report.sent} requests sent`);
  assert.equal(report.failed, 0, `${what}: ${JSON.stringify(report.outcomes)}`);
}

/** Changes a text file. */
export async function edit(path: string, change: (text: string) => string): Promise<void> {
  const text = await Deno.readTextFile(path);
  const changed = change(text);
  assert.notEqual(changed, text, `the change of ${path} changes nothing`);
  await Deno.writeTextFile(path, changed);
}

async function copy(from: string, to: string): Promise<void> {
  const outcome = await new Deno.Command("cp", { args: ["-r", from, to] }).output();
  assert.ok(outcome.success, new TextDecoder().decode(outcome.stderr));
}
