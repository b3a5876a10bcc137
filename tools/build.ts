// deno-lint-ignore-file no-console -- a command line tool prints.
/**
 * Makes the three programs as single executables in `build/`. `deno compile` is used where its
 * runtime can be had; elsewhere bundle and runtime are packed into one self-extracting file of the
 * same name and behaviour (docs/architecture.md, "Executables").
 *
 * Usage: deno run -A tools/build.ts [--pack | --compile] [jiji] [jiji-dns] [jiji-daemon]
 */
import { packExecutable } from "./pack.ts";

const PROGRAMS = [
  { name: "jiji", folder: "packages/cli" },
  { name: "jiji-dns", folder: "packages/dns" },
  { name: "jiji-daemon", folder: "packages/daemon" },
] as const;

type Program = typeof PROGRAMS[number];
type Method = "compile" | "pack";

const ROOT = new URL("..", import.meta.url).pathname;

async function deno(args: readonly string[]): Promise<{ ok: boolean; text: string }> {
  const output = await new Deno.Command(Deno.execPath(), { args: [...args], cwd: ROOT }).output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { ok: output.success, text: decode(output.stdout) + decode(output.stderr) };
}

/** Deno flags of a program: its permissions, one a line, `#` begins a comment. */
async function permissionFlags(program: Program): Promise<string[]> {
  const text = await Deno.readTextFile(`${ROOT}${program.folder}/permissions.txt`);
  return text.split("\n").map((line) => line.replace(/#.*/, "").trim()).filter(Boolean);
}

/** Whether `deno compile` can fetch its runtime here; tried on a one-line program. */
async function canCompile(): Promise<boolean> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/probe.ts`, "export {};\n");
    return (await deno(["compile", "--output", `${folder}/probe`, `${folder}/probe.ts`])).ok;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** ssh2 tries native add-ons and falls back to plain code; they are never in the bundle. */
const EXTERNALS = ["--external", "cpu-features", "--external", "*.node"];

async function bundle(program: Program, folder: string): Promise<void> {
  const result = await deno([
    "bundle",
    "--code-splitting",
    "--minify",
    ...EXTERNALS,
    "--outdir",
    folder,
    `${program.folder}/src/main.ts`,
  ]);
  if (!result.ok) throw new Error(`bundling ${program.name} failed:\n${result.text}`);
}

async function build(program: Program, method: Method): Promise<void> {
  const startedMs = performance.now();
  const flags = await permissionFlags(program);
  const output = `${ROOT}build/${program.name}`;
  const folder = await Deno.makeTempDir();
  try {
    await bundle(program, folder);
    if (method === "compile") {
      const result = await deno(["compile", ...flags, "--output", output, `${folder}/main.js`]);
      if (!result.ok) throw new Error(`compiling ${program.name} failed:\n${result.text}`);
    } else {
      await packExecutable({ folder, entry: "main.js", flags, output, runtime: Deno.execPath() });
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  const megabytes = ((await Deno.stat(output)).size / 1e6).toFixed(0);
  console.log(`  build/${program.name}  ${megabytes} MB  ${method}  ${seconds} s`);
}

if (import.meta.main) {
  const wanted = Deno.args.filter((argument) => !argument.startsWith("--"));
  const unknown = wanted.find((name) => !PROGRAMS.some((program) => program.name === name));
  if (unknown) {
    console.error(`bin/build: no program "${unknown}"; programs: jiji, jiji-dns, jiji-daemon`);
    Deno.exit(2);
  }
  const method: Method = Deno.args.includes("--pack")
    ? "pack"
    : Deno.args.includes("--compile") || await canCompile()
    ? "compile"
    : "pack";
  await Deno.mkdir(`${ROOT}build`, { recursive: true });
  for (const program of PROGRAMS) {
    if (wanted.length === 0 || wanted.includes(program.name)) await build(program, method);
  }
}
