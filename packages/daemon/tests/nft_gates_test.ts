import assert from "node:assert/strict";
import { parseGates, planGates, renderGateSteps } from "../src/firewall/nft_gates.ts";

type Facts = Readonly<Record<string, unknown>>;

function chain(facts: Facts = {}): Facts {
  const base = { family: "inet", table: "host", name: "input", handle: 1 };
  return { chain: { ...base, type: "filter", hook: "input", prio: 0, policy: "drop", ...facts } };
}

function rule(expr: readonly Facts[], facts: Facts = {}): Facts {
  return { rule: { family: "inet", table: "host", chain: "input", handle: 2, expr, ...facts } };
}

function list(...items: readonly Facts[]): string {
  return JSON.stringify({ nftables: [{ metainfo: { json_schema_version: 1 } }, ...items] });
}

const SSH = rule([{ match: { op: "==", left: {}, right: 22 } }, { accept: null }], {
  comment: "ssh",
});

Deno.test("planGates(): what a closed host must let through, once", () => {
  const [gate] = parseGates(list({ table: { family: "inet", name: "host" } }, chain(), SSH));
  assert.deepEqual(gate?.comments, new Set(["ssh"]));
  const text = renderGateSteps(planGates([gate!], { wireguard_port: 31820 }));
  assert.deepEqual(text.trim().split("\n"), [
    'insert rule inet host input udp dport 31820 accept comment "jiji wireguard"',
    'insert rule inet host input iifname "jiji0" accept comment "jiji mesh"',
    'insert rule inet host input iifname "jiji-br0" udp dport 53 accept comment "jiji dns"',
    'insert rule inet host input iifname "jiji-br0" tcp dport 53 accept comment "jiji dns tcp"',
  ]);
  const comments = new Set([...text.matchAll(/comment "(.*)"/g)].map((match) => match[1]!));
  assert.deepEqual(planGates([{ ...gate!, comments }], { wireguard_port: 31820 }), []);
});

Deno.test("planGates(): forwarding that is refused lets containers through", () => {
  const gates = parseGates(list(chain({ name: "fwd", hook: "forward" })));
  assert.deepEqual(
    renderGateSteps(planGates(gates, { wireguard_port: 1 })).trim().split("\n"),
    [
      'insert rule inet host fwd iifname "jiji-br0" accept comment "jiji from containers"',
      'insert rule inet host fwd oifname "jiji-br0" accept comment "jiji to containers"',
    ],
  );
});

Deno.test("parseGates(): open chains and those that others keep are none", () => {
  const open = { policy: "accept" };
  const refusal = rule([{ counter: null }, { reject: { type: "icmpx" } }]);
  const ban = rule([{ match: { left: {}, right: "192.0.2.7" } }, { drop: null }]);
  const cases: readonly [readonly Facts[], number][] = [
    [[chain(open), SSH], 0],
    [[chain(open), ban], 0],
    [[chain(open), refusal], 1],
    [[chain(), chain({ family: "ip6" })], 2],
    [[chain({ table: "filter", name: "INPUT", family: "ip" })], 0],
    [[chain({ table: "filter", name: "input", family: "ip" })], 1],
    [[chain({ table: "firewalld", name: "filter_INPUT" })], 0],
    [[chain({ table: "netavark" })], 0],
    [[chain({ hook: "output" })], 0],
    [[chain({ type: "nat" })], 0],
    [[chain({ name: "a b; flush ruleset" })], 0],
    [[{ chain: 7 }, { rule: [] }], 0],
  ];
  for (const [items, wanted] of cases) {
    assert.equal(parseGates(list(...items)).length, wanted, JSON.stringify(items));
  }
  for (const text of ["", "[]", "{}", "no"]) assert.throws(() => parseGates(text));
});
