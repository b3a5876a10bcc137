import assert from "node:assert/strict";
import fc from "fast-check";
import {
  decodeProbe,
  encodeProbe,
  LivenessTable,
  MISSES_MAX,
} from "../src/liveness/liveness_prober.ts";

const TARGETS = [{ serverId: "s2", address: "10.210.2.1" }, {
  serverId: "s3",
  address: "10.210.3.1",
}];

function table(): LivenessTable {
  const made = new LivenessTable("s1");
  made.setTargets(TARGETS);
  return made;
}

function answer(made: LivenessTable, seq: number, facts: { from?: string; address?: string } = {}) {
  made.answered(
    { from: facts.from ?? "s2", seq },
    { address: facts.address ?? "10.210.2.1", nowMs: 5 },
  );
}

/** Whom it counts as silent now. */
function silentOf(made: LivenessTable): readonly string[] {
  made.judge({ nowMs: 0, wallMs: 0 });
  return made.report(0).silent;
}

Deno.test("LivenessTable: three misses make a server silent, any answer brings it back", () => {
  const made = table();
  for (let round = 0; round <= MISSES_MAX; round++) {
    assert.deepEqual(silentOf(made), [], `round ${round}`);
    const [probe] = made.nextRound(round * 1_000);
    answer(made, probe?.seq ?? 0, { from: "s3", address: "10.210.3.1" });
  }
  assert.deepEqual(silentOf(made), ["s2"]);
  answer(made, 1);
  assert.deepEqual(silentOf(made), [], "a late answer shows that it lives");
});

Deno.test("LivenessTable: who does not answer is asked again soon, and silent after two seconds", () => {
  const made = table();
  const other = { from: "s3", address: "10.210.3.1" };
  answer(made, made.nextRound(0)[0]?.seq ?? 0, other);
  assert.equal(made.hasSuspects, true);
  const asked: number[] = [];
  for (let nowMs = 350; silentOf(made).length === 0; nowMs += 350) {
    assert.ok(nowMs < 10_000);
    for (const probe of made.suspectRound(nowMs)) {
      assert.equal(probe.address, "10.210.2.1");
      asked.push(nowMs);
    }
  }
  assert.deepEqual(asked, [350, 700, 1_050, 1_400, 1_750, 2_100]);
  assert.equal(made.hasSuspects, false, "whoever is given up is asked in rounds");
});

Deno.test("LivenessTable: a server that pauses is not silent, nor one that answers late", () => {
  const made = new LivenessTable("s1");
  made.setTargets([TARGETS[0]!]);
  const delayMs = 1_200;
  const pending: { seq: number; atMs: number }[] = [];
  for (let nowMs = 0; nowMs <= 60_000; nowMs += 50) {
    const isRound = nowMs % 1_000 === 0;
    if (!isRound && nowMs % 350 !== 0) continue;
    for (const due of pending.splice(0, pending.filter(({ atMs }) => atMs <= nowMs).length)) {
      const { seq, atMs } = due;
      made.answered({ from: "s2", seq }, { address: "10.210.2.1", nowMs: atMs });
    }
    const probes = isRound ? made.nextRound(nowMs) : made.suspectRound(nowMs);
    for (const { seq } of probes) pending.push({ seq, atMs: nowMs + delayMs });
    assert.deepEqual(silentOf(made), [], `after ${nowMs} ms`);
  }
  assert.equal(made.report(0).rtt_ms["s2"], delayMs);
});

Deno.test("LivenessTable: answers count only from the peer's own address", () => {
  const made = table();
  for (let round = 0; round < 5; round++) {
    const [probe] = made.nextRound(round * 1_000);
    answer(made, probe?.seq ?? 0, { address: "10.210.3.1" });
    answer(made, 999);
    answer(made, probe?.seq ?? 0, { from: "nobody" });
  }
  assert.ok(silentOf(made).includes("s2"));
});

Deno.test("LivenessTable: a round trip is measured, a forgotten peer is gone", () => {
  const made = table();
  const [probe] = made.nextRound(1);
  answer(made, probe?.seq ?? 0);
  assert.deepEqual(made.report(7).rtt_ms, { s2: 4 });
  made.setTargets([]);
  assert.deepEqual(made.report(7), {
    format: 1,
    written_at_ms: 7,
    silent: [],
    rtt_ms: {},
    loss: {},
  });
});

Deno.test("decodeProbe(): round trip, and random bytes are nothing", () => {
  const message = { kind: "ping", from: "s1", seq: 7 } as const;
  assert.deepEqual(decodeProbe(encodeProbe(message)), { jiji: 1, ...message });
  assert.equal(decodeProbe(new TextEncoder().encode('{"jiji":2,"kind":"ping"}')), undefined);
  assert.equal(decodeProbe(new Uint8Array(2_000)), undefined);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
    decodeProbe(bytes);
  }));
});

Deno.test("decodeProbe(): words of others, bounded", () => {
  const rumor = { id: "s3", version: 5, silent: ["s4"] };
  const message = { kind: "news", from: "s1", seq: 0, rumors: [rumor] } as const;
  assert.deepEqual(decodeProbe(encodeProbe(message)), { jiji: 1, ...message });
  for (const rumors of [Array(7).fill(rumor), [{ ...rumor, silent: Array(17).fill("s4") }], [{}]]) {
    const bytes = new TextEncoder().encode(JSON.stringify({ jiji: 1, ...message, rumors }));
    assert.equal(decodeProbe(bytes), undefined);
  }
});

Deno.test("LivenessTable: loss is the share of the last probes without an answer", () => {
  const made = new LivenessTable("s1");
  made.setTargets([{ serverId: "s2", address: "10.210.2.1" }]);
  assert.deepEqual(made.report(0).loss, {}, "nothing was sent, nothing is known");
  for (let round = 0; round < 200; round++) {
    const [probe] = made.nextRound(round * 1_000);
    if (round % 4 === 0) continue;
    const nowMs = round * 1_000 + 5;
    made.answered({ from: "s2", seq: probe!.seq }, { address: "10.210.2.1", nowMs });
  }
  assert.equal(made.report(0).loss?.["s2"], 0.25);
});
