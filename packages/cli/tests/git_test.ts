import assert from "node:assert/strict";
import { type Argv, isOk, type Process, systemProcess } from "@jiji/core";
import { chooseVersion, readGitState } from "../src/utils/git.ts";
import { inFolder } from "./local_host.ts";

const NOW_MS = Date.UTC(2026, 10, 23, 14, 25, 1);

async function git(folder: string, ...args: string[]): Promise<void> {
  const who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"];
  const argv = ["git", "-C", folder, ...who, ...args] as const;
  const result = await systemProcess.run(argv, { timeoutMs: 20_000 });
  assert(isOk(result), result.stderr);
}

Deno.test("readGitState(): commit and whether the folder is as committed", () =>
  inFolder(async (folder) => {
    await git(folder, "init", "-q");
    assert.equal(await readGitState(systemProcess, folder), undefined, "no commit yet");
    await Deno.writeTextFile(`${folder}/a`, "1");
    await git(folder, "add", "a");
    await git(folder, "commit", "-qm", "one");
    const clean = await readGitState(systemProcess, folder);
    assert.match(clean!.commit, /^[0-9a-f]{7}$/);
    assert.equal(clean!.dirty, false);
    await Deno.writeTextFile(`${folder}/b`, "untracked");
    assert.deepEqual(await readGitState(systemProcess, folder), { ...clean, dirty: true });
  }));

Deno.test("readGitState(): only the project's own folder counts, not the whole repository", () =>
  inFolder(async (folder) => {
    await git(folder, "init", "-q");
    await Deno.mkdir(`${folder}/project`);
    await Deno.writeTextFile(`${folder}/project/a`, "1");
    await git(folder, "add", ".");
    await git(folder, "commit", "-qm", "one");
    await Deno.writeTextFile(`${folder}/elsewhere`, "2");
    assert.equal((await readGitState(systemProcess, `${folder}/project`))!.dirty, false);
  }));

Deno.test("readGitState(): neither git nor a repository is no failure", async () => {
  await inFolder(async (folder) => {
    assert.equal(await readGitState(systemProcess, `${folder}`), undefined);
  });
  const none: Process = {
    run: (_argv: Argv) =>
      Promise.resolve({
        exitCode: 127,
        signal: undefined,
        stdout: "",
        stderr: "git: not found",
        durationMs: 1,
      }),
    lines: () => {
      throw new Error("git is not streamed");
    },
  };
  assert.equal(await readGitState(none, "/project"), undefined);
});

Deno.test("chooseVersion(): a tag never means two things", () => {
  const clean = { commit: "1a2b3c4", dirty: false };
  assert.equal(chooseVersion("v1", clean, NOW_MS), "v1");
  assert.equal(chooseVersion(undefined, clean, NOW_MS), "1a2b3c4");
  assert.equal(
    chooseVersion(undefined, { ...clean, dirty: true }, NOW_MS),
    "1a2b3c4-20261123-142501",
  );
  assert.equal(chooseVersion(undefined, undefined, NOW_MS), "20261123-142501");
});
