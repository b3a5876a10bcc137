import assert from "node:assert/strict";
import type { DnsNames } from "@jiji/core";
import { groupNames } from "../src/commands/network/dns.ts";

function report(name: string, ...answered: boolean[]): DnsNames {
  const containers = answered.map((one, index) => ({
    address: `10.210.${index}.4`,
    server: `s${index}`,
    service: "casa-api",
    version: "7",
    health: one ? "healthy" : "unhealthy",
    answered: one,
    why: "",
  }));
  return { filled: true, names: [{ name, containers }] };
}

Deno.test("groupNames(): servers that answer alike share a line, others get their own", () => {
  const rows = groupNames(
    new Map([
      ["s2", report("casa-api.jiji", true, true)],
      ["s1", report("casa-api.jiji", true, true)],
      ["s3", report("casa-api.jiji", true, false)],
    ]),
  );
  assert.deepEqual(rows.map((row) => [row.servers, row.healthy, row.total, row.answers.length]), [
    [["s1", "s2"], 2, 2, 2],
    [["s3"], 1, 2, 1],
  ]);
  assert.deepEqual(groupNames(new Map([["s1", { filled: false, names: [] }]])), []);
});
