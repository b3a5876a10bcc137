// deno-lint-ignore-file no-console -- a command line tool prints.
/**
 * The demo behind `bin/demo`: bare lab servers → `jiji server init` → `jiji deploy`, then a new
 * version under load, then a broken one that is refused. It fails when any promise is broken.
 */
import { join } from "node:path";
import type { LoadReport } from "./load.ts";

const ROOT = new URL("..", import.meta.url).pathname;
const LAB = Deno.env.get("JIJI_LAB") ?? "demo";
const PROJECT = join(Deno.env.get("TMPDIR") ?? "/tmp", `jiji-${LAB}`, "shop");
const SERVERS = ["203.0.113.11", "203.0.113.12", "203.0.113.13"] as const;

/** A promise of jiji that did not hold; ends the demo. */
class Broken extends Error {}

interface RunOptions {
  readonly cwd?: string;
  /** Show what it prints while it runs. */
  readonly show: boolean;
}

interface Ran {
  readonly code: number;
  readonly stdout: string;
}

async function run(argv: readonly [string, ...string[]], options: RunOptions): Promise<Ran> {
  const [program, ...args] = argv;
  const child = new Deno.Command(program, {
    args,
    cwd: options.cwd ?? ROOT,
    stdin: "null",
    stdout: options.show ? "inherit" : "piped",
    stderr: options.show ? "inherit" : "piped",
  });
  if (options.show) return { code: (await child.spawn().status).code, stdout: "" };
  const output = await child.output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  if (!output.success) console.error(decode(output.stderr).trim());
  return { code: output.code, stdout: decode(output.stdout) };
}

/** As the operator's laptop, in the project's folder. */
function laptop(argv: readonly [string, ...string[]], show = true): Promise<Ran> {
  return run([`${ROOT}bin/lab`, "run", "--", ...argv], { cwd: PROJECT, show });
}

async function jiji(...args: readonly string[]): Promise<number> {
  console.log(`\n$ jiji ${args.join(" ")}`);
  return (await laptop(["jiji", ...args])).code;
}

async function must(what: string, code: Promise<number>): Promise<void> {
  if (await code !== 0) throw new Broken(`${what} failed`);
}

let chapter = 0;
const startedMs = performance.now();

function title(text: string): void {
  const seconds = Math.round((performance.now() - startedMs) / 1000);
  console.log(`\n\n━━ ${++chapter}. ${text}  (${seconds} s since the start)`);
}

async function setUp(): Promise<void> {
  title("Three bare servers: systemd and SSH, nothing else");
  const build = run([`${ROOT}bin/build`], { show: true });
  await must("preparing the lab", run([`${ROOT}bin/lab`, "prepare"], { show: true }).then(code));
  await must("building jiji", build.then(code));
  await run([`${ROOT}bin/lab`, "down"], { show: false });
  await must("starting the lab", run([`${ROOT}bin/lab`, "up", "3"], { show: true }).then(code));
  await Deno.remove(join(PROJECT, ".."), { recursive: true }).catch(() => undefined);
  await Deno.mkdir(join(PROJECT, ".."), { recursive: true });
  await must(
    "copying the example",
    run(["cp", "-r", `${ROOT}examples/shop`, PROJECT], { show: false }).then(code),
  );
}

function code(ran: Ran): number {
  return ran.code;
}

async function showPages(version: string): Promise<void> {
  for (const server of SERVERS) {
    const url = `http://${server}/cgi-bin/stock`;
    const page = (await laptop(["curl", "-sS", "-m", "20", url], false)).stdout.trim();
    console.log(`\n$ curl ${url}\n${page}`);
    if (!page.includes(`web version ${version} `)) {
      throw new Broken(`${url} is not version ${version}`);
    }
    if (!page.includes("api says: three mugs")) throw new Broken(`${url} did not reach the api`);
  }
}

async function showName(): Promise<void> {
  const inside = ["docker", "exec", "shop-web", "sh", "-c"] as const;
  const script = "nslookup shop-api.jiji | tail -n +4; wget -q -O - http://shop-api.jiji:8080/";
  console.log(`\ns1 $ ${inside.join(" ")} '${script}'`);
  const argv = [`${ROOT}bin/lab`, "on", "s1", "--", ...inside, script] as const;
  const { stdout } = await run([...argv], { show: false });
  console.log(stdout.trim());
  if (!stdout.includes("three mugs")) {
    throw new Broken("s1 did not reach the api on s2 by its name");
  }
}

async function setVersion(version: string): Promise<void> {
  await Deno.writeTextFile(join(PROJECT, "web/www/version"), `${version}\n`);
}

/** Sends load through every server's proxy while `work` runs. */
async function underLoad(work: () => Promise<void>): Promise<void> {
  const urls = SERVERS.map((server) => `http://${server}/up`);
  const child = new Deno.Command(`${ROOT}bin/lab`, {
    args: ["run", "--", Deno.execPath(), "run", "--allow-net", `${ROOT}tools/load.ts`]
      .concat(["--concurrency", "4", "--expect", "ok"], urls),
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const output = child.stdout.pipeThrough(new TextDecoderStream());
  try {
    await work();
  } finally {
    await child.stdin.close();
  }
  const report: LoadReport = JSON.parse((await Array.fromAsync(output)).join(""));
  await child.status;
  const seconds = (report.durationMs / 1000).toFixed(1);
  console.log(
    `\nLoad through all three proxies for ${seconds} s: ${report.sent} requests sent, ` +
      `${report.failed} failed; slowest answer ${report.slowestMs} ms.`,
  );
  if (report.failed > 0 || report.sent === 0) {
    throw new Broken(`requests failed: ${JSON.stringify(report.outcomes)}`);
  }
}

async function main(): Promise<void> {
  await setUp();
  title("Bare servers become a cluster");
  await must("server init", jiji("server", "init"));
  await must("network status", jiji("network", "status"));
  title("Deploy: web on every server, api on s2");
  await must("deploy", jiji("deploy", "--version", "v1"));
  await must("services list", jiji("services", "list"));
  await showPages("1");
  title("A container on s1 calls the service on s2 by its name");
  await showName();
  title("Version 2, under load");
  await setVersion("2");
  await underLoad(() => must("deploy of version 2", jiji("deploy", "--version", "v2")));
  await showPages("2");
  title("Version 3 is broken: it never answers. It must be refused");
  await setVersion("3");
  const script = join(PROJECT, "web/run.sh");
  await Deno.writeTextFile(script, "#!/bin/sh\necho 'cannot open the database'\nsleep 600\n");
  const config = join(PROJECT, ".jiji/deploy.yml");
  const text = await Deno.readTextFile(config);
  await Deno.writeTextFile(config, `${text}\ndeploy:\n  health_timeout: 5s\n`);
  await underLoad(async () => {
    const exit = await jiji("deploy", "--version", "v3");
    console.log(`\nexit ${exit}`);
    if (exit === 0) throw new Broken("the broken version was taken");
  });
  await showPages("2");
  console.log(`
━━ Done in ${
    Math.round((performance.now() - startedMs) / 1000)
  } s. The lab is still running; go on playing:

  export JIJI_LAB=${LAB}
  cd ${PROJECT}
  ${ROOT}bin/lab shell             # a shell as the operator's laptop; jiji is on PATH
  ${ROOT}bin/lab on s1             # a shell on a server
  ${ROOT}bin/lab kill s2           # power loss; then: bin/lab boot s2

Clean up:

  JIJI_LAB=${LAB} ${ROOT}bin/lab down; rm -r ${join(PROJECT, "..")}
`);
}

if (import.meta.main) {
  try {
    await main();
    Deno.exit(0);
  } catch (error) {
    if (!(error instanceof Broken)) throw error;
    console.error(`\n✖ ${error.message}`);
    console.error(
      `The lab is still there to look at: JIJI_LAB=${LAB} bin/lab status; end it with bin/lab down`,
    );
    Deno.exit(1);
  }
}
