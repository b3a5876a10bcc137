import assert from "node:assert/strict";
import fc from "fast-check";
import { SERVER_PATHS, systemProcess } from "@jiji/core";
import { OBSERVE_SCRIPT, parseServerFacts } from "../src/lib/network/server_facts.ts";

const CONFIG = {
  format: 1,
  server_id: "s1",
  engine: "docker",
  cluster_cidr: "10.210.0.0/16",
  block: "10.210.0.0/24",
  management_ip: "fdcc::1",
  wireguard_public_key: "A".repeat(42) + "8=",
  wireguard_port: 31820,
  endpoints: ["203.0.113.11:31820"],
  service_domain: "jiji",
};

const TEXT = `motd that somebody's shell prints
@os debian 12
@machine x86_64
@clock 61000
@systemd yes
@package_manager apt-get
@engine docker 28.5.1
@engine podman
@tool wg
@tool wg-quick
@kernel_wireguard yes
@user jiji
@firewall ufw
@firewall_rule 31820/udp
@firewall_rule in on jiji0
@unit jiji-dns.service enabled active 1764000000
@unit docker.service  inactive 0
@file ${SERVER_PATHS.serverConfig} ${"ab".repeat(32)} 1764000001 640 root jiji
@config ${btoa(JSON.stringify(CONFIG))}
@token ${btoa("0f".repeat(32) + "\n")}
@bootstrap ["[fdcc::2]:31280"]
@public_key ${CONFIG.wireguard_public_key}
@address eth0 203.0.113.11/24
@address eth0 2001:DB8:0::1/64
@address docker0 172.17.0.1/16
@address jiji0 10.210.0.1/32
@address eth1 fe80::1/64
@address eth2 not-an-address
@route default via 203.0.113.1 dev eth0 proto dhcp src 203.0.113.11 metric 100
@route 203.0.113.0/24 dev eth0 proto kernel scope link src 203.0.113.11
@route 172.17.0.0/16 dev docker0 proto kernel scope link src 172.17.0.1 linkdown
@route 10.210.1.0/24 dev jiji0 scope link src 10.210.0.1 mtu 1440
@route 10.210.0.0/24 dev jiji-br0 proto kernel scope link src 10.210.0.1
@route 10.9.8.7 via 203.0.113.1 dev eth0
@route blackhole 192.0.2.0/24
@future something new
`;

Deno.test("parseServerFacts(): everything the script tells", () => {
  const facts = parseServerFacts(TEXT, 1_000);
  assert.equal(facts.os, "debian 12");
  assert.equal(facts.machine, "x86_64");
  assert.equal(facts.systemd, true);
  assert.equal(facts.packageManager, "apt-get");
  assert.deepEqual([...facts.engines], [["docker", "28.5.1"], ["podman", ""]]);
  assert.deepEqual([...facts.tools], ["wg", "wg-quick"]);
  assert.equal(facts.kernelWireguard, true);
  assert.equal(facts.userExists, true);
  assert.deepEqual(facts.routes.map((one) => `${one.network} ${one.device}`), [
    "203.0.113.0/24 eth0",
    "172.17.0.0/16 docker0",
    "10.9.8.7/32 eth0",
  ]);
  assert.deepEqual(facts.firewall, {
    name: "ufw",
    zone: "",
    rules: new Set(["31820/udp", "in on jiji0"]),
  });
  assert.deepEqual([...facts.units], [
    ["jiji-dns.service", { enabled: true, active: true, startedAtSeconds: 1_764_000_000 }],
    // A unit that systemd does not know prints nothing for "is-enabled".
    ["docker.service", { enabled: false, active: false, startedAtSeconds: 0 }],
  ]);
  assert.deepEqual(facts.files.get(SERVER_PATHS.serverConfig), {
    sha256: "ab".repeat(32),
    mode: "640 root jiji",
    modifiedAtSeconds: 1_764_000_001,
  });
  assert.deepEqual(facts.config, CONFIG);
  assert.equal(facts.token?.reveal(), "0f".repeat(32));
  assert(!JSON.stringify(facts.token).includes("0f"));
  assert.deepEqual(facts.bootstrap, ["[fdcc::2]:31280"]);
  assert.equal(facts.publicKey, CONFIG.wireguard_public_key);
  assert.deepEqual(facts.addresses, ["203.0.113.11", "2001:db8::1"]);
  assert.equal(facts.clockSkewMs, 60_000);
});

Deno.test("parseServerFacts(): a bare server has none of ours", () => {
  const facts = parseServerFacts("@machine aarch64\n", 5);
  assert.equal(facts.os, "unknown");
  assert.equal(facts.systemd, false);
  assert.deepEqual(
    [facts.packageManager, facts.firewall, facts.config, facts.token, facts.bootstrap],
    [undefined, undefined, undefined, undefined, undefined],
  );
  assert.deepEqual([facts.engines.size, facts.units.size, facts.files.size], [0, 0, 0]);
  assert.equal(facts.clockSkewMs, 0);
});

Deno.test("parseServerFacts(): what is not the script's output is refused", () => {
  for (const text of ["", "bash: not found", "@os debian 12\n"]) {
    assert.throws(() => parseServerFacts(text, 0), /did not answer as expected/);
  }
});

Deno.test("parseServerFacts(): hostile values are refused, not passed on", () => {
  const facts = parseServerFacts(
    `@machine x86_64
@package_manager rm
@firewall /bin/sh
@token ${btoa("'; reboot; '")}
@bootstrap not json
@address eth0 $(reboot)
`,
    0,
  );
  assert.equal(facts.packageManager, undefined);
  assert.equal(facts.firewall, undefined);
  assert.equal(facts.token, undefined);
  assert.equal(facts.bootstrap, undefined);
  assert.deepEqual(facts.addresses, []);
  const config = (change: object) =>
    `@machine x\n@config ${btoa(JSON.stringify({ ...CONFIG, ...change }))}`;
  assert.throws(
    () => parseServerFacts(config({ server_id: "../x" }), 0),
    /server\.json: server_id/,
  );
  assert.throws(() => parseServerFacts(config({ block: "10.210.0.1/24" }), 0), /block/);
});

Deno.test("parseServerFacts(): never throws but for known reasons, whatever a server says", () => {
  const keys = ["os", "clock", "engine", "unit", "file", "token", "bootstrap", "address", "x"];
  fc.assert(fc.property(
    fc.array(fc.tuple(fc.constantFrom(...keys), fc.string())),
    (lines) => {
      const text = lines.map(([key, value]) => `@${key} ${value}`).join("\n");
      try {
        parseServerFacts(`@machine x86_64\n${text}`, 0);
      } catch (error) {
        assert(error instanceof DOMException, `unexpected: ${error}`);
      }
    },
  ));
});

Deno.test("OBSERVE_SCRIPT: a POSIX shell runs it on any machine, and its output parses", async () => {
  const result = await systemProcess.run(["sh", "-n"], {
    timeoutMs: 20_000,
    stdin: OBSERVE_SCRIPT,
  });
  assert.deepEqual([result.exitCode, result.stderr], [0, ""]);
  // Without the one line that touches the kernel.
  const script = OBSERVE_SCRIPT.replace(/\{ ip link add[^}]*\}/, "false");
  const ran = await systemProcess.run(["sh", "-s"], { timeoutMs: 60_000, stdin: script });
  assert.equal(ran.exitCode, 0, ran.stderr);
  const facts = parseServerFacts(ran.stdout, Date.now());
  assert.equal(facts.machine, Deno.build.arch);
  assert(Math.abs(facts.clockSkewMs) < 60_000);
});
