import assert from "node:assert/strict";
import { RecordingLogger, settle, SimClock } from "@jiji/core/testing";
import { type Duty, DutyLoop } from "../src/duty_loop.ts";

function started(duties: Duty[]) {
  const clock = new SimClock();
  const logger = new RecordingLogger();
  const stop = new AbortController();
  const loop = new DutyLoop(duties, { clock, logger, signal: stop.signal });
  const done = loop.run();
  const end = async () => {
    stop.abort(new Error("stopped"));
    await done;
  };
  return { clock, logger, loop, end };
}

function duty(run: Duty["run"], facts: Partial<Duty> = {}): Duty {
  return { name: "test", everyMs: 1_000, timeoutMs: 5_000, run, ...facts };
}

Deno.test("DutyLoop: runs at once, then at its pace", async () => {
  let runs = 0;
  const { clock, end } = started([duty(() => {
    runs += 1;
    return Promise.resolve();
  })]);
  await settle();
  assert.equal(runs, 1);
  await clock.advance(3_000);
  assert.equal(runs, 4);
  await end();
});

Deno.test("DutyLoop: a failing duty is told of once, goes on, and stops no other", async () => {
  let others = 0;
  const { clock, logger, end } = started([
    duty(() => Promise.reject(new Error("broken"))),
    duty(() => {
      others += 1;
      return Promise.resolve();
    }, { name: "other" }),
  ]);
  await clock.advance(5_000);
  assert.equal(logger.lines.filter((line) => line.message === "duty failed").length, 1);
  assert.equal(others, 6);
  await end();
});

Deno.test("DutyLoop: a run that takes too long is told to stop and never overlaps", async () => {
  let running = 0;
  let most = 0;
  const { clock, logger, end } = started([
    duty(async (signal) => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      running -= 1;
    }, { timeoutMs: 500 }),
  ]);
  await clock.advance(4_000);
  assert.equal(most, 1);
  assert.match(JSON.stringify(logger.lines), /took longer than 500 ms/);
  await end();
});

Deno.test("DutyLoop.wake(): runs soon, also when asked during a run; bursts become one", async () => {
  let runs = 0;
  const { clock, loop, end } = started([duty(() => {
    runs += 1;
    return Promise.resolve();
  }, { everyMs: 60_000 })]);
  await settle();
  for (let burst = 0; burst < 50; burst++) loop.wake("test");
  await clock.advance(1_000);
  assert.equal(runs, 2);
  await end();
});

Deno.test("DutyLoop: a run may choose its next pause", async () => {
  let runs = 0;
  const { clock, end } = started([duty(() => {
    runs += 1;
    return Promise.resolve(250);
  }, { everyMs: 60_000 })]);
  await clock.advance(1_000);
  assert.equal(runs, 5);
  await end();
});
