import assert from "node:assert/strict";
import fc from "fast-check";
import { UsageError } from "@jiji/core";
import { filterByName } from "../src/utils/name_filter.ts";

const ITEMS = [
  { name: "web", aliases: ["203.0.113.11"] },
  { name: "web-2", aliases: ["203.0.113.12"] },
  { name: "api", aliases: [] },
];
const OPTIONS = { what: "server", flag: "--hosts" };
const chosen = (patterns: string | undefined) =>
  filterByName(ITEMS, patterns, OPTIONS).map((item) => item.name);

Deno.test("filterByName(): names, addresses, lists, * and ?", () => {
  assert.deepEqual(chosen(undefined), ["web", "web-2", "api"]);
  assert.deepEqual(chosen("web"), ["web"], "a name is not the start of another");
  assert.deepEqual(chosen("web*"), ["web", "web-2"]);
  assert.deepEqual(chosen("a?i"), ["api"]);
  assert.deepEqual(chosen("203.0.113.12"), ["web-2"]);
  assert.deepEqual(chosen("api, web"), ["web", "api"], "in their own order");
  assert.deepEqual(chosen("*,web"), ["web", "web-2", "api"], "each once");
});

Deno.test("filterByName(): what matches nothing is a mistake, with the names there are", () => {
  for (const patterns of ["wep", "web,wep", "", ",", "203.0.113.*9", "w.b", "[", "(", "we\\b"]) {
    assert.throws(() => chosen(patterns), (error) => {
      assert(error instanceof UsageError, patterns);
      assert.equal(error.exitCode, 2);
      assert.match(error.message, /^--hosts /);
      return true;
    });
  }
  assert.throws(() => chosen("wep"), { hint: "there are: web, web-2, api" });
});

Deno.test("filterByName(): every name chooses itself, whatever characters it has", () => {
  fc.assert(fc.property(
    fc.string({ minLength: 1 }).filter((name) => !/[,*?\s]/.test(name)),
    (name) => {
      const items = [{ name: "another name", aliases: [] }, { name, aliases: [] }];
      assert.deepEqual(filterByName(items, name, OPTIONS), [items[1]]);
    },
  ));
});

Deno.test("filterByName(): a hostile pattern does not hang it", () => {
  const items = [{ name: "a".repeat(60), aliases: [] }];
  const startedMs = performance.now();
  assert.throws(() => filterByName(items, `${"*a".repeat(25)}b`, OPTIONS), UsageError);
  assert(performance.now() - startedMs < 5_000);
});
