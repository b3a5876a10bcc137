import assert from "node:assert/strict";
import {
  hardwareAddress,
  labOfNamespace,
  labPaths,
  namespaceName,
  parseLabName,
  parseServerName,
  serverAddress,
  SERVERS_MAX,
} from "../names.ts";

Deno.test("parseLabName(): takes names that can be part of a path and refuses all others", () => {
  assert.equal(parseLabName("e2e-deploy-2"), "e2e-deploy-2");
  for (const name of ["", "-x", "A", "a.b", "../etc", "a b", "x".repeat(25)]) {
    assert.throws(() => parseLabName(name), /JIJI_LAB/);
  }
});

Deno.test("parseServerName(): takes s1 to s200", () => {
  assert.equal(parseServerName("s1"), 1);
  assert.equal(parseServerName(`s${SERVERS_MAX}`), SERVERS_MAX);
  for (const name of ["s0", "s201", "s01", "1", "laptop", "s1; rm"]) {
    assert.throws(() => parseServerName(name), /no server name/);
  }
});

Deno.test("serverAddress(): every server has an address of the lab's network of its own", () => {
  const numbers = Array.from({ length: SERVERS_MAX }, (_, index) => index + 1);
  const addresses = new Set(numbers.map(serverAddress));
  assert.equal(addresses.size, SERVERS_MAX);
  assert.equal(serverAddress(1), "203.0.113.11");
  assert.equal(new Set(numbers.map(hardwareAddress)).size, SERVERS_MAX);
});

Deno.test("labOfNamespace(): finds the lab in a namespace's name, and only in a lab's", () => {
  assert.equal(labOfNamespace(namespaceName("a-s1", "s2")), "a-s1");
  assert.equal(labOfNamespace(namespaceName("a", "switch")), "a");
  assert.equal(labOfNamespace("jiji"), undefined);
  assert.equal(labOfNamespace("cni-1234"), undefined);
});

Deno.test("labPaths(): two labs share no path", () => {
  const [one, two] = [labPaths("one"), labPaths("two")];
  for (const key of ["state", "description", "lock", "group", "laptop"] as const) {
    assert.notEqual(one[key], two[key]);
  }
});
