import assert from "node:assert/strict";
import {
  entryRules,
  firewallRules,
  isClosed,
  type ObservedFirewall,
  parseFirewall,
  planFirewall,
  renderFirewallSteps,
} from "../src/firewall/iptables_rules.ts";
import { serverConfig } from "./builders.ts";

const FILTER = ":INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n" +
  "-A DOCKER-USER -j RETURN\n";
const NAT = ":POSTROUTING ACCEPT [0:0]\n";
const CLAMP = "-A FORWARD -o jiji0 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS " +
  "--clamp-mss-to-pmtu\n";

/** A firewall with these lines in its tables. */
function observed(tables: Record<string, string>): ObservedFirewall {
  const texts = Object.entries(tables).map(([name, lines]) => `*${name}\n${lines}COMMIT\n`);
  return parseFirewall(`# Generated\n${texts.join("# Completed\n")}`);
}

Deno.test("parseFirewall(): tables apart, others left out, what cannot be shown is an error", () => {
  const text = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DROP\nCOMMIT\n" +
    "*nat\n:DOCKER - [0:0]\n-A OUTPUT -j DOCKER\nCOMMIT\n";
  assert.deepEqual(parseFirewall(text), { nat: [":DOCKER - [0:0]", "-A OUTPUT -j DOCKER"] });
  assert.deepEqual(parseFirewall(""), {});
  const foreign = "# Table `nat' is incompatible, use 'nft' tool.\n";
  assert.throws(() => parseFirewall(foreign), /Table `nat' is incompatible/);
});

Deno.test("planFirewall(): puts in what is missing", () => {
  const steps = planFirewall(
    firewallRules("docker", serverConfig(1)),
    observed({ filter: FILTER, nat: NAT, mangle: CLAMP }),
  );
  const ours = "-s 10.210.0.0/16 -d 10.210.0.0/16";
  assert.equal(
    renderFirewallSteps(steps),
    "*filter\n" +
      "-I INPUT 1 -i jiji-br0 -p udp -m udp --dport 31281:31282 -j DROP\n" +
      `-I DOCKER-USER 1 ${ours} -i jiji0 -o jiji-br0 -j ACCEPT\n` +
      `-I DOCKER-USER 1 ${ours} -i jiji-br0 -o jiji0 -j ACCEPT\n` +
      "COMMIT\n*nat\n" +
      `-I POSTROUTING 1 ${ours} -j ACCEPT\n` +
      "COMMIT\n",
  );
});

Deno.test("planFirewall(): plans nothing when all stands, whatever the order of the filter's", () => {
  const rules = firewallRules("docker", serverConfig(1));
  const filter = FILTER + rules.filter((rule) => rule.table === "filter")
    .map((rule) => `-A ${rule.chain} ${rule.match.join(" ")}\n`).join("");
  const nat = `${NAT}-A POSTROUTING -s 10.210.0.0/16 -d 10.210.0.0/16 -j ACCEPT\n`;
  assert.deepEqual(planFirewall(rules, observed({ filter, nat, mangle: CLAMP })), []);
});

Deno.test("planFirewall(): brings the exemption back before another's MASQUERADE", () => {
  const rules = firewallRules("podman", serverConfig(1)).filter((rule) => rule.table === "nat");
  const nat = `${NAT}-A POSTROUTING -s 10.210.1.0/24 ! -o jiji-br0 -j MASQUERADE\n` +
    "-A POSTROUTING -s 10.210.0.0/16 -d 10.210.0.0/16 -j ACCEPT\n";
  const steps = planFirewall(rules, observed({ nat }));
  const ours = "-s 10.210.0.0/16 -d 10.210.0.0/16 -j ACCEPT";
  assert.equal(
    renderFirewallSteps(steps),
    `*nat\n-D POSTROUTING ${ours}\n-I POSTROUTING 1 ${ours}\nCOMMIT\n`,
    "in one go",
  );
});

Deno.test("planFirewall(): netavark keeps its place at the top, without a fight", () => {
  const rules = firewallRules("podman", serverConfig(1)).filter((rule) => rule.table === "nat");
  const ours = "-A POSTROUTING -s 10.210.0.0/16 -d 10.210.0.0/16 -j ACCEPT\n";
  const chain = "-A POSTROUTING -s 10.210.1.0/24 -j NETAVARK-CEFD004511814\n";
  const head = `${NAT}-A POSTROUTING -j NETAVARK-HOSTPORT-MASQ\n`;
  assert.deepEqual(planFirewall(rules, observed({ nat: head + ours + chain })), []);
  assert.equal(planFirewall(rules, observed({ nat: head + chain + ours })).length, 2);
});

Deno.test("planFirewall(): waits for a chain that the engine has not made yet", () => {
  const rules = firewallRules("docker", serverConfig(1)).filter((rule) => rule.table === "filter");
  const steps = planFirewall(rules, observed({ filter: ":FORWARD ACCEPT [0:0]\n", nat: NAT }));
  assert.deepEqual(steps.map((step) => step.rule.chain), ["INPUT"]);
});

Deno.test("planFirewall(): a host that refuses what nobody named is opened, by IPv6 too", () => {
  const rules = firewallRules("podman", serverConfig(1)).filter((rule) => rule.whenClosed);
  const closed = observed({ filter: ":INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n" });
  const marked = "-m comment --comment jiji -j ACCEPT";
  const opened = [
    `-p udp -m udp --dport 31820 ${marked}`,
    `-i jiji0 ${marked}`,
    `-i jiji-br0 -p udp -m udp --dport 53 ${marked}`,
    `-i jiji-br0 -p tcp -m tcp --dport 53 ${marked}`,
  ];
  const script = (lines: readonly string[]) =>
    `*filter\n${lines.map((line) => `-I INPUT 1 ${line}\n`).join("")}COMMIT\n`;
  assert.equal(renderFirewallSteps(planFirewall(rules, closed)), script(opened));
  const entry = planFirewall(entryRules(serverConfig(1)), closed);
  assert.equal(renderFirewallSteps(entry), script(opened.slice(0, 2)));
  const stands = opened.map((line) => `-A INPUT ${line}\n`).join("");
  assert.deepEqual(planFirewall(rules, observed({ filter: `:INPUT DROP [0:0]\n${stands}` })), []);
  assert.deepEqual(planFirewall(rules, observed({ filter: ":INPUT ACCEPT [0:0]\n" })), []);
});

Deno.test("isClosed(): by policy or by a rule that takes all; bans and ufw are none", () => {
  const cases: readonly [string, boolean][] = [
    [":INPUT DROP [0:0]\n", true],
    [":INPUT ACCEPT [0:0]\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\n", true],
    [":INPUT ACCEPT [0:0]\n-A INPUT -i eth0 -p udp -j DROP\n", true],
    [":INPUT ACCEPT [0:0]\n-A INPUT -s 192.0.2.7/32 -j DROP\n", false],
    [":INPUT ACCEPT [0:0]\n-A INPUT -m conntrack --ctstate INVALID -j DROP\n", false],
    [
      ":INPUT ACCEPT [0:0]\n-A INPUT -i jiji-br0 -p udp -m udp --dport 31281:31282 -j DROP\n",
      false,
    ],
    [":INPUT DROP [0:0]\n-A INPUT -j ufw-before-input\n", true],
    [
      ":INPUT DROP [0:0]\n-A INPUT -j ufw-before-input\n-A ufw-before-input -i lo -j ACCEPT\n",
      false,
    ],
    [":INPUT DROP [0:0]\n-A ufw6-before-input -i lo -j ACCEPT\n", false],
  ];
  for (const [filter, wanted] of cases) {
    assert.equal(isClosed(observed({ filter })), wanted, filter);
  }
});
