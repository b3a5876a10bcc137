import assert from "node:assert/strict";
import { fuzz, judgeAnswer } from "../fuzz/fuzz.ts";

/** How long the suite fuzzes, milliseconds; `deno task fuzz:dns` does it for longer. */
const FUZZ_MS = 3_000;
/** Garbage that is not collected yet may be this much, megabytes. */
const GROWTH_MAX_MEGABYTES = 80;

Deno.test("jiji-dns: random, mutated and replayed packets get no wrong answer and leave nothing", async () => {
  const report = await fuzz({ seed: 20_261_123, milliseconds: FUZZ_MS });
  assert.ok(report.packets > 1_000, JSON.stringify(report));
  assert.ok(report.byThread > report.packets / 100, JSON.stringify(report));
  for (const rcode of ["0", "1", "2", "3", "4", "none"]) {
    assert.ok((report.rcodes[rcode] ?? 0) > 0, `no answer with code ${rcode}`);
  }
  assert.ok(report.grownMegabytes < GROWTH_MAX_MEGABYTES, `${report.grownMegabytes} MB`);
});

Deno.test("judgeAnswer(): finds a wrong id, a wrong question and a lost answer", () => {
  const packet = new Uint8Array([0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 97, 0, 0, 1, 0, 1]);
  const answer = new Uint8Array(packet);
  answer[2] = 0x81;
  assert.equal(judgeAnswer(packet, answer), undefined);
  assert.match(judgeAnswer(packet, undefined) ?? "", /dropped/);
  assert.match(judgeAnswer(packet, answer.with(0, 9)) ?? "", /id/);
  assert.match(judgeAnswer(packet, answer.with(13, 98)) ?? "", /question/);
});
