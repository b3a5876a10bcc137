// deno-lint-ignore-file no-console -- a command line tool prints.
/**
 * Every check and test: static checks, then unit, property, contract and simulation tests, then the
 * build, then the stories on lab servers. Behind `bin/test`.
 */
import { parseArgs } from "node:util";
import { checksFor, runCheck } from "./check.ts";

const ROOT = new URL("..", import.meta.url).pathname;

const HELP = `Usage: bin/test [--fast] [--keep-going] [FILE…]

  --fast        everything that needs no lab: checks, unit, property, contract, simulation tests
  --keep-going  go on after a part that failed
  FILE…         only these test files (those under e2e/ run on a lab)

Without options all of it runs. What lab servers need is prepared first and cached outside the
checkout; the first time takes minutes.`;

/** What the tests of one part did. */
interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

const FLAGS = ["--allow-all", "--sanitize-ops", "--sanitize-resources", "--no-check"] as const;

/** A part of the run; false when it failed. */
interface Part {
  readonly name: string;
  readonly run: (tally: Tally) => Promise<boolean>;
}

/** Runs a command with its output shown; gives what it printed. */
async function show(
  argv: readonly [string, ...string[]],
  env: Record<string, string> = {},
): Promise<{ ok: boolean; text: string }> {
  const [program, ...args] = argv;
  const child = new Deno.Command(program, {
    args,
    cwd: ROOT,
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let text = "";
  for await (const piece of child.stdout.pipeThrough(new TextDecoderStream())) {
    text += piece;
    Deno.stdout.writeSync(new TextEncoder().encode(piece));
  }
  return { ok: (await child.status).success, text };
}

/** Counts from the closing line of `deno test`. Source: Deno 2.9, pretty reporter. */
export function parseTally(text: string): Tally {
  const tally = { passed: 0, failed: 0, skipped: 0 };
  for (const match of text.matchAll(/^(?:ok|FAILED) \| (\d+) passed.*? \| (\d+) failed(.*)$/gm)) {
    tally.passed += Number(match[1]);
    tally.failed += Number(match[2]);
    tally.skipped += Number(/(\d+) ignored/.exec(match[3] ?? "")?.[1] ?? 0);
  }
  return tally;
}

function denoTest(files: readonly string[], options: { jobs?: number } = {}): Part["run"] {
  return async (tally) => {
    const { jobs } = options;
    // Without a number of its own each processor takes a file at a time, in any order.
    const order = jobs === undefined ? ["--shuffle"] : [];
    const argv = [Deno.execPath(), "test", ...FLAGS, "--parallel", ...order, ...files] as const;
    const result = await show(argv, jobs === undefined ? {} : { DENO_JOBS: String(jobs) });
    const counts = parseTally(result.text);
    tally.passed += counts.passed;
    tally.failed += counts.failed;
    tally.skipped += counts.skipped;
    return result.ok && counts.passed > 0;
  };
}

async function staticChecks(tally: Tally): Promise<boolean> {
  let ok = true;
  for (const check of await checksFor([])) {
    const problem = await runCheck(check);
    console.log(`${problem === undefined ? "ok  " : "FAIL"}  ${check.name}`);
    if (problem === undefined) tally.passed++;
    else {
      tally.failed++;
      ok = false;
      console.log(problem);
    }
  }
  return ok;
}

/** Stories told at once, each on a lab of its own: they wait for servers most of the time. */
const STORY_JOBS = 2;

const QUICK_TESTS = ["packages/core", "packages/cli", "packages/dns", "packages/daemon", "tools"];

async function endToEndFiles(): Promise<string[]> {
  const files: string[] = [];
  for await (const entry of Deno.readDir(`${ROOT}e2e`)) {
    if (entry.name.endsWith("_e2e_test.ts")) files.push(`e2e/${entry.name}`);
  }
  return files.sort();
}

function partsFor(fast: boolean, files: readonly string[]): Part[] {
  const prepare: Part = {
    name: "prepare what tests need",
    run: async () => (await show(["bin/lab", "prepare"])).ok,
  };
  const build: Part = { name: "build", run: async () => (await show(["bin/build"])).ok };
  if (files.length > 0) {
    const stories = files.filter((file) => file.includes("e2e/"));
    const others = files.filter((file) => !file.includes("e2e/"));
    return [
      ...(others.length > 0 ? [{ name: "tests", run: denoTest(others) }] : []),
      ...(stories.length > 0
        ? [prepare, build, { name: "stories", run: denoTest(stories, { jobs: STORY_JOBS }) }]
        : []),
    ];
  }
  const quick: Part[] = [
    { name: "checks", run: staticChecks },
    {
      name: "unit, property, contract, simulation",
      run: denoTest(QUICK_TESTS),
    },
  ];
  if (fast) return quick;
  return [
    quick[0]!,
    prepare,
    quick[1]!,
    build,
    {
      name: "stories on lab servers",
      run: async (tally) => await denoTest(await endToEndFiles(), { jobs: STORY_JOBS })(tally),
    },
    {
      name: "nothing of a lab is left",
      run: async (tally) => {
        const result = await show(["bin/lab", "leftovers"]);
        if (result.ok) tally.passed++;
        else tally.failed++;
        return result.ok;
      },
    },
  ];
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    args: Deno.args,
    allowPositionals: true,
    options: {
      fast: { type: "boolean", default: false },
      "keep-going": { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const tally: Tally = { passed: 0, failed: 0, skipped: 0 };
  const startedMs = performance.now();
  let ok = true;
  for (const part of partsFor(values.fast, positionals)) {
    const partMs = performance.now();
    console.log(`\n== ${part.name}`);
    const held = await part.run(tally);
    const seconds = ((performance.now() - partMs) / 1000).toFixed(1);
    console.log(`== ${part.name}: ${held ? "ok" : "FAILED"} in ${seconds} s`);
    ok &&= held;
    if (!held && !values["keep-going"]) break;
  }
  const minutes = ((performance.now() - startedMs) / 60_000).toFixed(1);
  if (!ok && tally.failed === 0) tally.failed = 1;
  const skipped = tally.skipped > 0 ? `, ${tally.skipped} skipped` : "";
  console.log(`\nAll parts took ${minutes} min.`);
  console.log(`${tally.passed} passed, ${tally.failed} failed${skipped}`);
  return ok ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main());
