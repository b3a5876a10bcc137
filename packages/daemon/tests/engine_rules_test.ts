import assert from "node:assert/strict";
import {
  judgeEngineRules,
  RULES_GRACE_MS,
  RULES_RESTART_EVERY_MS,
  RULES_UNSEEN,
} from "../src/engine/engine_rules.ts";

/** Instants at which a Docker with these rules, looked at every five seconds, is restarted. */
function restarts(rules: readonly boolean[], refused = false): number[] {
  let state = RULES_UNSEEN;
  return rules.flatMap((hasRules, index) => {
    const nowMs = index * 5_000;
    const verdict = judgeEngineRules(state, { hasRules, refused, nowMs });
    state = verdict.state;
    return verdict.restart ? [nowMs] : [];
  });
}

Deno.test("judgeEngineRules(): rules that stay away are brought back, a reload is not disturbed", () => {
  assert.deepEqual(restarts([true, true, false, true, true]), []);
  assert.deepEqual(restarts([true, false, false, false, true]), [15_000]);
  assert(10_000 >= RULES_GRACE_MS);
});

Deno.test("judgeEngineRules(): a Docker that keeps no rules is left alone, unless it asks for them", () => {
  assert.deepEqual(restarts(Array(50).fill(false)), []);
  assert.deepEqual(restarts([false, false], true), [0]);
});

Deno.test("judgeEngineRules(): not again and again", () => {
  const looks = RULES_RESTART_EVERY_MS / 5_000 + 10;
  const times = restarts([true, ...Array(looks).fill(false)]);
  assert.deepEqual(times.map((ms) => ms - times[0]!), [0, RULES_RESTART_EVERY_MS]);
});
