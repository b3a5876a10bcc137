import assert from "node:assert/strict";
import fc from "fast-check";
import {
  type ContainerRow,
  decodeNews,
  encodeNews,
  HEALTH_STATUSES,
  NEWS_BYTES_MAX,
} from "@jiji/core/corrosion";

const hex = fc.string({
  unit: fc.constantFrom(..."0123456789abcdef"),
  minLength: 64,
  maxLength: 64,
});
const row: fc.Arbitrary<ContainerRow> = fc.record({
  id: hex,
  project: fc.constantFrom("casa", "shop"),
  service: fc.constantFrom("api", "web-front"),
  serverId: fc.constant("s1"),
  instance: fc.constant("s1"),
  name: fc.constantFrom("casa-api", "shop-web-front_old_17"),
  version: fc.string({ maxLength: 200, unit: "binary" })
    .map((text) => text.replace(/\p{Cc}/gu, "")),
  ip: fc.ipV4(),
  ports: fc.array(fc.constantFrom("80/tcp", "53/udp"), { maxLength: 3 }),
  startedAtMs: fc.nat(),
  health: fc.constantFrom(...HEALTH_STATUSES),
  unhealthySinceMs: fc.option(fc.nat()),
}, { noNullPrototype: true });

Deno.test("encodeNews(): what fits arrives whole, in texts of one packet and one line", () => {
  fc.assert(fc.property(
    fc.uniqueArray(row, { selector: (one) => one.id, maxLength: 12 }),
    fc.array(hex, { maxLength: 40 }),
    (rows, gone) => {
      const texts = encodeNews({ from: "s1", rows, gone });
      const size = (text: string) => new TextEncoder().encode(text).length;
      assert.ok(texts.every((text) => size(text) <= NEWS_BYTES_MAX && !text.includes("\n")));
      const heard = texts.map((text) => decodeNews(text)!);
      assert.deepEqual(heard.flatMap((one) => one.gone), gone);
      const small = rows.filter((one) => size(JSON.stringify(one)) < 900);
      const told = new Map(heard.flatMap((one) => one.rows).map((one) => [one.id, one]));
      for (const one of small) assert.deepEqual(told.get(one.id), one);
    },
  ));
});

Deno.test("decodeNews(): nobody speaks for another server, and nothing malformed is news", () => {
  const [text] = encodeNews({
    from: "s1",
    rows: [{ ...fc.sample(row, 1)[0]!, version: "1" }],
    gone: [],
  });
  assert.equal(decodeNews(text!)?.rows.length, 1);
  assert.equal(decodeNews(text!.replace('"from":"s1"', '"from":"s2"'))?.rows.length, 0);
  for (
    const bad of [
      "",
      "null",
      "[]",
      '{"jiji":1}',
      '{"jiji":2,"from":"s1","rows":[],"gone":[]}',
      '{"jiji":1,"from":"-x; rm","rows":[],"gone":[]}',
      '{"jiji":1,"from":"s1","rows":[],"gone":["../../etc"]}',
      `{"jiji":1,"from":"s1","rows":[],"gone":[]${" ".repeat(NEWS_BYTES_MAX)}}`,
    ]
  ) assert.equal(decodeNews(bad), undefined, bad.slice(0, 80));
  assert.deepEqual(decodeNews('{"jiji":1,"from":"s1","rows":[["x"],7],"gone":[]}'), undefined);
  assert.deepEqual(decodeNews('{"jiji":1,"from":"s1","rows":[["x"]],"gone":[]}')?.rows, []);
});
