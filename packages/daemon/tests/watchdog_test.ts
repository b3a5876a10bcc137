import assert from "node:assert/strict";
import { systemdNotifier, WatchdogDuty } from "../src/duties/watchdog.ts";

Deno.test("WatchdogDuty: says a word each time, and nothing where nobody listens", async () => {
  const said: string[] = [];
  const duty = new WatchdogDuty((text) => {
    said.push(text);
    return Promise.resolve();
  });
  await duty.run();
  await duty.run();
  assert.deepEqual(said, ["WATCHDOG=1", "WATCHDOG=1"]);
  await new WatchdogDuty(systemdNotifier(undefined)).run();
  await new WatchdogDuty(systemdNotifier("")).run();
});
