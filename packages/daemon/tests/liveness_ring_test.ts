import assert from "node:assert/strict";
import fc from "fast-check";
import { ProbeRing } from "../src/liveness/liveness_ring.ts";
import { RumorMill } from "../src/liveness/liveness_rumors.ts";

const names = (count: number) => Array.from({ length: count }, (_, index) => `s${index + 1}`);

Deno.test("ProbeRing: everyone probes everyone while there are few", () => {
  const ring = new ProbeRing(names(33));
  assert(ring.isWhole);
  for (const id of names(33)) {
    const others = names(33).filter((other) => other !== id).sort();
    assert.deepEqual(ring.targetsOf(id).sort(), others);
    assert.deepEqual(ring.watchersOf(id).toSorted(), others);
  }
  assert.deepEqual(new ProbeRing(["s1"]).targetsOf("s1"), []);
  assert.deepEqual(ring.targetsOf("nobody"), []);
});

Deno.test("ProbeRing: cost grows with the logarithm; whom I probe, I watch", () => {
  fc.assert(
    fc.property(fc.integer({ min: 34, max: 600 }), (count) => {
      const ring = new ProbeRing(names(count));
      for (const id of names(count).slice(0, 20)) {
        const targets = ring.targetsOf(id);
        assert(
          targets.length <= 8 + Math.ceil(Math.log2(count)) - 3,
          `${targets.length} of ${count}`,
        );
        assert.equal(new Set([id, ...targets]).size, targets.length + 1);
        for (const target of targets) assert(ring.watchersOf(target).includes(id));
      }
    }),
    { numRuns: 30 },
  );
});

Deno.test("ProbeRing: the same on every server, and no server is without a way to another", () => {
  const ring = new ProbeRing(names(500));
  const shuffled = new ProbeRing(names(500).reverse());
  const reached = new Set(["s1"]);
  const waiting = ["s1"];
  for (let id = waiting.pop(); id; id = waiting.pop()) {
    assert.deepEqual(ring.targetsOf(id), shuffled.targetsOf(id));
    for (const next of ring.targetsOf(id)) {
      if (reached.has(next)) continue;
      reached.add(next);
      waiting.push(next);
    }
  }
  assert.equal(reached.size, 500);
});

const AT = { wallMs: 100, nowMs: 10 };
const said = (id: string, ...silent: string[]) => ({ id, version: 1, silent });

Deno.test("RumorMill: two witnesses and a third of those who can be heard", () => {
  const mill = new RumorMill("s1");
  const watchers = ["w1", "w2", "w3", "w4", "w5", "w6", "w7"];
  const judge = (silent: readonly string[] = [], heardAtMs = 0) =>
    mill.isSilent("x", { watchers, silent: new Set(silent), heardAtMs });
  mill.take([said("w1", "x")], AT);
  assert.equal(judge(watchers.slice(1)), false, "one witness is none");
  mill.take([said("w2", "x"), said("other", "x")], AT);
  assert.equal(judge(), false, "two of seven");
  assert.equal(judge(["w7"]), true, "two of the six who can be heard");
  mill.take([said("w3", "x", "y")], AT);
  assert.equal(judge(), true, "three of seven");
  assert.equal(judge([], 11), false, "heard after they spoke");
  mill.take([{ id: "w3", version: 2, silent: [] }], AT);
  assert.equal(judge(), false, "one took its word back");
});

Deno.test("RumorMill: news are passed on a limited number of times, old words are none", () => {
  const mill = new RumorMill("s1");
  assert.equal(mill.take([said("w1", "x")], AT), true);
  assert.equal(mill.take([said("w1", "x")], AT), false);
  assert.equal(mill.take([{ id: "w1", version: 0, silent: [] }], AT), false);
  let carried = 0;
  while (mill.next().length > 0) carried++;
  assert(carried > 3 && carried < 50, String(carried));
  mill.keep(new Set());
  assert.equal(mill.take([said("w1", "x")], AT), true, "forgotten with the member");
});

Deno.test("RumorMill: its own word outlives a restart under an earlier clock", () => {
  const mill = new RumorMill("s1");
  assert.equal(mill.say(["x"], AT), true);
  assert.equal(mill.say(["x"], AT), false);
  assert.equal(mill.take([{ id: "s1", version: 9_999, silent: ["old"] }], AT), true);
  assert.deepEqual(mill.next(), [{ id: "s1", version: 10_000, silent: ["x"] }]);
  assert.equal(mill.take([{ id: "s1", version: 9_999, silent: ["old"] }], AT), false);
});
