// deno-lint-ignore-file no-console -- a command line tool prints.
/** Static checks: formatting, lint (with layers and documented exports), types, versions. */

/** One check: what it is called and the command that fails when it does not hold. */
export interface Check {
  readonly name: string;
  readonly argv: readonly [string, ...string[]];
}

const ROOT = new URL("..", import.meta.url).pathname;

async function sourceFiles(folder: string): Promise<string[]> {
  const files: string[] = [];
  for await (const entry of Deno.readDir(ROOT + folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) files.push(...await sourceFiles(path));
    else if (/\.ts$/.test(entry.name)) files.push(path);
  }
  return files.sort();
}

/** Checks of some folders; of the whole workspace without any. */
export async function checksFor(folders: readonly string[]): Promise<Check[]> {
  const deno = Deno.execPath();
  const all = folders.length === 0;
  const where = all ? ["packages", "tools", "e2e", "bench"] : [...folders];
  const sources = (await Promise.all(where.map(sourceFiles))).flat();
  return [
    { name: "format", argv: [deno, "fmt", "--check", ...(all ? [] : where)] },
    { name: "lint", argv: [deno, "lint", ...(all ? [] : where)] },
    { name: "types", argv: [deno, "check", "--quiet", ...sources] },
    { name: "version", argv: ["bin/version"] },
  ];
}

/** Runs one check; gives its output when it fails, undefined when it holds. */
export async function runCheck(check: Check): Promise<string | undefined> {
  const [program, ...args] = check.argv;
  const output = await new Deno.Command(program, { args, cwd: ROOT }).output();
  if (output.success) return undefined;
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return decode(output.stdout) + decode(output.stderr);
}

if (import.meta.main) {
  let failed = 0;
  for (const check of await checksFor(Deno.args)) {
    const startedMs = performance.now();
    const problem = await runCheck(check);
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    console.log(`${problem === undefined ? "ok  " : "FAIL"}  ${check.name}  ${seconds} s`);
    if (problem !== undefined) {
      console.log(problem);
      failed++;
    }
  }
  Deno.exit(failed === 0 ? 0 : 1);
}
