import assert from "node:assert/strict";
import { join } from "node:path";
import { chapter, edit, Shop, spoken, tell } from "./shop.ts";

const SERVERS = ["s1", "s2", "s3"] as const;

/** What any change to a server by jiji would change: files of jiji, and every container. */
const STATE_SCRIPT = "find /etc/jiji /opt/jiji /etc/wireguard /var/lib/jiji/projects -type f " +
  "-exec stat -c '%n %Y %i' {} + | sort; docker ps -a --no-trunc --format '{{.ID}} {{.Names}}'";

async function states(shop: Shop, servers: readonly string[]): Promise<string> {
  const found = await Promise.all(
    servers.map((server) => shop.lab.on(server, ["sh", "-c", STATE_SCRIPT])),
  );
  return found.join("\n");
}

function firstProblem(text: string): string {
  return text.split("\n").find((line) => line.startsWith("✖")) ?? text;
}

Deno.test("refusals: each failure says what, where and what serves, and harms nobody else", async (t) => {
  // s3 is bare, so that its engine has to be installed.
  await using shop = await Shop.open({
    name: "e2e-refuse",
    servers: 2,
    configure: (text) =>
      `${text}\ndeploy:\n  health_timeout: 4s\n`
        .replace("user: root", "user: root\n  connect_timeout: 4"),
  });
  const { lab } = shop;
  await lab.grow(3, "none");

  await chapter(
    t,
    "no configuration, an unknown option, a filter that matches nothing",
    async () => {
      const lost = await shop.jijiIn("/", ["deploy"]);
      assert.equal(lost.code, 3, spoken(lost));
      assert.match(lost.stderr, /jiji init/);
      assert.equal((await shop.jiji("deploy", "--qwertz")).code, 2);
      const nobody = await shop.jiji("deploy", "-S", "nobody");
      assert.equal(nobody.code, 2, spoken(nobody));
      assert.match(nobody.stderr, /nobody/);
    },
  );

  await chapter(t, "a wrong configuration: file, line, column and fix; exit 3", async () => {
    const good = await Deno.readTextFile(join(shop.folder, ".jiji/deploy.yml"));
    const line = good.split("\n").findIndex((text) => text.includes('ports: ["3000"]')) + 1;
    await shop.configure((text) =>
      text.replace('ports: ["3000"]', 'ports: ["99999"]').replace("hosts: [s2]", "hosts: [s9]")
    );
    for (const command of [["deploy"], ["server", "init"], ["services", "list"]]) {
      const outcome = await shop.jiji(...command);
      assert.equal(outcome.code, 3, spoken(outcome));
      assert.match(outcome.stderr, new RegExp(`deploy\\.yml:${line}:\\d+ +services\\.web\\.ports`));
      assert.match(outcome.stderr, /s9/);
      assert.match(outcome.stderr, /2 problems in /);
    }
    await shop.configure(() => good);
  });

  await chapter(t, "deploy before server init says so, and changes nothing", async () => {
    const outcome = await shop.jiji("deploy");
    assert.notEqual(outcome.code, 0);
    assert.match(outcome.stderr, /jiji server init/);
    tell(firstProblem(outcome.stderr));
  });

  await chapter(
    t,
    "an engine that can't be installed: named; the others are ready; then mended",
    async () => {
      await lab.on("s3", ["mv", "/etc/apt", "/etc/apt.away"]);
      await lab.on("s3", ["mkdir", "-p", "/etc/apt"]);
      await lab.on("s3", ["sh", "-c", "rm -rf /var/lib/apt/lists/*"]);
      const outcome = await shop.jiji("server", "init");
      assert.equal(outcome.code, 8, spoken(outcome));
      assert.match(outcome.stderr, /1 of 3 servers failed/);
      assert.match(outcome.stderr, /s3: .*docker\.io.* failed/);
      assert.match(outcome.stderr, /apt-get/);
      assert.match(outcome.stderr, /s1, s2: ready, unharmed/);
      tell(firstProblem(outcome.stderr));
      await lab.on("s3", ["sh", "-c", "rm -r /etc/apt && mv /etc/apt.away /etc/apt"]);
      const again = await shop.jiji("server", "init");
      assert.equal(again.code, 0, spoken(again));
      assert.match(await shop.must("server", "init"), /Nothing to do: 3 servers/);
    },
  );

  await chapter(
    t,
    "port 80 taken by another program: named before anything changes; then mended",
    async () => {
      const taker = "docker run -d --name taker --network host busybox:1 httpd -f -p 80".split(" ");
      await lab.on("s1", taker);
      const outcome = await shop.jiji("deploy", "--version", "v1");
      assert.equal(outcome.code, 9, spoken(outcome));
      const said = outcome.stderr.replaceAll(/\s+/g, " ");
      assert.match(said, /port 80 of s1, which the proxy needs, is taken by/);
      assert.match(said, /deploy\.yml:\d+:\d+ /);
      assert.match(said, /nothing was changed/);
      assert.deepEqual(await shop.containers("s2"), []);
      tell(firstProblem(outcome.stderr));
      await lab.on("s1", ["docker", "rm", "-f", "taker"]);
    },
  );

  await chapter(
    t,
    "a first version that never gets healthy: exit 7, and nothing of it stays",
    async () => {
      const good = await shop.setScript("#!/bin/sh\necho 'no database'\nexec sleep 600\n");
      const outcome = await shop.jiji("deploy", "--version", "v1");
      await shop.setScript(good);
      assert.equal(outcome.code, 7, spoken(outcome));
      assert.match(outcome.stderr, /shop-web on s1.* did not get healthy in 4 s/);
      assert.match(outcome.stderr, /no database/);
      assert.match(outcome.stderr, /web nothing on s1/);
      assert.deepEqual(await shop.containers("s1"), ["kamal-proxy"]);
      await shop.must("deploy", "--version", "v2");
      await shop.assertServes("1", SERVERS);
    },
  );

  await chapter(
    t,
    "a server that can't be reached: exit 4, and the others are left alone",
    async () => {
      await lab.cut("s3", "laptop");
      await shop.setVersion("3");
      const before = await states(shop, SERVERS);
      const outcome = await shop.underLoad("s3 can't be reached", ["s1", "s2"], async () => {
        return await shop.jiji("deploy", "--version", "v3");
      });
      assert.equal(outcome.code, 4, spoken(outcome));
      assert.match(outcome.stderr, /s3.*can't be reached/);
      assert.match(outcome.stderr, /--skip-unreachable/);
      assert.match(outcome.stderr, /nothing was changed/);
      tell(firstProblem(outcome.stderr));
      assert.equal(await states(shop, SERVERS), before);
      const init = await shop.jiji("server", "init");
      assert.equal(init.code, 8, spoken(init));
      assert.match(init.stderr, /s1, s2: ready, unharmed/);
      assert.equal(await states(shop, SERVERS), before);
    },
  );

  await chapter(t, "--skip-unreachable leaves it out, and the next deploy catches up", async () => {
    const outcome = await shop.jiji("deploy", "--version", "v3", "--skip-unreachable");
    assert.equal(outcome.code, 0, spoken(outcome));
    assert.match(outcome.stderr, /left out, since unreachable: s3/);
    await shop.assertServes("3", ["s1", "s2"]);
    await lab.heal();
    await shop.assertServes("1", ["s3"]);
    assert.match(await shop.must("deploy", "--version", "v3"), /web on s3/);
    await shop.assertServes("3", SERVERS);
  });

  await chapter(t, "an address where nobody is: exit 4", async () => {
    await shop.configure((text) => text.replace(lab.address("s2"), "203.0.113.99"));
    const before = await states(shop, SERVERS);
    const outcome = await shop.jiji("deploy", "--version", "v4");
    assert.equal(outcome.code, 4, spoken(outcome));
    assert.match(outcome.stderr, /s2.*203\.0\.113\.99/);
    assert.equal(await states(shop, SERVERS), before);
    await shop.configure((text) => text.replace("203.0.113.99", lab.address("s2")));
  });

  await chapter(t, "a refused key: exit 4, with what was tried", async () => {
    const keys = "/root/.ssh/authorized_keys";
    await lab.on("s2", ["mv", keys, `${keys}.away`]);
    const before = await states(shop, SERVERS);
    const outcome = await shop.jiji("deploy", "--version", "v4");
    await lab.on("s2", ["mv", `${keys}.away`, keys]);
    assert.equal(outcome.code, 4, spoken(outcome));
    assert.match(outcome.stderr, /s2 .*refused the login; tried/);
    assert.match(outcome.stderr, /authorized_keys/);
    tell(firstProblem(outcome.stderr));
    assert.equal(await states(shop, SERVERS), before);
  });

  await chapter(
    t,
    "a changed host key stops everything: exit 4, nothing changed anywhere",
    async () => {
      await lab.on("s1", [
        "sh",
        "-c",
        "mkdir /root/keys && mv /etc/ssh/ssh_host_* /root/keys/ && ssh-keygen -q -A && " +
        "systemctl restart ssh",
      ]);
      await shop.setVersion("4");
      const before = await states(shop, SERVERS);
      for (const command of [["deploy", "--version", "v4"], ["server", "init"]]) {
        const outcome = await shop.jiji(...command);
        assert.equal(outcome.code, 4, spoken(outcome));
        assert.match(
          outcome.stderr,
          /s1 .*the host key has changed: recorded SHA256:.* now SHA256:/,
        );
        assert.match(outcome.stderr, /Nothing was done on any server/);
        assert.match(outcome.stderr, /ssh-keygen -R/);
        tell(firstProblem(outcome.stderr));
      }
      assert.equal(await states(shop, SERVERS), before);
      await shop.assertServes("3", SERVERS);
      await lab.on("s1", ["sh", "-c", "mv /root/keys/* /etc/ssh/ && systemctl restart ssh"]);
      await edit(join(shop.folder, "web/www/up"), (text) => `${text}\n`);
      await shop.must("deploy", "--version", "v4");
      await shop.assertServes("4", SERVERS);
    },
  );
});
