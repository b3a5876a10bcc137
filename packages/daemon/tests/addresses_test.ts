import assert from "node:assert/strict";
import fc from "fast-check";
import { AddressesDuty, type AskAddress, SEEN_ADDRESSES_FILE } from "../src/duties/addresses.ts";
import {
  ENDPOINTS_MAX,
  isBehindNat,
  parseInterfaces,
  parsePublicAddress,
  planEndpoints,
  usableAddresses,
} from "../src/mesh/own_addresses.ts";
import { key, serverConfig, setUp } from "./builders.ts";

/** `ip -j addr show` of a host with an engine and the mesh; its own interface has `addresses`. */
function ipAddr(addresses: readonly { local: string; [key: string]: unknown }[]): string {
  const info = (local: string) => [{ family: "inet", local, scope: "global" }];
  return JSON.stringify([
    { ifname: "lo", mtu: 65536, addr_info: [{ local: "127.0.0.1", scope: "host" }] },
    { ifname: "eth0", mtu: 1500, addr_info: addresses.map((one) => ({ scope: "global", ...one })) },
    { ifname: "docker0", mtu: 1500, addr_info: info("172.17.0.1") },
    { ifname: "jiji0", mtu: 1420, addr_info: info("10.210.1.1") },
    {},
  ]);
}

Deno.test("usableAddresses(): of the host's own interfaces, neither temporary nor deprecated", () => {
  const interfaces = parseInterfaces(ipAddr([
    { local: "10.0.0.5" },
    { local: "2001:DB8:0::7" },
    { local: "2001:db8::8", temporary: true },
    { local: "2001:db8::9", deprecated: true },
    { local: "fe80::1", scope: "link" },
    { local: "not an address" },
  ]));
  assert.deepEqual(usableAddresses(interfaces), ["10.0.0.5", "2001:db8::7"]);
});

Deno.test("parsePublicAddress(): one public address and nothing else", () => {
  assert.equal(parsePublicAddress("203.0.113.9\n"), "203.0.113.9");
  assert.equal(parsePublicAddress(" 2001:DB8::9 "), "2001:db8::9");
  const refused = [
    "",
    "10.0.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "::1",
    "fdcc::1",
    "::ffff:203.0.113.9",
    "<html>203.0.113.9</html>",
    "203.0.113.9, 203.0.113.8",
    "203.0.113.9; reboot",
    "0x7f.1",
    "224.0.0.1",
  ];
  for (const answer of refused) assert.equal(parsePublicAddress(answer), undefined, answer);
  fc.assert(fc.property(fc.string(), (answer) => {
    const ip = parsePublicAddress(answer);
    if (ip !== undefined) assert.match(ip, /^[0-9a-f.:]+$/);
  }));
});

Deno.test("planEndpoints(): merges what is known, the port from the configuration", () => {
  const written = ["s1.example:31820", "10.0.0.5:31820"];
  const known = { local: ["10.0.0.6", "2001:db8::7"], seen: ["203.0.113.9"] };
  assert.deepEqual(planEndpoints(written, known, 4500), [
    "s1.example:31820",
    "203.0.113.9:4500",
    "10.0.0.6:4500",
    "[2001:db8::7]:4500",
  ]);
  const unknown = { local: undefined, seen: [] };
  assert.deepEqual(planEndpoints(written, unknown, 31820), written, "nothing is known: as before");
});

Deno.test("planEndpoints(): compares addresses, not pieces of text, and has a limit", () => {
  const known = { local: ["203.0.113.1", "203.0.113.11"], seen: ["203.0.113.11"] };
  assert.deepEqual(planEndpoints(["203.0.113.1:31820"], known, 31820), [
    "203.0.113.1:31820",
    "203.0.113.11:31820",
  ]);
  const many = Array.from({ length: 50 }, (_, index) => `10.0.1.${index}`);
  const endpoints = planEndpoints(["a.example:1"], { local: many, seen: [] }, 1);
  assert.equal(endpoints.length, ENDPOINTS_MAX);
});

Deno.test("isBehindNat(): when nobody here has the address that others see", () => {
  assert.equal(isBehindNat({ local: ["10.0.0.5"], seen: ["203.0.113.9"] }), true);
  assert.equal(isBehindNat({ local: ["10.0.0.5", "203.0.113.9"], seen: ["203.0.113.9"] }), false);
  assert.equal(isBehindNat({ local: ["10.0.0.5"], seen: ["2001:db8::1"] }), undefined);
  assert.equal(isBehindNat({ local: undefined, seen: ["203.0.113.9"] }), undefined);
});

const SIGNAL = new AbortController().signal;

function duty(answers: Record<string, string | Error>, sources?: string[]) {
  const made = setUp({
    config: serverConfig(1, sources === undefined ? {} : { public_ip_sources: sources }),
  });
  const asked: string[] = [];
  const ask: AskAddress = (url) => {
    asked.push(url);
    const answer = answers[url];
    return answer === undefined || answer instanceof Error
      ? Promise.reject(answer ?? new Error("no route"))
      : Promise.resolve(answer);
  };
  made.process.on("ip -j addr show", ipAddr([{ local: "10.0.0.5" }]));
  return { ...made, asked, duty: new AddressesDuty(made.context, ask) };
}

Deno.test("AddressesDuty: the first valid public address wins; lies and silence are passed over", async () => {
  const sources = ["https://a", "https://b", "https://c", "https://d"];
  const { duty: addresses, context, asked, files } = duty({
    "https://a": new Error("time is up"),
    "https://b": "10.9.9.9",
    "https://c": "198.51.100.7\n",
  }, sources);
  await addresses.run(SIGNAL);
  assert.deepEqual(asked, sources.slice(0, 3));
  assert.deepEqual(context.facts.endpoints, [
    "203.0.113.11:31820",
    "198.51.100.7:31820",
    "10.0.0.5:31820",
  ]);
  assert.equal(context.facts.doc?.nat, true);
  assert.match(files.texts.get(SEEN_ADDRESSES_FILE) ?? "", /198\.51\.100\.7/);
  await addresses.run(SIGNAL);
  assert.equal(asked.length, 3, "not asked again before it is time");
});

Deno.test("AddressesDuty: without internet it keeps what it knew, says so once and waits longer", async () => {
  const { duty: addresses, context, asked, files, clock, logger } = duty({}, ["https://a"]);
  files.texts.set(SEEN_ADDRESSES_FILE, JSON.stringify({ format: 1, seen: ["198.51.100.7"] }));
  for (let minute = 0; minute < 60; minute++) {
    await addresses.run(SIGNAL);
    await clock.advance(60_000);
  }
  assert.ok(context.facts.endpoints?.includes("198.51.100.7:31820"));
  assert.equal(asked.length, 6, "after 0, 1, 3, 7, 15 and 31 minutes");
  assert.equal(logger.lines.filter((line) => /not found/.test(line.message)).length, 1);
});

Deno.test("AddressesDuty: another address of the host is in its endpoints at the next look", async () => {
  const { duty: addresses, context, asked, process } = duty({ "https://a": "198.51.100.7" }, [
    "https://a",
  ]);
  const wg = `priv\t${key(1)}\t31820\toff\n` +
    `${key(2)}\t(none)\t203.0.113.12:31820\t10.210.2.0/24\t1\t0\t0\toff\n` +
    `${key(3)}\t(none)\t(none)\t10.210.3.0/24\t0\t0\t0\toff\n`;
  process.on("wg show jiji0 dump", wg).on("wg set", "");
  await addresses.run(SIGNAL);
  assert.deepEqual(process.commands("wg"), [], "nothing is said to WireGuard at the start");
  process.on("ip -j addr show", ipAddr([{ local: "10.0.0.77" }]));
  await addresses.run(SIGNAL);
  await addresses.run(SIGNAL);
  assert.deepEqual(process.commands("wg set"), [
    `wg set jiji0 peer ${key(2)} endpoint 203.0.113.12:31820`,
  ]);
  assert.deepEqual(context.facts.endpoints?.slice(1), ["198.51.100.7:31820", "10.0.0.77:31820"]);
  assert.equal(asked.length, 2, "whoever moved may be seen elsewhere, too");
});

Deno.test("AddressesDuty: switched off, nobody is asked and the memory is void", async () => {
  const { duty: addresses, context, asked, files } = duty({}, []);
  files.texts.set(SEEN_ADDRESSES_FILE, JSON.stringify({ format: 1, seen: ["198.51.100.7"] }));
  await addresses.run(SIGNAL);
  assert.deepEqual(asked, []);
  assert.deepEqual(context.facts.endpoints, ["203.0.113.11:31820", "10.0.0.5:31820"]);
});
