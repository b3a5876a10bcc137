import assert from "node:assert/strict";
import { eventually } from "./lab.ts";
import { chapter, secondsSince, Shop, tell } from "./shop.ts";

const SERVERS = ["s1", "s2", "s3"] as const;

Deno.test("podman: bare servers, deploy, redeploys under load, power loss", async (t) => {
  await using shop = await Shop.open({
    name: "e2e-podman",
    engine: "none",
    configure: (text) => text.replace("engine: docker", "engine: podman"),
  });
  const { lab } = shop;

  await chapter(t, "server init installs podman, not docker", async () => {
    const atMs = performance.now();
    await shop.must("server", "init");
    tell(`server init of 3 bare servers: ${secondsSince(atMs)} s`);
    assert.match(await lab.on("s1", ["podman", "--version"]), /podman version/);
    assert.notEqual((await lab.tryOn("s1", ["sh", "-c", "command -v docker"])).code, 0);
    assert.match(await shop.must("server", "init"), /Nothing to do/);
  });

  await chapter(t, "deploy, and deploy again", async () => {
    await shop.must("deploy", "--version", "v1");
    await shop.assertServes("1", SERVERS);
    assert.match(await shop.must("deploy", "--version", "v1"), /Nothing to do/);
    const inside = "podman exec shop-web wget -q -O - http://shop-api.jiji:8080/".split(" ");
    assert.match(await lab.on("s1", inside), /three mugs/);
  });

  await chapter(t, "checks by command run with the container's own rights", async () => {
    await shop.configure((text) =>
      `${text}
  guard:
    image: busybox:1.35
    hosts: [s1]
    privileged: true
    command: [httpd, -f, -p, "8080"]
    healthcheck:
      cmd: grep -q 'NoNewPrivs:.0' /proc/self/status
`
    );
    await shop.must("deploy", "--version", "v1", "-S", "guard");
    await eventually("the daemon finds the guard healthy", async () => {
      const status = await lab.on("s1", ["/opt/jiji/bin/jiji-daemon", "status"]);
      return /container shop-guard on s1: .*, healthy/.test(status) ? true : undefined;
    }, { timeoutMs: 20_000 });
  });

  await chapter(t, "redeploys under load through all three proxies", async () => {
    await shop.underLoad("3 redeploys", SERVERS, async () => {
      for (const version of ["2", "3", "4"]) {
        await shop.setVersion(version);
        await shop.must("deploy", "--version", `v${version}`);
      }
    });
    await shop.assertServes("4", SERVERS);
    for (const server of SERVERS) {
      const left = await shop.containers(server, "podman");
      assert.ok(!left.some((name) => name.includes("_old_")), left.join(" "));
    }
  });

  await chapter(t, "power loss of s2, and its return without a command", async () => {
    await lab.kill("s2");
    const atMs = performance.now();
    await lab.boot("s2");
    for (const server of ["s2", "s1", "s3"]) await shop.servesAgain(server, 90_000);
    tell(`everything served again ${secondsSince(atMs)} s after power on of s2`);
    await shop.assertServes("4", SERVERS);
    assert.match(await shop.must("server", "init"), /Nothing to do/);
    assert.match(await shop.must("deploy", "--version", "v4"), /Nothing to do/);
  });
});
