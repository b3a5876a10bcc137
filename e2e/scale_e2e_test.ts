import assert from "node:assert/strict";
import { eventually } from "./lab.ts";
import { chapter, Shop, spoken, STORY_ENGINE, tell } from "./shop.ts";

const SERVERS = ["s1", "s2", "s3"] as const;
const BROKEN = "#!/bin/sh\necho 'cannot open the database'\nexec sleep 600\n";

/** Names of web's containers on a server, sorted. */
async function webs(shop: Shop, server: string): Promise<string[]> {
  return (await shop.containers(server)).filter((name) => name.startsWith("shop-web"));
}

/** Addresses that a server's jiji-dns answers for web. */
async function answers(shop: Shop, server: string): Promise<string[]> {
  const text = await shop.lab.on(server, ["/opt/jiji/bin/jiji-dns", "query", "shop-web.jiji"]);
  return [...text.matchAll(/^shop-web\.jiji\. \d+ A (\S+)$/gm)].map((match) => match[1]!).sort();
}

Deno.test("scale: instances come and go, canaries and release commands, under load", async (t) => {
  await using shop = await Shop.serving({
    name: "e2e-scale",
    configure: (text) => `${text}\ndeploy:\n  health_timeout: 5s\n  canary_wait: 1s\n`,
  });

  await chapter(
    t,
    "one instance a server becomes three, then two, and no request fails",
    async () => {
      await shop.underLoad("scale to 3", SERVERS, () => shop.must("services", "scale", "web=3"));
      for (const server of SERVERS) {
        assert.deepEqual(await webs(shop, server), ["shop-web", "shop-web-2", "shop-web-3"]);
      }
      assert.equal((await answers(shop, "s2")).length, 9);
      await shop.underLoad("scale to 2", SERVERS, () => shop.must("services", "scale", "web=2"));
      for (const server of SERVERS) {
        assert.deepEqual(await webs(shop, server), ["shop-web", "shop-web-2"]);
      }
      assert.equal((await answers(shop, "s2")).length, 6);
      const names = await shop.lab.on("s1", [
        "/opt/jiji/bin/jiji-dns",
        "query",
        "shop-web-s1-2.jiji",
      ]);
      assert.match(names, /NOERROR/);
    },
  );

  await chapter(t, "a restart keeps the number, and replaces every instance", async () => {
    await shop.underLoad("restart of 6 instances", SERVERS, async () => {
      await shop.must("services", "restart", "-S", "web");
    });
    assert.deepEqual(await webs(shop, "s3"), ["shop-web", "shop-web-2"]);
  });

  await chapter(t, "a server loses power: both instances are back behind its proxy", async () => {
    await shop.lab.kill("s3");
    await shop.lab.boot("s3");
    tell(`s3 serves again after ${await shop.servesAgain("s3", 90_000)} s`);
    await eventually("both instances take requests on s3", async () => {
      const state = await shop.lab.on("s3", [
        "sh",
        "-c",
        `cat "$(${STORY_ENGINE} volume inspect -f {{.Mountpoint}} jiji-kamal-proxy)/kamal-proxy.state"`,
      ]);
      const [route] = JSON.parse(state);
      return route.active_targets.length === 2 ? true : undefined;
    }, { timeoutMs: 40_000 });
  });

  await chapter(
    t,
    "the configuration says three: deploy scales, with a release command",
    async () => {
      await shop.configure((text) =>
        text.replace(
          'ports: ["3000"]',
          'ports: ["3000"]\n    scale: 3\n    release_command: "sh -c \'echo migrated from `hostname`\'"',
        ).replace("canary_wait", "canary: s2\n  canary_wait")
      );
      await shop.setVersion("2");
      const outcome = await shop.underLoad("version 2 with three instances", SERVERS, async () => {
        return await shop.jiji("deploy", "--version", "v2");
      });
      assert.equal(outcome.code, 0, spoken(outcome));
      assert.match(outcome.stderr, /s2 web +migrated from /, "the canary runs the release command");
      assert.equal(outcome.stderr.match(/migrated from/g)?.length, 1, "once");
      assert.match(outcome.stderr, /scale 2 → 3/);
      await shop.assertServes("2", SERVERS);
      for (const server of SERVERS) assert.equal((await webs(shop, server)).length, 3);
    },
  );

  await chapter(
    t,
    "a canary that does not get healthy stops the deploy; the others never change",
    async () => {
      const before = await shop.lab.on("s1", [
        STORY_ENGINE,
        "inspect",
        "-f",
        "{{.Id}}",
        "shop-web",
      ]);
      await shop.setVersion("broken");
      const good = await shop.setScript(BROKEN);
      const outcome = await shop.underLoad("a broken canary", SERVERS, async () => {
        return await shop.jiji("deploy", "--version", "broken");
      });
      await shop.setScript(good);
      assert.equal(outcome.code, 7, spoken(outcome));
      assert.match(outcome.stderr, /shop-web on s2/);
      const after = await shop.lab.on("s1", [STORY_ENGINE, "inspect", "-f", "{{.Id}}", "shop-web"]);
      assert.equal(after, before);
      await shop.assertServes("2", SERVERS);
    },
  );

  await chapter(
    t,
    "a release command that fails stops the deploy before anything is replaced",
    async () => {
      await shop.setVersion("3");
      await shop.configure((text) =>
        text.replace("echo migrated from `hostname`", "echo no table; exit 4")
      );
      const outcome = await shop.underLoad("a failed release command", SERVERS, async () => {
        return await shop.jiji("deploy", "--version", "v3");
      });
      assert.notEqual(outcome.code, 0);
      assert.match(outcome.stderr, /release command of shop-web ended with code 4 on s2/);
      assert.match(outcome.stderr, /no table/);
      await shop.assertServes("2", SERVERS);
    },
  );

  await chapter(t, "a server that is no longer among the hosts loses the service", async () => {
    await shop.configure((text) =>
      text.replace("hosts: [s1, s2, s3]", "hosts: [s1, s2]").replace("exit 4", "exit 0")
        .replace("scale: 3", "scale: 1")
    );
    await shop.underLoad("web leaves s3", ["s1", "s2"], async () => {
      await shop.must("deploy", "--version", "v3");
    });
    assert.deepEqual(await webs(shop, "s3"), []);
    assert.deepEqual(await webs(shop, "s1"), ["shop-web"]);
    assert.equal((await answers(shop, "s3")).length, 2);
    await shop.assertServes("3", ["s1", "s2"]);
    const again = await shop.jiji("deploy", "--version", "v3");
    assert.match(spoken(again), /Nothing to do/);
  });
});
