import assert from "node:assert/strict";
import { parseProxyListing, parseProxyState } from "@jiji/core/cluster";

Deno.test("parseProxyState(): routes and their targets", () => {
  const text = JSON.stringify([
    { name: "shop-web-80", active_targets: ["10.210.1.3:80"], rollout_targets: null, options: {} },
    { name: "empty", active_targets: null },
  ]);
  assert.deepEqual([...parseProxyState(text)!], [["shop-web-80", ["10.210.1.3:80"]], [
    "empty",
    [],
  ]]);
  assert.deepEqual([...parseProxyState("\n")!], []);
});

Deno.test("parseProxyState(): half a file is unknown, not empty", () => {
  for (const text of ['[{"name":"a","active_tar', "{}", "null", '[{"name":1}]', "[[]]"]) {
    assert.equal(parseProxyState(text), undefined, text);
  }
});

Deno.test("parseProxyListing(): what kamal-proxy 0.9.2 prints, with its colours", () => {
  const text = [
    "\x1b[3;94mService\x1b[0m  \x1b[3;94mHost\x1b[0m  \x1b[3;94mPath\x1b[0m  \x1b[3;94mTarget\x1b[0m  State  TLS",
    "\x1b[1mshop-web-80\x1b[0m  a.example,b.example  /  10.210.1.3:80,10.210.1.4:80  running  yes",
    "shop-api-80  *  /api,/v2  10.210.1.5:80  stopped  no",
    "",
  ].join("\n");
  assert.deepEqual([...parseProxyListing(text)], [
    ["shop-web-80", ["10.210.1.3:80", "10.210.1.4:80"]],
    ["shop-api-80", ["10.210.1.5:80"]],
  ]);
});

Deno.test("parseProxyListing(): nothing is made of what is no row", () => {
  for (const text of ["", "\n", "Service Host Path Target State TLS\n", "x\nError: no socket\n"]) {
    assert.equal(parseProxyListing(text).size, 0, text);
  }
});
