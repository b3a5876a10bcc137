import assert from "node:assert/strict";
import { packExecutable } from "../pack.ts";

/** Stands in for Deno: prints what it was called with, and the program it was to run. */
const RUNTIME = `#!/bin/sh
for word in "$@"; do printf '<%s>\\n' "$word"; done
for word in "$@"; do case $word in */main.js) cat "$word" ;; fail) exit 7 ;; esac; done
echo "executable $JIJI_EXECUTABLE"
`;

interface Packed {
  readonly folder: string;
  readonly executable: string;
  /** Runs it as somebody who is not root, so that it unpacks into the cache of `folder`. */
  run(args: readonly string[], options?: { cache?: string; executable?: string }): Promise<{
    readonly code: number;
    readonly stdout: string;
    readonly stderr: string;
  }>;
}

async function withPacked(work: (packed: Packed) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "pack it's here " });
  try {
    await Deno.mkdir(`${folder}/app`);
    await Deno.writeTextFile(`${folder}/app/main.js`, 'console.log("program");\n');
    await Deno.writeTextFile(`${folder}/runtime`, RUNTIME);
    await Deno.mkdir(`${folder}/bin`);
    await Deno.writeTextFile(`${folder}/bin/id`, "#!/bin/sh\necho 4242\n", { mode: 0o755 });
    const executable = `${folder}/jiji`;
    await packExecutable({
      folder: `${folder}/app`,
      entry: "main.js",
      flags: ["--allow-net", "--allow-read=/a b,/it's"],
      output: executable,
      runtime: `${folder}/runtime`,
    });
    await work({
      folder,
      executable,
      async run(args, options = {}) {
        const output = await new Deno.Command(options.executable ?? executable, {
          args: [...args],
          clearEnv: true,
          env: {
            PATH: `${folder}/bin:${Deno.env.get("PATH")}`,
            HOME: folder,
            XDG_CACHE_HOME: options.cache ?? `${folder}/cache`,
          },
          stdin: "null",
          signal: AbortSignal.timeout(60_000),
        }).output();
        const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
        return { code: output.code, stdout: text(output.stdout), stderr: text(output.stderr) };
      },
    });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const namesIn = async (folder: string) =>
  (await Array.fromAsync(Deno.readDir(folder))).map((entry) => entry.name).sort();

Deno.test("packExecutable(): unpacks at the first run, and passes everything on as it is", () =>
  withPacked(async ({ folder, executable, run }) => {
    assert.equal((await Deno.stat(executable)).mode! & 0o777, 0o755);
    const first = await run(["deploy", "a b", "", "it's", "$(id)"]);
    assert.deepEqual([first.code, first.stderr], [0, ""]);
    const lines = first.stdout.split("\n");
    assert(lines.includes("<--allow-read=/a b,/it's>"), first.stdout);
    assert(lines.includes("<--no-prompt>"));
    assert.deepEqual(lines.slice(lines.indexOf("<deploy>")), [
      "<deploy>",
      "<a b>",
      "<>",
      "<it's>",
      "<$(id)>",
      'console.log("program");',
      `executable ${executable}`,
      "",
    ]);
    const unpacked = await namesIn(`${folder}/cache/jiji`);
    assert.equal(unpacked.length, 2, "program and runtime, nothing half done");
    assert.equal((await run(["deploy", "a b", "", "it's", "$(id)"])).stdout, first.stdout);
    assert.deepEqual(await namesIn(`${folder}/cache/jiji`), unpacked);
  }));

Deno.test("packExecutable(): the program's exit code is the executable's", () =>
  withPacked(async ({ run }) => assert.equal((await run(["fail"])).code, 7)));

Deno.test("packExecutable(): parallel first runs do each other no harm", () =>
  withPacked(async ({ folder, run }) => {
    const ends = await Promise.all(Array.from({ length: 8 }, () => run(["x"])));
    for (const end of ends) assert.deepEqual([end.code, end.stderr], [0, ""]);
    assert.equal(new Set(ends.map((end) => end.stdout)).size, 1);
    assert.equal((await namesIn(`${folder}/cache/jiji`)).length, 2);
  }));

Deno.test("packExecutable(): what a killed first run left does not matter", () =>
  withPacked(async ({ folder, run }) => {
    await Deno.mkdir(`${folder}/cache/jiji/.stage.killed`, { recursive: true });
    await Deno.writeTextFile(`${folder}/cache/jiji/.stage.killed/deno`, "half of it");
    assert.equal((await run(["x"])).code, 0);
  }));

Deno.test("packExecutable(): a cache that cannot be written is named with the way on", () =>
  withPacked(async ({ folder, run }) => {
    await Deno.writeTextFile(`${folder}/file`, "");
    const end = await run(["x"], { cache: `${folder}/file` });
    assert.equal(end.code, 1);
    assert.match(end.stderr, /cannot unpack itself into .*\/file\/jiji: .*XDG_CACHE_HOME\n$/);
  }));

Deno.test("packExecutable(): half an executable leaves nothing behind", () =>
  withPacked(async ({ folder, executable, run }) => {
    const bytes = await Deno.readFile(executable);
    const half = `${folder}/half`;
    await Deno.writeFile(half, bytes.subarray(0, bytes.length - 40), { mode: 0o755 });
    const end = await run(["x"], { executable: half });
    assert.notEqual(end.code, 0);
    assert.match(end.stderr, /cannot unpack itself/);
    assert.deepEqual(await namesIn(`${folder}/cache/jiji`), []);
    assert.equal((await run(["x"])).code, 0, "the whole one runs");
  }));

Deno.test("packExecutable(): equal input gives an equal file, a new program a new place", () =>
  withPacked(async ({ folder, executable, run }) => {
    const pack = (output: string) =>
      packExecutable({
        folder: `${folder}/app`,
        entry: "main.js",
        flags: ["--allow-net", "--allow-read=/a b,/it's"],
        output,
        runtime: `${folder}/runtime`,
      });
    await pack(`${folder}/same`);
    assert.deepEqual(await Deno.readFile(`${folder}/same`), await Deno.readFile(executable));
    await run(["x"]);
    await Deno.writeTextFile(`${folder}/app/main.js`, "// two\n");
    await pack(`${folder}/other`);
    const end = await run(["x"], { executable: `${folder}/other` });
    assert.match(end.stdout, /^\/\/ two$/m);
    assert.equal((await namesIn(`${folder}/cache/jiji`)).length, 3, "one runtime, two programs");
  }));
