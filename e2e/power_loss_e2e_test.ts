import assert from "node:assert/strict";
import { addresses, allIsWell, sees, SERVERS } from "./healing.ts";
import { eventually } from "./lab.ts";
import { chapter, secondsSince, Shop, STORY_ENGINE, tell } from "./shop.ts";

async function api(shop: Shop, server: string): Promise<boolean> {
  const inside = `${STORY_ENGINE} exec shop-web timeout 3 wget -q -O - http://shop-api.jiji:8080/`
    .split(
      " ",
    );
  return (await shop.lab.tryOn(server, inside)).stdout.includes("three mugs");
}

Deno.test("power loss: others leave a dead server out, and it comes back by itself", async (t) => {
  await using shop = await Shop.serving({
    name: "e2e-power",
    configure: (text) => text.replace("user: root", "user: root\n  connect_timeout: 4"),
  });
  const { lab } = shop;
  const all = await addresses(shop, "s1");
  assert.equal(all.length, 3);

  await chapter(t, "within seconds the others' DNS leaves out what was on it", async () => {
    const gone = all.filter((address) => address.startsWith("10.210.1."));
    assert.equal(gone.length, 1, all.join(" "));
    await lab.kill("s2");
    const atMs = performance.now();
    for (const server of ["s1", "s3"]) {
      await eventually(`${server} leaves out ${gone}`, async () => {
        const now = await addresses(shop, server);
        return now.length === 2 && !now.includes(gone[0]!) ? true : undefined;
      }, { timeoutMs: 10_000 });
    }
    tell(`both others left out s2's instance ${secondsSince(atMs)} s after its power loss`);
    assert.match(await shop.page("s1", "/up"), /ok/);
    assert.match(await shop.page("s3", "/up"), /ok/);
  });

  await chapter(t, "status tells it, with the other servers' word", async () => {
    const outcome = await shop.jiji("network", "status", "--json");
    assert.equal(outcome.code, 0, outcome.stderr);
    const { servers } = JSON.parse(outcome.stdout);
    const found = servers.find((server: { name: string }) => server.name === "s2");
    assert.equal(found.state, "unreachable");
  });

  await chapter(t, "after its return, without a command, all is as before", async () => {
    const atMs = performance.now();
    await lab.boot("s2");
    tell(`s2 booted in ${secondsSince(atMs)} s`);
    await eventually("the api answers s1 over the mesh", async () => {
      return await api(shop, "s1") ? true : undefined;
    }, { timeoutMs: 60_000 });
    tell(`the api on s2 answered a container on s1 ${secondsSince(atMs)} s after power on`);
    await shop.servesAgain("s2", 60_000);
    tell(`s2's own services were behind its proxy ${secondsSince(atMs)} s after power on`);
    for (const server of SERVERS) {
      await eventually(`${server} knows all three instances`, async () => {
        const now = await addresses(shop, server);
        return now.join() === all.join() ? true : undefined;
      }, { timeoutMs: 30_000 });
    }
    tell(`all three resolvers named all three instances after ${secondsSince(atMs)} s`);
    await shop.assertServes("1", SERVERS);
  });

  await chapter(t, "all three at once", async () => {
    await lab.kill(...SERVERS);
    const atMs = performance.now();
    await lab.boot(...SERVERS);
    tell(`all three booted in ${secondsSince(atMs)} s`);
    for (const server of SERVERS) await shop.servesAgain(server, 90_000);
    tell(`everything served again ${secondsSince(atMs)} s after power on`);
    for (const server of SERVERS) {
      await eventually(`${server} knows all three instances`, async () => {
        const now = await addresses(shop, server);
        return now.join() === all.join() ? true : undefined;
      }, { timeoutMs: 30_000 });
    }
  });

  await chapter(t, "one is shut down in order: it says so, and is left at once", async () => {
    const others = ["s1", "s2"] as const;
    await lab.on("s3", ["systemctl", "poweroff"]);
    const left = { by: others, instances: others, withinS: 4, sinceMs: performance.now() };
    await sees(shop, { ...left, what: "the others left s3" });
    for (const server of others) {
      const journal = ["journalctl", "-u", "jiji-daemon", "--since", "-1min", "-o", "cat"];
      assert.match(await lab.on(server, journal), /"server shuts down".*"s3"/);
    }
    await lab.kill("s3");
    await lab.boot("s3");
    await allIsWell(shop, { sinceMs: performance.now(), withinS: 90, what: "s3 is back" });
  });

  await chapter(t, "nothing had to be done, and nothing is to be done", async () => {
    assert.match(await shop.must("deploy", "--version", "v1"), /Nothing to do/);
    assert.match(await shop.must("server", "init"), /Nothing to do/);
  });
});
