import assert from "node:assert/strict";
import { chapter, secondsSince, Shop, spoken, STORY_ENGINE, tell } from "./shop.ts";

const SERVERS = ["s1", "s2", "s3"] as const;
const REDEPLOYS = 12;

/** Never answers on its port. */
const BROKEN = "#!/bin/sh\necho 'cannot open the database'\nexec sleep 600\n";
/** Answers everywhere but on the server with this address on the containers' network. */
function brokenBehind(gateway: string, good: string): string {
  const check = `ip route | grep -q "via ${gateway} "`;
  return good.replace(
    "httpd -f",
    `${check} && { echo 'no licence here'; exec sleep 600; }\nhttpd -f`,
  );
}

async function ids(shop: Shop): Promise<string[]> {
  return await Promise.all(
    SERVERS.map((server) =>
      shop.lab.on(server, [STORY_ENGINE, "inspect", "--format", "{{.Id}}", "shop-web"])
    ),
  );
}

Deno.test("redeploy: a dozen versions under load, and no version that is not healthy", async (t) => {
  await using shop = await Shop.serving({
    name: "e2e-redeploy",
    configure: (text) => `${text}\ndeploy:\n  health_timeout: 5s\n`,
  });

  await chapter(t, `${REDEPLOYS} redeploys under load through all three proxies`, async () => {
    const startedMs = performance.now();
    await shop.underLoad(`${REDEPLOYS} redeploys`, SERVERS, async () => {
      for (let version = 2; version < 2 + REDEPLOYS; version++) {
        await shop.setVersion(String(version));
        await shop.must("deploy", "--version", `v${version}`);
      }
    });
    tell(`${REDEPLOYS} redeploys on three servers in ${secondsSince(startedMs)} s`);
    await shop.assertServes(String(1 + REDEPLOYS), SERVERS);
    for (const server of SERVERS) {
      const expected = ["kamal-proxy", ...(server === "s2" ? ["shop-api"] : []), "shop-web"];
      assert.deepEqual(await shop.containers(server), expected);
    }
  });

  await chapter(t, "a broken version is refused; the old one serves on", async () => {
    const before = await ids(shop);
    await shop.setVersion("broken");
    const good = await shop.setScript(BROKEN);
    const outcome = await shop.underLoad("a broken version", SERVERS, async () => {
      return await shop.jiji("deploy", "--version", "broken");
    });
    await shop.setScript(good);
    assert.equal(outcome.code, 7, spoken(outcome));
    assert.match(outcome.stderr, /shop-web on s1.* did not get healthy in 5 s/);
    assert.match(outcome.stderr, /cannot open the database/);
    assert.match(outcome.stderr, new RegExp(`web v${1 + REDEPLOYS} on s1 s2 s3`));
    assert.deepEqual(await ids(shop), before);
    await shop.assertServes(String(1 + REDEPLOYS), SERVERS);
  });

  await chapter(t, "healthy on two servers of three: those two are put back", async () => {
    const before = await ids(shop);
    await shop.setVersion("half");
    const config = JSON.parse(await shop.lab.on("s3", ["cat", "/etc/jiji/server.json"]));
    const good = await shop.setScript("");
    await shop.setScript(brokenBehind(config.block.replace(/0\/24$/, "1"), good));
    const outcome = await shop.underLoad("healthy on two of three", SERVERS, async () => {
      return await shop.jiji("deploy", "--version", "half");
    });
    await shop.setScript(good);
    assert.equal(outcome.code, 7, spoken(outcome));
    assert.match(outcome.stderr, /shop-web on s3 did not get healthy/);
    assert.match(
      outcome.stderr,
      new RegExp(`web v${1 + REDEPLOYS} on s1 \\(put back\\) s2 \\(put back\\) s3`),
    );
    assert.deepEqual(await ids(shop), before);
    await shop.assertServes(String(1 + REDEPLOYS), SERVERS);
    for (const server of SERVERS) {
      const left = await shop.containers(server);
      assert.ok(!left.some((name) => name.includes("_old_")), left.join(" "));
    }
  });

  await chapter(t, "the mended version goes through", async () => {
    await shop.setVersion("mended");
    await shop.underLoad("the mended version", SERVERS, async () => {
      await shop.must("deploy", "--version", "mended");
    });
    await shop.assertServes("mended", SERVERS);
  });

  await chapter(
    t,
    "rollback goes to the last good release, with its environment; and back",
    async () => {
      await shop.configure((text) =>
        text.replace("API_URL: http://shop-api.jiji:8080/", "API_URL: http://nobody.jiji:8080/")
      );
      await shop.must("deploy", "-S", "web", "--version", "mended", "--force");
      assert.doesNotMatch(await shop.page("s1"), /three mugs/, "the new environment is wrong");
      const list = await shop.must("services", "rollback", "-S", "web", "--list");
      assert.match(list, /web +mended/);
      const startedMs = performance.now();
      await shop.underLoad("rollback", SERVERS, async () => {
        await shop.must("services", "rollback", "-S", "web", "--to", `v${1 + REDEPLOYS}`);
      });
      tell(`rollback of three servers in ${secondsSince(startedMs)} s`);
      await shop.assertServes(String(1 + REDEPLOYS), SERVERS);
      await shop.underLoad("rollback of the rollback", SERVERS, async () => {
        await shop.must("services", "rollback", "-S", "web");
      });
      assert.match(await shop.page("s2"), /web version mended on /);
    },
  );

  await chapter(t, "a version that was never deployed is refused with what there is", async () => {
    const outcome = await shop.jiji("services", "rollback", "-S", "web", "--to", "v99");
    assert.equal(outcome.code, 1, spoken(outcome));
    assert.match(outcome.stderr, /no release v99 to go back to/);
    assert.match(outcome.stderr, /kept are: .*mended/);
  });
});
