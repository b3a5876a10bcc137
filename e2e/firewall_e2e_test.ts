/** Servers with firewalls of their own: what is needed is open, nothing else, and reloads heal. */
import assert from "node:assert/strict";
import { CORROSION_API_PORT, DNS_STATUS_PORT } from "@jiji/core/cluster";
import { eventually } from "./lab.ts";
import { chapter, secondsSince, Shop, spoken, tell } from "./shop.ts";

/** Closes a host with its owner's own rules: nothing gets in but SSH, nothing passes through. */
const CLOSED_BY_NFT = `table inet host
flush table inet host
table inet host {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname "lo" accept
    tcp dport 22 accept
  }
  chain forward { type filter hook forward priority filter; policy drop; }
}`;
const CLOSED_BY_IPTABLES = `for program in iptables ip6tables; do
  $program -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
  $program -A INPUT -i lo -j ACCEPT
  $program -A INPUT -p tcp --dport 22 -j ACCEPT
  $program -P INPUT DROP
done
ip6tables -A INPUT -p ipv6-icmp -j ACCEPT`;

/** A blip of one reload may last this long: the daemon looks every 5 s, at an open host every 10 s. */
const HEAL_MS = 25_000;
/** Docker is given 8 s to put its own rules back, then restarted. */
const RULES_MS = 60_000;

async function install(shop: Shop, server: string, name: string): Promise<void> {
  const script = "export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && " +
    `apt-get install -y -qq ${name} >/dev/null`;
  await shop.lab.on(server, ["sh", "-c", script]);
}

/** Waits until the engine has its rules again: it is restarted for flushed ones. */
async function dockerHasRules(shop: Shop, server: string): Promise<void> {
  const sinceMs = performance.now();
  await eventually(`docker on ${server} has its rules`, async () => {
    const rules = await shop.lab.tryOn(server, ["iptables", "-t", "nat", "-S", "PREROUTING"]);
    const engine = await shop.lab.tryOn(server, ["docker", "info"]);
    return rules.stdout.includes("-j DOCKER") && engine.code === 0 ? true : undefined;
  }, { timeoutMs: RULES_MS });
  tell(`docker on ${server} has its rules after ${secondsSince(sinceMs)} s`);
}

Deno.test("firewalls: ufw on one server, firewalld on the other", async (t) => {
  await using shop = await Shop.open({
    name: "e2e-firewall",
    servers: 2,
    configure: (text) => text.replace(/ {2}s3:\n.*\n/, "").replace("[s1, s2, s3]", "[s1, s2]"),
  });
  const { lab } = shop;

  await chapter(t, "both close everything but SSH", async () => {
    await Promise.all([install(shop, "s1", "ufw"), install(shop, "s2", "firewalld")]);
    await lab.on("s1", ["sh", "-c", "ufw default deny incoming && ufw allow 22/tcp"]);
    await lab.on("s1", ["ufw", "--force", "enable"]);
    await lab.on("s2", ["firewall-cmd", "--state"]);
  });

  await chapter(t, "server init opens what is needed", async () => {
    const outcome = await shop.jiji("server", "init");
    assert.equal(outcome.code, 0, spoken(outcome));
    await shop.must("deploy", "--version", "v1");
    await shop.assertServes("1", ["s1", "s2"]);
  });

  await chapter(t, "nothing else answers from outside", async () => {
    for (const server of ["s1", "s2"]) {
      for (const port of [CORROSION_API_PORT, DNS_STATUS_PORT, 53]) {
        const url = `http://${lab.address(server)}:${port}/`;
        const { code } = await lab.tryRun(["curl", "-sS", "-m", "2", url]);
        assert.notEqual(code, 0, `${server} answers on ${port}`);
      }
    }
  });

  for (
    const [server, ...argv] of [
      ["s1", "ufw", "reload"],
      ["s2", "firewall-cmd", "--reload"],
      ["s2", "systemctl", "restart", "firewalld"],
      ["s1", "iptables", "-t", "nat", "-F"],
    ] as const
  ) {
    await chapter(t, `${argv.join(" ")} on ${server} heals by itself`, async () => {
      await lab.on(server, [...argv]);
      await dockerHasRules(shop, server);
      const seconds = await Promise.all(["s1", "s2"].map((one) => shop.servesAgain(one, HEAL_MS)));
      tell(`${argv.join(" ")}: pages with the api's answer again after ${seconds.join(" and ")} s`);
    });
  }

  await chapter(
    t,
    "a rule deleted by hand is put back by server init, which then has nothing to do",
    async () => {
      await lab.on("s1", ["ufw", "delete", "allow", "31820/udp"]);
      const mended = await shop.jiji("server", "init");
      assert.match(spoken(mended), /ufw/);
      assert.match(await lab.on("s1", ["ufw", "status"]), /31820\/udp +ALLOW/);
      const again = await shop.jiji("server", "init");
      assert.match(spoken(again), /Nothing to do/);
    },
  );

  await chapter(t, "a host closed by its owner's own nftables and iptables is opened", async () => {
    await lab.on("s1", ["ufw", "disable"]);
    for (const [what, script] of [["nftables", CLOSED_BY_NFT], ["iptables", CLOSED_BY_IPTABLES]]) {
      const apply = what === "nftables" ? `nft -f - <<'END'\n${script}\nEND` : script!;
      // Twice: whoever loads the rules anew takes ours away.
      for (const time of ["closed", "closed again"]) {
        await lab.on("s1", ["sh", "-c", apply]);
        const seconds = await Promise.all(
          ["s1", "s2"].map((one) => shop.servesAgain(one, HEAL_MS)),
        );
        tell(`s1 ${time} by ${what}: pages again after ${seconds.join(" and ")} s`);
        if (what === "iptables" && time === "closed") {
          await lab.on("s1", ["iptables", "-F", "INPUT"]);
        }
      }
    }
    const status = await shop.jiji("network", "status");
    assert.match(spoken(status), /all linked/);
  });

  await chapter(t, "teardown closes what init opened", async () => {
    const marked = "nft list ruleset; iptables-save; ip6tables-save";
    assert.match(await lab.on("s1", ["sh", "-c", marked]), /comment "?jiji/);
    await lab.on("s1", ["ufw", "--force", "enable"]);
    await shop.must("server", "teardown", "--all", "--yes");
    const ufw = await lab.on("s1", ["ufw", "status"]);
    assert.doesNotMatch(ufw, /31820|jiji/);
    assert.doesNotMatch(await lab.on("s1", ["sh", "-c", marked]), /comment "?jiji/);
    const zones = await lab.on("s2", ["firewall-cmd", "--permanent", "--list-all-zones"]);
    assert.doesNotMatch(zones, /31820|jiji/);
  });
});
