import assert from "node:assert/strict";
import fc from "fast-check";
import { type Clock, JijiError, PartialFailureError, Secret } from "@jiji/core";
import type { ProgressEvent } from "../src/lib/output/events.ts";
import { type Lanes, reduceLanes, renderLane } from "../src/lib/output/lanes.ts";
import { Output, type OutputOptions } from "../src/lib/output/output.ts";
import { renderDuration, symbolsFor } from "../src/lib/output/symbols.ts";

const NOW = Date.UTC(2026, 10, 23, 14, 25, 1);

/** A clock that stands still until it is moved. */
function stillClock(): Clock & { atMs: number } {
  return {
    atMs: 0,
    nowMs: () => NOW,
    monotonicMs() {
      return this.atMs;
    },
    sleep: () => Promise.reject(new Error("output never waits")),
  };
}

function recorded(changes: Partial<OutputOptions> & { terminal?: boolean } = {}) {
  let stdout = "";
  let stderr = "";
  const clock = stillClock();
  const isTerminal = changes.terminal ?? false;
  const output = new Output({
    stdout: { write: (text) => stdout += text, isTerminal, columns: 80 },
    stderr: { write: (text) => stderr += text, isTerminal, columns: 80 },
    json: false,
    quiet: false,
    env: { LANG: "en_US.UTF-8", NO_COLOR: "1" },
    clock,
    ...changes,
  });
  return { output, clock, stdout: () => stdout, stderr: () => stderr };
}

const STORY: readonly ProgressEvent[] = [
  { kind: "started", lane: "web@s1", title: "pulling nginx" },
  { kind: "finished", lane: "web@s1", title: "pulling nginx", detail: "pulled", durationMs: 1_234 },
  { kind: "notice", lane: "web@s1", message: "s2 answers late" },
  { kind: "done", lane: "web@s1", summary: "version 2 serves", durationMs: 61_000 },
  { kind: "failed", lane: "api@s2", title: "health gate", message: "503 after 30 s" },
];

/** What a terminal shows after these bytes: only the sequences that Output uses. */
function screenOf(bytes: string): string[] {
  const lines: string[] = [];
  let row = 0;
  // deno-lint-ignore no-control-regex
  for (const part of bytes.split(/(\x1b\[\d+A\x1b\[J|\n)/)) {
    // deno-lint-ignore no-control-regex
    const up = /\x1b\[(\d+)A/.exec(part);
    if (up) {
      row -= Number(up[1]);
      lines.length = row;
    } else if (part === "\n") row++;
    else if (part !== "") lines[row] = part;
  }
  return lines;
}

Deno.test("Output: without a terminal an event is one line with a time", async (t) => {
  const { output, stdout, stderr } = recorded();
  output.note("shop · 2 servers");
  STORY.forEach((event) => output.emit(event));
  output.warn("s3 was left out");
  output.line("result");
  output.success("Deployed.");
  await t.assertSnapshot(stderr());
  assert.equal(stdout(), "result\n✓ Deployed.\n");
  assert(!`${stderr()}${stdout()}`.includes("\x1b"));
});

Deno.test("Output: with --json every event is one object, the result alone on stdout", () => {
  const { output, stdout, stderr } = recorded({ json: true, terminal: true });
  output.note("hello");
  STORY.forEach((event) => output.emit(event));
  output.warn("careful");
  output.result({ ok: true });
  output.success("Done.");
  output.failure(new PartialFailureError("1 of 2 failed", { serving: "s1", hint: "again" }));
  output.failure(new TypeError("x is undefined"));
  const objects = stderr().trimEnd().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual(objects.map((one) => one.event), [
    "note",
    "started",
    "finished",
    "notice",
    "done",
    "failed",
    "warning",
    "success",
    "error",
    "error",
  ]);
  assert.deepEqual(objects.at(-2), {
    event: "error",
    code: "partial",
    message: "1 of 2 failed",
    hint: "again",
    serving: "s1",
    exit_code: 8,
  });
  assert.equal(objects.at(-1).code, "bug");
  assert.deepEqual(JSON.parse(stdout()), { ok: true });
});

Deno.test("Output: --quiet leaves results, warnings and failures", () => {
  const { output, stdout, stderr } = recorded({ quiet: true });
  output.note("hello");
  STORY.forEach((event) => output.emit(event));
  output.warn("careful");
  output.line("result");
  output.failure(new JijiError("it broke"));
  assert.equal(stderr(), "! careful\n✖ it broke\n");
  assert.equal(stdout(), "result\n");
});

Deno.test("Output: a failure has four parts: what and where, evidence, what serves, the way on", async (t) => {
  const { output, stderr } = recorded();
  output.failure(
    new JijiError(
      "web on s1 did not get healthy\n  503 service unavailable\n  panic: no database",
      {
        serving: "s1: web 1\ns2: web 1",
        hint: "jiji deploy --services web",
      },
    ),
  );
  await t.assertSnapshot(stderr());
});

Deno.test("Output: on a terminal a lane is one live line, and stays when it is settled", async (t) => {
  const { output, clock, stderr } = recorded({ terminal: true });
  output.emit({ kind: "started", lane: "s1", title: "packages" });
  output.emit({ kind: "started", lane: "server-2", title: "packages" });
  clock.atMs = 3_000;
  output.emit({ kind: "finished", lane: "s1", title: "packages", durationMs: 3_000 });
  output.emit({ kind: "started", lane: "s1", title: "key" });
  output.note("a line in between");
  await t.assertSnapshot(screenOf(stderr()).join("\n"));
  output.emit({ kind: "done", lane: "s1", summary: "ready", durationMs: 3_000 });
  output.emit({ kind: "failed", lane: "server-2", title: "packages", message: "exit 100" });
  output.settle();
  await t.assertSnapshot(screenOf(stderr()).join("\n"));
  const before = stderr();
  output.settle();
  assert.equal(stderr(), before, "settled lines are not drawn again");
});

Deno.test("Output: CI, TERM=dumb and --json never draw, NO_COLOR never colours", () => {
  const escapes = (env: Record<string, string>, json = false) => {
    const { output, stderr } = recorded({ terminal: true, env, json });
    output.emit({ kind: "started", lane: "s1", title: "packages" });
    output.emit({ kind: "done", lane: "s1", summary: "ready", durationMs: 1 });
    output.warn("careful");
    output.settle();
    return stderr();
  };
  assert(!escapes({ CI: "1" }).includes("\x1b"));
  assert(!escapes({ TERM: "dumb" }).includes("\x1b"));
  assert(!escapes({}, true).includes("\x1b"));
  assert(!escapes({ NO_COLOR: "1" }).includes("\x1b[3"));
  assert(escapes({}).includes("\x1b[33m"));
});

Deno.test("Output: a secret is hidden wherever it turns up, also quoted, and in many lines", () => {
  const secrets = ['pa"ss\\word', "-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n"];
  for (const json of [false, true]) {
    for (const secret of secrets) {
      const { output, stdout, stderr } = recorded({ json });
      output.hide(() => [new Secret(secret)]);
      output.note(secret);
      output.warn(`careful: ${secret}`);
      output.line(`a ${secret} b`);
      output.result({ nested: [secret] });
      output.emit({ kind: "failed", lane: "s1", title: "run", message: secret });
      output.failure(new JijiError(`it said ${secret}`, { hint: secret, serving: secret }));
      const shown = stdout() + stderr();
      for (const part of ["word", "MIIEvQ", "ss\\"]) assert(!shown.includes(part), shown);
      assert(shown.includes("[secret]"));
    }
  }
});

Deno.test("symbolsFor(): ASCII where the locale is not UTF-8", () => {
  assert.equal(symbolsFor({ LANG: "C.UTF-8" }).ok, "✓");
  assert.equal(symbolsFor({ LANG: "en_US.utf8" }).ok, "✓");
  assert.equal(symbolsFor({}).ok, "✓");
  assert.equal(symbolsFor({ LANG: "C" }).ok, "ok");
  assert.equal(symbolsFor({ LC_ALL: "POSIX", LANG: "en_US.UTF-8" }).ok, "ok", "LC_ALL wins");
});

Deno.test("Output: in an ASCII locale our own texts are ASCII", () => {
  const { output, stdout, stderr } = recorded({ env: { LANG: "C" }, terminal: true });
  output.emit({ kind: "started", lane: "s1", title: "x".repeat(200) });
  output.emit({ kind: "done", lane: "s1", summary: "ready", durationMs: 1 });
  output.warn("careful");
  output.failure(new JijiError("it broke", { hint: "mend it" }));
  output.success("Done.");
  // deno-lint-ignore no-control-regex
  assert.match(stderr() + stdout(), /^[\x00-\x7f]*$/);
});

Deno.test("renderDuration(): milliseconds, seconds, minutes, without jumps at the borders", () => {
  assert.deepEqual(
    [0, 950, 999.4, 1_000, 3_040, 59_900, 60_000, 72_400, 3_600_000].map(renderDuration),
    [
      "0 ms",
      "950 ms",
      "999 ms",
      "1.0 s",
      "3.0 s",
      "59.9 s",
      "1 min 0 s",
      "1 min 12 s",
      "60 min 0 s",
    ],
  );
  assert.equal(renderDuration(999.6), "1.0 s");
  assert.equal(renderDuration(59_960), "1 min 0 s");
});

const laneEvent = fc.oneof(
  fc.record({
    kind: fc.constant("started" as const),
    title: fc.string({ maxLength: 60, unit: "binary-ascii" }),
  }),
  fc.record({
    kind: fc.constant("finished" as const),
    title: fc.string({ maxLength: 60 }),
    durationMs: fc.nat(),
  }),
  fc.record({
    kind: fc.constant("failed" as const),
    title: fc.string({ maxLength: 60 }),
    message: fc.string({ maxLength: 200, unit: "binary-ascii" }),
  }),
  fc.record({
    kind: fc.constant("done" as const),
    summary: fc.string({ maxLength: 60 }),
    durationMs: fc.nat(),
  }),
);

Deno.test("renderLane(): never wider than the terminal, whatever happened", () => {
  fc.assert(fc.property(
    fc.array(laneEvent, { minLength: 1, maxLength: 12 }),
    fc.integer({ min: 40, max: 200 }),
    fc.nat({ max: 100_000_000 }),
    (events, columns, nowMs) => {
      let lanes: Lanes = new Map();
      for (const event of events) lanes = reduceLanes(lanes, { lane: "server-1", ...event }, 0);
      const line = renderLane(lanes.get("server-1")!, {
        symbols: symbolsFor({}),
        columns,
        nameWidth: 8,
        nowMs,
      });
      assert(line.length < columns, `${line.length} of ${columns}: ${line}`);
      assert(!/\p{Cc}/u.test(line), "one line, and nothing that moves the cursor");
    },
  ));
});

Deno.test("reduceLanes(): keeps the order of first events and changes nothing in place", () => {
  const empty: Lanes = new Map();
  const one = reduceLanes(empty, { kind: "started", lane: "b", title: "x" }, 1);
  const two = reduceLanes(one, { kind: "started", lane: "a", title: "y" }, 2);
  const three = reduceLanes(two, { kind: "finished", lane: "b", title: "x", durationMs: 1 }, 3);
  assert.deepEqual([empty.size, one.size, [...three.keys()]], [0, 1, ["b", "a"]]);
  assert.deepEqual(one.get("b")!.finished, []);
  assert.deepEqual(three.get("b")!.finished, ["x"]);
  assert.equal(three.get("b")!.startedAtMs, 1);
});

Deno.test("reduceLanes(): a lane that failed may go on, as an undo does", () => {
  let lanes: Lanes = new Map();
  lanes = reduceLanes(lanes, { kind: "failed", lane: "a", title: "gate", message: "503" }, 1);
  assert.equal(lanes.get("a")!.end?.ok, false);
  lanes = reduceLanes(lanes, { kind: "started", lane: "a", title: "undo" }, 2);
  assert.equal(lanes.get("a")!.end, undefined);
});
