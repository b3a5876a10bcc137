import assert from "node:assert/strict";
import fc from "fast-check";
import {
  allocateBlock,
  allocateContainerAddress,
  cidrHas,
  cidrSize,
  cidrsOverlap,
  isWireguardKey,
  macOf,
  managementIp,
  normalizeIp,
  normalizePrefix,
  parseCidr,
  parseEndpoint,
  parseIpv4,
  proxyAddress,
  renderCidr,
  renderEndpoint,
  renderIpv4,
  serverAddress,
} from "../src/net/mod.ts";

function cidr(text: string) {
  const parsed = parseCidr(text);
  assert.ok(parsed, text);
  return parsed;
}

Deno.test("parseIpv4(): four plain decimal parts and nothing else", () => {
  assert.equal(parseIpv4("255.255.255.255"), 4_294_967_295);
  for (const text of ["10.1", "010.1.1.1", "1.2.3.256", "1.2.3.4 ", "0x1.2.3.4", "", "1.2.3.4.5"]) {
    assert.equal(parseIpv4(text), undefined, text);
  }
});

Deno.test("renderIpv4(): round trip", () => {
  fc.assert(fc.property(fc.nat(4_294_967_295), (address) => {
    assert.equal(parseIpv4(renderIpv4(address)), address);
  }));
});

Deno.test("parseCidr(): refuses host bits, keeps every prefix length", () => {
  assert.equal(renderCidr(cidr("10.210.0.0/16")), "10.210.0.0/16");
  assert.equal(cidrSize(cidr("0.0.0.0/0")), 2 ** 32);
  assert.equal(cidrSize(cidr("1.2.3.4/32")), 1);
  for (const text of ["10.210.0.1/16", "10.0.0.0/33", "10.0.0.0", "10.0.0.0/-1", "::/0"]) {
    assert.equal(parseCidr(text), undefined, text);
  }
});

Deno.test("cidrsOverlap(): exactly when one holds the other's first address", () => {
  const network = fc.tuple(fc.nat(0xffff), fc.integer({ min: 16, max: 32 })).map(
    ([low, prefix]) => {
      const size = 2 ** (32 - prefix);
      return { base: 0x0ad20000 + Math.floor(low / size) * size, prefix };
    },
  );
  fc.assert(fc.property(network, network, (a, b) => {
    assert.equal(cidrsOverlap(a, b), cidrHas(a, b.base) || cidrHas(b, a.base));
  }));
});

Deno.test("allocateBlock(): the lowest free block, never one that touches another", () => {
  const cluster = cidr("10.210.0.0/16");
  const taken = [cidr("10.210.0.0/24"), cidr("10.210.1.128/25"), cidr("10.210.3.0/24")];
  assert.equal(renderCidr(allocateBlock(cluster, 24, taken)), "10.210.2.0/24");
});

Deno.test("allocateBlock(): a full cluster is a clear error", () => {
  const cluster = cidr("10.9.0.0/23");
  const taken = [cidr("10.9.0.0/24"), cidr("10.9.1.0/24")];
  assert.throws(() => allocateBlock(cluster, 24, taken), /10\.9\.0\.0\/23 is full: all 2 blocks/);
});

Deno.test("allocateContainerAddress(): never network, server, proxy, broadcast or taken ones", () => {
  const block = cidr("10.210.1.0/29");
  assert.equal(serverAddress(block), "10.210.1.1");
  assert.equal(proxyAddress(block), "10.210.1.2");
  const taken = new Set<string>();
  for (let count = 0; count < 4; count++) taken.add(allocateContainerAddress(block, taken));
  assert.deepEqual([...taken], [3, 4, 5, 6].map((last) => `10.210.1.${last}`));
  assert.throws(() => allocateContainerAddress(block, taken), /no container address left/);
});

Deno.test("allocateContainerAddress(): an address just given back comes last", () => {
  const block = cidr("10.210.1.0/29");
  assert.equal(allocateContainerAddress(block, new Set(["10.210.1.4"])), "10.210.1.5");
  const full = new Set(["10.210.1.4", "10.210.1.6"]);
  assert.equal(allocateContainerAddress(block, full), "10.210.1.3");
});

Deno.test("normalizeIp(): one text for one address", () => {
  assert.equal(normalizeIp("FDCC:0:0:0:0:0:0:1"), "fdcc::1");
  assert.equal(normalizeIp("10.0.0.1"), "10.0.0.1");
  assert.equal(normalizeIp("fe80::1%eth0"), undefined);
  assert.equal(normalizePrefix(" fdcc:0::1 "), "fdcc::1/128");
  assert.equal(normalizePrefix("10.0.0.0/8"), "10.0.0.0/8");
  for (const text of ["10.0.0.0/33", "x/8", "10.0.0.0/8/8", "10.0.0.0/", ""]) {
    assert.equal(normalizePrefix(text), undefined, text);
  }
});

Deno.test("parseEndpoint(): addresses and names with a port, round trip", () => {
  for (const text of ["203.0.113.1:31820", "[2001:db8::1]:1", "host.example:65535"]) {
    const endpoint = parseEndpoint(text);
    assert.equal(endpoint && renderEndpoint(endpoint), text);
  }
  const bad = [
    "1.2.3.4",
    "1.2.3.4:0",
    "1.2.3.4:70000",
    "2001:db8::1:1",
    "[1.2.3.4]:1",
    "-x:1",
    "a b:1",
    "$(x):1",
    "1.2.3:4",
  ];
  for (const text of bad) assert.equal(parseEndpoint(text), undefined, text);
});

Deno.test("managementIp(): derives from the key alone, in fdcc::/16", async () => {
  const key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
  assert.ok(isWireguardKey(key));
  assert.ok(!isWireguardKey(key.replace("A=", "B=")), "not the canonical form");
  // SHA-256 of 32 zero octets begins 66687aadf862bd776c8fc18b8e9f.
  assert.equal(await managementIp(key), "fdcc:6668:7aad:f862:bd77:6c8f:c18b:8e9f");
  await assert.rejects(managementIp("x"));
});

Deno.test("macOf(): one for each address, locally administered, of one receiver", () => {
  assert.equal(macOf("10.210.1.5"), "02:6a:0a:d2:01:05");
  assert.notEqual(macOf("10.210.1.5"), macOf("10.210.1.6"));
});
