import assert from "node:assert/strict";
import { JijiError, systemProcess } from "@jiji/core";
import { hookEnvironment, type HookFacts, runHook } from "../src/lib/hooks/hooks_service.ts";

const FACTS: HookFacts = {
  project: "shop",
  environment: undefined,
  version: "v1",
  services: ["api", "web"],
  servers: ["s1"],
};

async function withHook(
  script: string,
  mode: number,
  work: (run: () => Promise<void>, notes: string[]) => Promise<void>,
): Promise<void> {
  const projectRoot = await Deno.makeTempDir({ prefix: "jiji hooks " });
  try {
    await Deno.mkdir(`${projectRoot}/.jiji/hooks`, { recursive: true });
    if (script) await Deno.writeTextFile(`${projectRoot}/.jiji/hooks/pre-deploy`, script, { mode });
    const notes: string[] = [];
    const run = () =>
      runHook("pre-deploy", FACTS, {
        process: systemProcess,
        projectRoot,
        signal: new AbortController().signal,
        note: (line) => notes.push(line),
      });
    await work(run, notes);
  } finally {
    await Deno.remove(projectRoot, { recursive: true });
  }
}

Deno.test("hookEnvironment(): tells names, never values", () => {
  assert.deepEqual(hookEnvironment("pre-build", FACTS), {
    JIJI_HOOK: "pre-build",
    JIJI_PROJECT: "shop",
    JIJI_ENVIRONMENT: "",
    JIJI_VERSION: "v1",
    JIJI_SERVICES: "api,web",
    JIJI_SERVERS: "s1",
  });
});

Deno.test("runHook(): runs in the project's root with the facts, and shows what it prints", async () => {
  const script = '#!/bin/sh\necho "$JIJI_HOOK $JIJI_SERVICES $(ls -A)"\n';
  await withHook(script, 0o755, async (run, notes) => {
    await run();
    assert.deepEqual(notes, ["  pre-deploy  pre-deploy api,web .jiji"]);
  });
});

Deno.test("runHook(): a project without the hook is none the wiser", async () => {
  await withHook("", 0, async (run, notes) => {
    await run();
    assert.deepEqual(notes, []);
  });
});

Deno.test("runHook(): a failing hook stops the deploy and names itself", async () => {
  await withHook("#!/bin/sh\necho no migration; exit 3\n", 0o755, async (run, notes) => {
    await assert.rejects(run, (error) => {
      assert(error instanceof JijiError);
      assert.match(error.message, /\.jiji\/hooks\/pre-deploy ended with 3/);
      return true;
    });
    assert.deepEqual(notes, ["  pre-deploy  no migration"]);
  });
});

Deno.test("runHook(): a hook that may not be executed is an error, not silence", async () => {
  await withHook("#!/bin/sh\n", 0o644, async (run) => {
    await assert.rejects(run, /is not executable/);
  });
});
