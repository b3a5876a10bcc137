import assert from "node:assert/strict";
import { renderMetric } from "@jiji/core/runtime";

Deno.test("renderMetric(): help, type and samples; labels cannot break out of their quotes", () => {
  const family = { name: "jiji_rows", type: "gauge", help: "Rows known." } as const;
  const samples = [[{}, 1], [{ table: 'a"b\\c\nd', of: "s1" }, 0.5], [
    { le: "1" },
    2,
    "_bucket",
  ]] as const;
  assert.deepEqual(renderMetric(family, samples), [
    "# HELP jiji_rows Rows known.",
    "# TYPE jiji_rows gauge",
    "jiji_rows 1",
    'jiji_rows{table="a\\"b\\\\c\\nd",of="s1"} 0.5',
    'jiji_rows_bucket{le="1"} 2',
  ]);
  assert.deepEqual(renderMetric(family, []), []);
});

Deno.test("renderMetric(): numbers that are none are told as Prometheus writes them", () => {
  const family = { name: "n", type: "gauge", help: "N." } as const;
  const values = renderMetric(family, [NaN, Infinity, -Infinity].map((value) => [{}, value]))
    .slice(2);
  assert.deepEqual(values, ["n NaN", "n +Inf", "n -Inf"]);
});
