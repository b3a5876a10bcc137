import assert from "node:assert/strict";
import { VERSION } from "@jiji/core";
import { configText } from "./configuration_fixture.ts";
import { inFolder } from "./local_host.ts";

const MAIN = new URL("../src/main.ts", import.meta.url).pathname;
const CONFIG = new URL("../../../deno.json", import.meta.url).pathname;

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs jiji from its sources, as a process of its own. */
async function jiji(args: readonly string[], cwd = "/"): Promise<Ended> {
  const output = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", "--quiet", `--config=${CONFIG}`, MAIN, ...args],
    cwd,
    env: { NO_COLOR: "1", LANG: "C.UTF-8", COLUMNS: "80" },
    stdin: "null",
    signal: AbortSignal.timeout(120_000),
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code: output.code, stdout: text(output.stdout), stderr: text(output.stderr) };
}

/** Subcommands that a help screen lists. */
function commandsIn(help: string): string[] {
  const list = help.split("\nCommands:\n")[1]?.split("\n\n")[0] ?? "";
  return [...list.matchAll(/^ {2}([a-z][a-z-]*)/gm)].map((match) => match[1]!)
    .filter((name) => name !== "help");
}

/** Every command's help, by its words. */
async function helpOf(words: readonly string[]): Promise<Map<string, Ended>> {
  const ended = await jiji([...words, "--help"]);
  const below = await Promise.all(
    commandsIn(ended.stdout).map((name) => helpOf([...words, name])),
  );
  return new Map([[words.join(" "), ended], ...below.flatMap((screens) => [...screens])]);
}

function assertNoStackTrace({ stderr, stdout }: Ended): void {
  assert(!/^\s+at .*[:(]/m.test(stderr + stdout), stderr);
  assert(!/This is a bug in jiji/.test(stderr), stderr);
}

Deno.test("jiji --help: the help screen of every command", async (t) => {
  const screens = await helpOf([]);
  for (
    const wanted of ["init", "version", "server init", "deploy", "network status", "services list"]
  ) {
    assert(screens.has(wanted), wanted);
  }
  for (const [words, { code, stdout, stderr }] of screens) {
    assert.deepEqual([code, stderr], [0, ""], words);
    assert(stdout.split("\n").every((line) => line.length <= 80), `${words}: wider than 80`);
    await t.assertSnapshot(stdout, `jiji ${words} --help`);
  }
});

Deno.test("jiji: without a command shows its help", async () => {
  const [none, help] = await Promise.all([jiji([]), jiji(["--help"])]);
  assert.deepEqual([none.code, none.stdout], [0, help.stdout]);
});

Deno.test("jiji: what it does not understand ends with 2, a suggestion and no stack trace", async () => {
  const wrong: readonly [readonly string[], RegExp][] = [
    [["depoly"], /unknown command 'depoly'[^]*Did you mean deploy\?/],
    [["services", "lsit"], /unknown command 'lsit'[^]*Did you mean list\?/],
    [["deploy", "--hots", "s1"], /unknown option '--hots'[^]*Did you mean --hosts\?/],
    [["services", "list", "--nope"], /\(jiji services list --help shows more\)/],
    [["deploy", "web"], /too many arguments/],
    [["deploy", "--config-file"], /argument missing/],
    [["server"], /Usage: jiji server/],
    [["--nonsense"], /unknown option '--nonsense'/],
  ];
  await Promise.all(wrong.map(async ([args, pattern]) => {
    const ended = await jiji(args);
    assert.equal(ended.code, 2, `${args.join(" ")}: ${ended.stderr}`);
    assert.match(ended.stderr, pattern);
    assert.equal(ended.stdout, "", args.join(" "));
    assertNoStackTrace(ended);
  }));
});

Deno.test("jiji: filters that match nothing end with 2 before anything is connected", () =>
  inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/.jiji`);
    await Deno.writeTextFile(`${folder}/.jiji/deploy.yml`, configText());
    const [service, host] = await Promise.all([
      jiji(["deploy", "--plan", "--services", "wep"], folder),
      jiji(["services", "list", "--hosts", "s9"], folder),
    ]);
    assert.deepEqual([service.code, host.code], [2, 2], service.stderr + host.stderr);
    assert.match(service.stderr, /--services "wep" matches no service[^]*there are: web/);
    assert.match(host.stderr, /--hosts "s9" matches no server/);
    [service, host].forEach(assertNoStackTrace);
  }));

Deno.test("jiji: a missing or wrong configuration ends with 3, in text and as JSON", () =>
  inFolder(async (folder) => {
    const missing = await jiji(["services", "list"], folder);
    assert.equal(missing.code, 3, missing.stderr);
    await Deno.mkdir(`${folder}/.jiji`);
    await Deno.writeTextFile(
      `${folder}/.jiji/deploy.yml`,
      configText().replace("docker", "dokcer"),
    );
    const [text, json] = await Promise.all([
      jiji(["deploy"], folder),
      jiji(["deploy", "--json"], folder),
    ]);
    assert.match(text.stderr, /deploy\.yml:3:11 .*docker/);
    assert.equal(text.stdout, "");
    const event = JSON.parse(json.stderr);
    assert.deepEqual([text.code, json.code, event.event, event.exit_code], [3, 3, "error", 3]);
    [missing, text, json].forEach(assertNoStackTrace);
  }));

Deno.test("jiji version: as text, as JSON and as an option", async () => {
  const [text, json, option] = await Promise.all([
    jiji(["version"]),
    jiji(["version", "--json"]),
    jiji(["--version"]),
  ]);
  assert.deepEqual([text.code, text.stdout], [0, `jiji ${VERSION}\n`]);
  assert.deepEqual(JSON.parse(json.stdout), { version: VERSION });
  assert.equal(option.stdout.trim().split(" ").at(-1), VERSION);
});

Deno.test("jiji init: writes a configuration that validates, and never over one that is there", () =>
  inFolder(async (folder) => {
    const first = await jiji(["init"], folder);
    assert.equal(first.code, 0, first.stderr);
    const path = `${folder}/.jiji/deploy.yml`;
    const written = await Deno.readTextFile(path);
    // It validates: what fails is only that a service of this name is not in it.
    const read = await jiji(["deploy", "--plan", "--services", "no-such-service"], folder);
    assert.deepEqual([read.code, /matches no service/.test(read.stderr)], [2, true], read.stderr);
    await Deno.writeTextFile(path, "# mine\n");
    const again = await jiji(["init"], folder);
    assert.notEqual(again.code, 0);
    assert.equal(await Deno.readTextFile(path), "# mine\n");
    const forced = await jiji(["init", "--force"], folder);
    assert.equal(forced.code, 0);
    assert.equal(await Deno.readTextFile(path), written);
    [first, read, again, forced].forEach(assertNoStackTrace);
  }));
