import assert from "node:assert/strict";
import fc from "fast-check";
import { decodeProbe, encodeProbe, LivenessTable, MISSES_MAX } from "../src/liveness_prober.ts";

const TARGETS = [{ serverId: "s2", address: "10.210.2.1" }, {
  serverId: "s3",
  address: "10.210.3.1",
}];

function table(): LivenessTable {
  const made = new LivenessTable();
  made.setTargets(TARGETS);
  return made;
}

function answer(made: LivenessTable, seq: number, facts: { from?: string; address?: string } = {}) {
  return made.answered(
    { jiji: 1, kind: "pong", from: facts.from ?? "s2", seq },
    { address: facts.address ?? "10.210.2.1", nowMs: 5 },
  );
}

Deno.test("LivenessTable: three misses make a server silent, any answer brings it back", () => {
  const made = table();
  for (let round = 0; round <= MISSES_MAX; round++) {
    assert.deepEqual(made.report(0).silent, [], `round ${round}`);
    const [probe] = made.nextRound(round * 1_000);
    answer(made, probe?.seq ?? 0, { from: "s3", address: "10.210.3.1" });
  }
  assert.deepEqual(made.report(0).silent, ["s2"]);
  assert.equal(answer(made, 1), true, "a late answer shows that it lives");
  assert.deepEqual(made.report(0).silent, []);
});

Deno.test("LivenessTable: answers count only from the peer's own address", () => {
  const made = table();
  for (let round = 0; round < 5; round++) {
    const [probe] = made.nextRound(0);
    answer(made, probe?.seq ?? 0, { address: "10.210.3.1" });
    answer(made, 999);
    answer(made, probe?.seq ?? 0, { from: "nobody" });
  }
  assert.ok(made.report(0).silent.includes("s2"));
});

Deno.test("LivenessTable: a round trip is measured, a forgotten peer is gone", () => {
  const made = table();
  const [probe] = made.nextRound(1);
  answer(made, probe?.seq ?? 0);
  assert.deepEqual(made.report(7).rtt_ms, { s2: 4 });
  made.setTargets([]);
  assert.deepEqual(made.report(7), { format: 1, written_at_ms: 7, silent: [], rtt_ms: {} });
});

Deno.test("decodeProbe(): round trip, and random bytes are nothing", () => {
  const message = { kind: "ping", from: "s1", seq: 7 } as const;
  assert.deepEqual(decodeProbe(encodeProbe(message)), { jiji: 1, ...message });
  assert.equal(decodeProbe(new TextEncoder().encode('{"jiji":2,"kind":"ping"}')), undefined);
  assert.equal(decodeProbe(new Uint8Array(1_000)), undefined);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
    decodeProbe(bytes);
  }));
});
