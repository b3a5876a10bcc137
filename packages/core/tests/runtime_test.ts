import assert from "node:assert/strict";
import fc from "fast-check";
import {
  backoffMs,
  redact,
  renderFailedCommand,
  Secret,
  seededRandom,
  systemProcess,
  waitFor,
} from "../src/runtime/mod.ts";
import { LINE_BYTES_MAX, ndjson, OVERLONG } from "../src/corrosion/ndjson.ts";
import { SimClock } from "@jiji/core/testing";

Deno.test("backoffMs(): doubles up to its limit, jitter on top", () => {
  const backoff = { firstMs: 250, maxMs: 10_000, jitterMs: 100 };
  const none = { next: () => 0 };
  assert.deepEqual([1, 2, 3, 10, 1_000].map((attempt) => backoffMs(backoff, attempt, none)), [
    250,
    500,
    1_000,
    10_000,
    10_000,
  ]);
  assert.ok(backoffMs(backoff, 1, { next: () => 0.999 }) < 350);
});

Deno.test("waitFor(): looks at least once and once more at the deadline", async () => {
  const clock = new SimClock();
  let looks = 0;
  const waiting = waitFor(() => {
    looks += 1;
    return undefined;
  }, { clock, timeoutMs: 250, everyMs: 100 });
  await clock.advance(1_000);
  assert.equal(await waiting, undefined);
  assert.equal(looks, 4);
  assert.equal(await waitFor(() => 7, { clock, timeoutMs: 0, everyMs: 1 }), 7);
});

Deno.test("Secret: no way of printing shows it", () => {
  const secret = new Secret("hunter22");
  for (const text of [String(secret), JSON.stringify({ secret }), Deno.inspect({ secret })]) {
    assert.ok(!text.includes("hunter22"), text);
  }
  assert.equal(redact("a hunter22 b", [secret]), "a [secret] b");
});

Deno.test("redact(): a secret inside another leaves nothing of the longer one", () => {
  const secrets = [new Secret("pass"), new Secret("password123")];
  assert.equal(redact("x password123 pass y", secrets), "x [secret] [secret] y");
});

Deno.test("seededRandom(): equal seeds, equal numbers, all in [0, 1)", () => {
  fc.assert(fc.property(fc.integer(), (seed) => {
    const [a, b] = [seededRandom(seed), seededRandom(seed)];
    for (let draw = 0; draw < 10; draw++) {
      const number = a.next();
      assert.ok(number >= 0 && number < 1 && number === b.next());
    }
  }));
});

Deno.test("systemProcess.run(): gives output, exit code and input", async () => {
  const echoed = await systemProcess.run(["cat"], { timeoutMs: 5_000, stdin: "hello" });
  assert.equal(echoed.stdout, "hello");
  const failed = await systemProcess.run(["sh", "-c", "echo no >&2; exit 3"], { timeoutMs: 5_000 });
  assert.deepEqual([failed.exitCode, failed.stderr], [3, "no\n"]);
  const missing = await systemProcess.run(["/no/such/program"], { timeoutMs: 5_000 });
  assert.equal(missing.exitCode, 127);
});

Deno.test("systemProcess.run(): ends a command that takes too long", async () => {
  const slow = await systemProcess.run(["sleep", "60"], { timeoutMs: 100 });
  assert.equal(slow.exitCode, undefined);
  assert.ok(slow.durationMs < 5_000);
});

Deno.test("systemProcess.run(): a program that closes its input early is judged by its exit code", async () => {
  const stdin = new Uint8Array(1_000_000);
  const result = await systemProcess.run(["true"], { timeoutMs: 5_000, stdin });
  assert.equal(result.exitCode, 0);
});

Deno.test("systemProcess.lines(): lines as they come, the program ends with the reader", async () => {
  const stop = new AbortController();
  const seen: string[] = [];
  const argv = ["sh", "-c", "echo one; echo two; exec sleep 60"] as const;
  for await (const line of systemProcess.lines(argv, { signal: stop.signal })) {
    seen.push(line);
    if (seen.length === 2) break;
  }
  assert.deepEqual(seen, ["one", "two"]);
});

Deno.test("renderFailedCommand(): says how it ended and cuts what is long", () => {
  const base = { host: "s1", argv: ["x".repeat(300)], stderrTail: "boom\n", durationMs: 1_000 };
  const text = renderFailedCommand({ ...base, exitCode: 2 });
  assert.match(text, /^s1: x+\.\.\.: exit 2: boom$/);
  assert.match(renderFailedCommand({ ...base, exitCode: undefined }), /no answer in 1 s/);
});

function stream(...parts: string[]): ReadableStream<Uint8Array<ArrayBuffer>> {
  return ReadableStream.from(parts.map((part) => new TextEncoder().encode(part)));
}

async function read(source: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<unknown[]> {
  const values: unknown[] = [];
  for await (const value of ndjson(source)) values.push(value);
  return values;
}

Deno.test("ndjson(): values whatever the cuts between packets", async () => {
  assert.deepEqual(await read(stream('{"a":', "1}\n\n[2]\n", '"ü"')), [{ a: 1 }, [2], "ü"]);
  await assert.rejects(read(stream('{"a":')), SyntaxError);
  const long = "x".repeat(LINE_BYTES_MAX + 1);
  assert.deepEqual(await read(stream(long, "y\n7\n")), [OVERLONG, 7]);
  assert.deepEqual(await read(stream(long)), [OVERLONG]);
});
