import assert from "node:assert/strict";
import { RemoteCommandError } from "@jiji/core";
import { mustRun, mustRunScript } from "../src/utils/remote.ts";
import { inFolder, LocalHost } from "./local_host.ts";

const LIMITS = { what: "trying it failed", timeoutMs: 20_000 };

Deno.test("mustRun(): gives what the command printed", () =>
  inFolder(async (folder) => {
    const host = new LocalHost("s1", folder);
    assert.equal(await mustRun(host, ["echo", "a b"], LIMITS), "a b\n");
    assert.equal(await mustRun(host, ["cat"], { ...LIMITS, stdin: "in" }), "in");
  }));

Deno.test("mustRunScript(): parameters reach the script as they are", () =>
  inFolder(async (folder) => {
    const args = ["a b", "$(id)", "", "-x", "it's"];
    const text = await mustRunScript(new LocalHost("s1", folder), 'printf "<%s>" "$@"', {
      ...LIMITS,
      args,
    });
    assert.equal(text, args.map((arg) => `<${arg}>`).join(""));
  }));

Deno.test("mustRun(): a failure says what, where, how it ended and what it printed", () =>
  inFolder(async (folder) => {
    const host = new LocalHost("s1", folder);
    const failing = mustRunScript(host, "echo out; echo 'no space left' >&2; exit 3", LIMITS);
    const error = await failing.then(() => undefined, (reason) => reason);
    assert(error instanceof RemoteCommandError);
    assert.equal(
      error.message,
      "trying it failed on s1 (root@s1:22: sh -s --: exit 3: no space left)",
    );
    assert.deepEqual([error.exitCode, error.command.exitCode], [6, 3]);
  }));

Deno.test("mustRun(): a command that says nothing on stderr is quoted from stdout", () =>
  inFolder(async (folder) => {
    const host = new LocalHost("s1", folder);
    await assert.rejects(mustRunScript(host, "echo only here; exit 1", LIMITS), /only here/);
  }));

Deno.test("mustRun(): a long story is cut to its last lines", () =>
  inFolder(async (folder) => {
    const script = "i=0; while [ $i -lt 100 ]; do echo line $i >&2; i=$((i+1)); done; exit 1";
    const failing = mustRunScript(new LocalHost("s1", folder), script, LIMITS);
    const error = await failing.then(() => undefined, (reason) => reason);
    assert(error.message.includes("line 99") && !error.message.includes("line 79\n"));
  }));
