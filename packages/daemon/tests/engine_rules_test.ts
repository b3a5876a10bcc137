import assert from "node:assert/strict";
import {
  judgeEngineRules,
  observeEngineRules,
  RULES_GRACE_MS,
  RULES_RESTART_PAUSE_MAX_MS,
  RULES_RESTART_PAUSE_MS,
  RULES_UNSEEN,
} from "../src/firewall/engine_rules.ts";

/** Instants at which a Docker with these rules, looked at every five seconds, is restarted. */
function restarts(rules: readonly boolean[], refused = false): number[] {
  let state = RULES_UNSEEN;
  return rules.flatMap((hasRules, index) => {
    const nowMs = index * 5_000;
    const verdict = judgeEngineRules(state, { hasRules, hasChains: false, refused, nowMs });
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
  const looks = 2 * RULES_RESTART_PAUSE_MAX_MS / 5_000;
  const times = restarts([true, ...Array(looks).fill(false)]);
  assert.deepEqual(
    times.map((ms) => (ms - times[0]!) / RULES_RESTART_PAUSE_MS).slice(0, 5),
    [0, 1, 3, 7, 15],
  );
});

Deno.test("judgeEngineRules(): after a quiet time it is as quick as the first time", () => {
  const quiet = (ms: number) => Array(ms / 5_000).fill(true);
  const gone = Array(4).fill(false);
  const soon = restarts([true, ...gone, ...quiet(RULES_RESTART_PAUSE_MS), ...gone]);
  assert.equal(soon.length, 2, "a second flush a minute later is mended at once");
  const hour = [...quiet(3_600_000), ...gone];
  const times = restarts([true, ...gone, ...hour, ...hour, ...quiet(60_000), ...gone]);
  assert.equal(times.length, 4);
});

Deno.test("judgeEngineRules(): chains without a way into them are rules that were flushed", () => {
  const look = { hasRules: false, hasChains: true, refused: false };
  const first = judgeEngineRules(RULES_UNSEEN, { ...look, nowMs: 0 });
  assert.equal(first.restart, false);
  assert(judgeEngineRules(first.state, { ...look, nowMs: RULES_GRACE_MS }).restart);
});

Deno.test("observeEngineRules(): both tables must lead to Docker's chains", () => {
  const nat = [":DOCKER - [0:0]", "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"];
  const chains = [":FORWARD DROP [0:0]", ":DOCKER - [0:0]", ":DOCKER-USER - [0:0]"];
  const old = [...chains, "-A FORWARD -j DOCKER-USER", "-A FORWARD -j DOCKER-ISOLATION-STAGE-1"];
  const young = [...chains, "-A FORWARD -j DOCKER-FORWARD"];
  for (const filter of [old, young]) {
    assert.deepEqual(observeEngineRules({ nat, filter }), { hasRules: true, hasChains: true });
  }
  const flushed = { hasRules: false, hasChains: true };
  assert.deepEqual(observeEngineRules({ nat, filter: chains }), flushed);
  assert.deepEqual(observeEngineRules({ nat: nat.slice(0, 1), filter: old }), flushed);
  assert.deepEqual(observeEngineRules({}), { hasRules: false, hasChains: false });
});
