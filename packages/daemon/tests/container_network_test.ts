import assert from "node:assert/strict";
import {
  argvFirewallStep,
  firewallRules,
  networkSpec,
  parseNetwork,
  planFirewall,
  planNetwork,
  renderNetavarkNetwork,
} from "../src/engine/container_network.ts";
import { argvDockerNetworkCreate } from "../src/engine/argv.ts";
import { serverConfig } from "./builders.ts";

const SPEC = networkSpec(serverConfig(1));

const DOCKER = JSON.stringify([{
  Name: "jiji-net",
  IPAM: { Config: [{ Subnet: "10.210.1.0/24", Gateway: "10.210.1.1" }] },
  Options: { "com.docker.network.bridge.name": "jiji-br0" },
}]);

Deno.test("argvDockerNetworkCreate(): the exact words", () => {
  assert.equal(
    argvDockerNetworkCreate(SPEC).join(" "),
    "docker network create --driver bridge --subnet 10.210.1.0/24 --gateway 10.210.1.1 " +
      "--opt com.docker.network.bridge.name=jiji-br0 " +
      "--opt com.docker.network.bridge.trusted_host_interfaces=jiji0 jiji-net",
  );
});

Deno.test("planNetwork(): keeps the network it would make, of either engine", () => {
  assert.deepEqual(planNetwork(SPEC, parseNetwork(DOCKER)), { kind: "keep" });
  const podman = `[${renderNetavarkNetwork(SPEC, { id: "a".repeat(64), createdAtMs: 0 })}]`;
  assert.deepEqual(planNetwork(SPEC, parseNetwork(podman)), { kind: "keep" });
});

Deno.test("planNetwork(): makes a missing one, replaces a wrong one with the reason", () => {
  assert.equal(planNetwork(SPEC, undefined).kind, "create");
  const wrong = parseNetwork(DOCKER.replaceAll("10.210.1.", "10.9.1."));
  const plan = planNetwork(SPEC, wrong);
  assert.ok(plan.kind === "replace" && plan.cause.includes("10.9.1.0/24"));
  const unnamed = parseNetwork(DOCKER.replace("jiji-br0", "br-123"));
  assert.equal(planNetwork(SPEC, unnamed).kind, "replace");
});

Deno.test("parseNetwork(): anything else is no network", () => {
  for (const text of ["", "[]", "{}", "[1]", "null"]) assert.equal(parseNetwork(text), undefined);
});

const FILTER = "-P INPUT ACCEPT\n-P FORWARD DROP\n-N DOCKER-USER\n-A DOCKER-USER -j RETURN\n";
const NAT = "-P POSTROUTING ACCEPT\n";

Deno.test("planFirewall(): puts in what is missing", () => {
  const steps = planFirewall(firewallRules("docker", serverConfig(1)), {
    filter: FILTER,
    nat: NAT,
  });
  assert.deepEqual(steps.map((step) => argvFirewallStep(step).join(" ")), [
    "iptables -w 5 -t filter -I INPUT 1 -i jiji-br0 -p udp -m udp --dport 31281:31282 -j DROP",
    "iptables -w 5 -t filter -I DOCKER-USER 1 -s 10.210.0.0/16 -d 10.210.0.0/16 -i jiji0 " +
    "-o jiji-br0 -j ACCEPT",
    "iptables -w 5 -t filter -I DOCKER-USER 1 -s 10.210.0.0/16 -d 10.210.0.0/16 -i jiji-br0 " +
    "-o jiji0 -j ACCEPT",
    "iptables -w 5 -t nat -I POSTROUTING 1 -s 10.210.0.0/16 -d 10.210.0.0/16 -j ACCEPT",
  ]);
});

Deno.test("planFirewall(): plans nothing when all stands, whatever the order of the filter's", () => {
  const rules = firewallRules("docker", serverConfig(1));
  const filter = FILTER + rules.filter((rule) => rule.table === "filter")
    .map((rule) => `-A ${rule.chain} ${rule.match.join(" ")}\n`).join("");
  const nat = `${NAT}-A POSTROUTING -s 10.210.0.0/16 -d 10.210.0.0/16 -j ACCEPT\n`;
  assert.deepEqual(planFirewall(rules, { filter, nat }), []);
});

Deno.test("planFirewall(): brings the exemption back before another's MASQUERADE", () => {
  const rules = firewallRules("podman", serverConfig(1)).filter((rule) => rule.table === "nat");
  const nat = `${NAT}-A POSTROUTING -s 10.210.1.0/24 ! -o jiji-br0 -j MASQUERADE\n` +
    "-A POSTROUTING -s 10.210.0.0/16 -d 10.210.0.0/16 -j ACCEPT\n";
  const steps = planFirewall(rules, { filter: "", nat });
  assert.deepEqual(steps.map((step) => step.kind), ["delete", "insert"]);
});

Deno.test("planFirewall(): netavark keeps its place at the top, without a fight", () => {
  const rules = firewallRules("podman", serverConfig(1)).filter((rule) => rule.table === "nat");
  const ours = "-A POSTROUTING -s 10.210.0.0/16 -d 10.210.0.0/16 -j ACCEPT\n";
  const chain = "-A POSTROUTING -s 10.210.1.0/24 -j NETAVARK-CEFD004511814\n";
  const head = `${NAT}-A POSTROUTING -j NETAVARK-HOSTPORT-MASQ\n`;
  assert.deepEqual(planFirewall(rules, { filter: "", nat: head + ours + chain }), []);
  assert.equal(planFirewall(rules, { filter: "", nat: head + chain + ours }).length, 2);
});

Deno.test("planFirewall(): waits for a chain that the engine has not made yet", () => {
  const rules = firewallRules("docker", serverConfig(1)).filter((rule) => rule.table === "filter");
  assert.deepEqual(planFirewall(rules, { filter: "-P FORWARD ACCEPT\n", nat: NAT }), []);
});
