import assert from "node:assert/strict";
import fc from "fast-check";
import { type Cidr, cidrsOverlap, parseCidr, renderCidr } from "@jiji/core/net";
import { type Claim, Claims } from "../src/mesh/claims.ts";

const block = fc.tuple(fc.nat(255), fc.integer({ min: 20, max: 30 })).map(([third, prefix]) => {
  const base = 0x0ad20000 + third * 256;
  return renderCidr({ base: base - base % 2 ** (32 - prefix), prefix });
});

const claim: fc.Arbitrary<Claim> = fc.record({
  server_id: fc.nat(20).map((index) => `s${index}`),
  public_key: fc.nat(40).map((index) => `key${index}`),
  management_ip: fc.nat(40).map((index) => `fdcc::${index}`),
  block,
});

Deno.test("Claims.grant(): grants what shares nothing with those before, and only that", () => {
  fc.assert(fc.property(fc.array(claim, { maxLength: 40 }), (wishes) => {
    const claims = new Claims("10.0.0.0/8");
    const granted: Claim[] = [];
    for (const wish of wishes) {
      const isFree = granted.every((other) =>
        other.public_key !== wish.public_key && other.management_ip !== wish.management_ip &&
        !cidrsOverlap(cidr(other), cidr(wish))
      );
      assert.equal(claims.grant(wish) === undefined, isFree, JSON.stringify(wish));
      if (isFree) granted.push(wish);
    }
  }));
});

function cidr(claim: Claim): Cidr {
  const parsed = parseCidr(claim.block);
  assert.ok(parsed);
  return parsed;
}

Deno.test("Claims.grant(): says who has it", () => {
  const claims = new Claims("10.0.0.0/8");
  const one = { server_id: "s1", public_key: "k1", management_ip: "fdcc::1", block: "10.0.1.0/24" };
  const two = { server_id: "s2", public_key: "k2", management_ip: "fdcc::2", block: "10.0.2.0/24" };
  assert.equal(claims.grant(one), undefined);
  assert.equal(claims.grant({ ...two, public_key: "k1" }), "has the key of s1");
  assert.equal(claims.grant({ ...two, management_ip: "fdcc::1" }), "has the identity of s1");
  assert.equal(claims.grant({ ...two, block: "10.0.0.0/16" }), "its block overlaps that of s1");
  assert.equal(claims.grant({ ...two, block: "10.0.1.128/25" }), "its block overlaps that of s1");
  assert.equal(claims.grant({ ...two, block: "x" }), "block does not parse");
  assert.equal(claims.grant(two), undefined);
});

Deno.test("Claims.grant(): nothing outside of the cluster's network, whoever wrote it", () => {
  const claims = new Claims("10.210.0.0/16");
  const one = {
    server_id: "s1",
    public_key: "k1",
    management_ip: "fdcc::1",
    block: "10.210.1.0/24",
  };
  for (
    const block of ["203.0.113.0/24", "0.0.0.0/0", "10.0.0.0/8", "10.211.0.0/24", "127.0.0.1/32"]
  ) {
    assert.equal(
      claims.grant({ ...one, block }),
      "its block is not of the cluster's network",
      block,
    );
  }
  for (const management_ip of ["2001:db8::1", "::1", "fe80::1"]) {
    assert.equal(claims.grant({ ...one, management_ip }), "its identity is not one of the mesh");
  }
  assert.equal(claims.grant(one), undefined);
});
