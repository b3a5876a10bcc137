import assert from "node:assert/strict";
import fc from "fast-check";
import { parseWgDump } from "../src/mesh/wg_show.ts";
import { key } from "./builders.ts";

const PRIVATE = "cHJpdmF0ZS1wcml2YXRlLXByaXZhdGUtcHJpdmF0ZS0=";
const HEAD = `${PRIVATE}\t${key(1)}\t31820\toff`;

Deno.test("parseWgDump(): reads peers and forgets the private key", () => {
  const state = parseWgDump([
    HEAD,
    `${key(2)}\t(none)\t203.0.113.12:31820\t10.210.2.0/24,fdcc:0:0::2/128\t1700000000\t10\t20\t25`,
    `${key(3)}\t(none)\t(none)\t(none)\t0\t0\t0\toff`,
    "",
  ].join("\n"));
  assert.deepEqual(state.peers[0], {
    publicKey: key(2),
    endpoint: "203.0.113.12:31820",
    allowedIps: ["10.210.2.0/24", "fdcc::2/128"],
    handshakeAtMs: 1_700_000_000_000,
    rxBytes: 10,
    txBytes: 20,
    keepaliveS: 25,
  });
  assert.deepEqual(state.peers[1]?.allowedIps, []);
  assert.equal(state.peers[1]?.handshakeAtMs, undefined);
  assert.ok(!JSON.stringify(state).includes(PRIVATE));
});

Deno.test("parseWgDump(): an IPv6 endpoint keeps its brackets", () => {
  const line = `${key(2)}\t(none)\t[2001:db8::2]:31820\t10.210.2.0/24\t0\t0\t0\t25`;
  assert.equal(parseWgDump(`${HEAD}\n${line}`).peers[0]?.endpoint, "[2001:db8::2]:31820");
});

Deno.test("parseWgDump(): errors name line and field, never their content", () => {
  for (const text of [PRIVATE, `${HEAD}\nx\ty`, `${HEAD}\n${"z\t".repeat(7)}z`]) {
    assert.throws(() => parseWgDump(text), (error: Error) => {
      assert.match(error.message, /^wg dump: line \d/);
      return !error.message.includes(PRIVATE);
    });
  }
});

Deno.test("parseWgDump(): any text gives a state or an Error", () => {
  fc.assert(fc.property(fc.string(), (text) => {
    try {
      parseWgDump(`${HEAD}\n${text}`);
    } catch (error) {
      assert.match((error as Error).message, /^wg dump/);
    }
  }));
});
