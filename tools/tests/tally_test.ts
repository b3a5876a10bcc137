import assert from "node:assert/strict";
import { parseTally } from "../test.ts";

Deno.test("parseTally(): counts of one run and of several", () => {
  assert.deepEqual(parseTally("noise\nok | 12 passed | 0 failed (3s)\n"), {
    passed: 12,
    failed: 0,
    skipped: 0,
  });
  const two = "ok | 2 passed (4 steps) | 0 failed (1s)\n\n" +
    "FAILED | 3 passed | 1 failed (2 steps) | 2 ignored | 5 filtered out (1m 2s)\n";
  assert.deepEqual(parseTally(two), { passed: 5, failed: 1, skipped: 2 });
});

Deno.test("parseTally(): what tests print is not counted", () => {
  assert.deepEqual(parseTally("  ok | 5 passed | 0 failed\nit said: ok | 1 passed | 0 failed\n"), {
    passed: 0,
    failed: 0,
    skipped: 0,
  });
});

Deno.test("parseTally(): reads what this Deno really prints", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const tests = 'Deno.test("a", () => {});\nDeno.test.ignore("b", () => {});\n' +
      'Deno.test("c", () => { throw new Error("no"); });\n';
    await Deno.writeTextFile(`${folder}/some_test.ts`, tests);
    const output = await new Deno.Command(Deno.execPath(), {
      args: ["test", "--no-check", "--no-config", "--no-lock", "some_test.ts"],
      cwd: folder,
      env: { NO_COLOR: "1" },
      signal: AbortSignal.timeout(60_000),
    }).output();
    const tally = parseTally(new TextDecoder().decode(output.stdout));
    assert.deepEqual(tally, { passed: 1, failed: 1, skipped: 1 });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
