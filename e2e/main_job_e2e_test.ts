import assert from "node:assert/strict";
import { eventually } from "./lab.ts";
import { chapter, secondsSince, Shop, spoken, STORY_ENGINE, tell } from "./shop.ts";

interface NetworkStatus {
  readonly servers: readonly {
    readonly name: string;
    readonly state: string;
    readonly block: string;
    readonly links: Readonly<Record<string, { readonly linked: boolean }>>;
  }[];
  readonly problems: Readonly<Record<string, string>>;
}

interface ServiceList {
  readonly services: readonly {
    readonly service: string;
    readonly server: string;
    readonly version: string;
    readonly state: string;
    readonly address: string;
  }[];
  readonly problems: Readonly<Record<string, string>>;
}

async function assertAllLinked(shop: Shop, servers: readonly string[]): Promise<NetworkStatus> {
  const status: NetworkStatus = JSON.parse(await shop.must("network", "status", "--json"));
  assert.deepEqual(status.problems, {});
  assert.deepEqual(status.servers.map((server) => server.name).sort(), [...servers].sort());
  for (const server of status.servers) {
    assert.equal(server.state, "member", server.name);
    const others = servers.filter((name) => name !== server.name).sort();
    assert.deepEqual(Object.keys(server.links).sort(), others);
    for (const [peer, link] of Object.entries(server.links)) {
      assert.ok(link.linked, `${server.name} → ${peer}`);
    }
  }
  assert.equal(new Set(status.servers.map((server) => server.block)).size, servers.length);
  return status;
}

/** What a change of a server would change: binaries, configuration, units, key. */
const STATE_SCRIPT = `cd / && find etc/jiji opt/jiji etc/wireguard etc/systemd/system -type f \
  -exec stat -c '%n %Y %i %a %U' {} + | sort; systemctl show -p MainPID,ActiveEnterTimestamp \
  wg-quick@jiji0 jiji-corrosion jiji-dns jiji-daemon docker`;

async function states(shop: Shop, servers: readonly string[]): Promise<string[]> {
  return await Promise.all(
    servers.map((server) => shop.lab.on(server, ["sh", "-c", STATE_SCRIPT])),
  );
}

Deno.test("main job: bare servers become a cluster, serve, stay as they are, and take in a fourth", async (t) => {
  const servers = ["s1", "s2", "s3"];
  const startedMs = performance.now();
  await using shop = await Shop.open({ name: "e2e-main", engine: "none" });
  const { lab } = shop;

  await chapter(t, "server init makes bare servers a cluster", async () => {
    assert.notEqual((await lab.tryOn("s1", ["sh", "-c", "command -v docker wg"])).code, 0);
    const atMs = performance.now();
    await shop.must("server", "init");
    tell(`server init of 3 bare servers: ${secondsSince(atMs)} s`);
    await assertAllLinked(shop, servers);
  });

  await chapter(t, "deploy, and every server's proxy serves a page made with the api", async () => {
    const atMs = performance.now();
    await shop.must("deploy", "--version", "v1");
    tell(`first deploy: ${secondsSince(atMs)} s`);
    await shop.assertServes("1", servers);
    tell(`from nothing to a page: ${secondsSince(startedMs)} s`);
  });

  await chapter(t, "a container on s1 resolves and calls the api on s2 by its name", async () => {
    const name = "shop-api.jiji";
    const looked = await lab.on("s1", [STORY_ENGINE, "exec", "shop-web", "nslookup", name]);
    const listed: ServiceList = JSON.parse(await shop.must("services", "list", "--json"));
    const api = listed.services.find((service) => service.service === "api");
    assert.ok(api && looked.includes(api.address), looked);
    assert.ok(!listed.services.some((row) => row.service === "api" && row.server === "s1"));
    const got = await lab.on("s1", [
      ...`${STORY_ENGINE} exec shop-web wget -q -O -`.split(" "),
      `http://${name}:8080/`,
    ]);
    assert.match(got, /three mugs/);
  });

  await chapter(t, "server init again changes nothing and says so", async () => {
    const before = await states(shop, servers);
    const said = await shop.must("server", "init");
    assert.match(said, /^✓ Nothing to do: 3 servers as configured/m);
    assert.deepEqual(await states(shop, servers), before);
    tell(said.trim());
  });

  await chapter(t, "deploy again changes nothing and says so", async () => {
    const before = await Promise.all(servers.map((server) => shop.containers(server)));
    const said = await shop.must("deploy", "--version", "v1");
    assert.match(said, /Nothing to do/);
    assert.deepEqual(await Promise.all(servers.map((server) => shop.containers(server))), before);
    tell(said.trim());
  });

  await chapter(t, "services list --json tells what runs where", async () => {
    const listed: ServiceList = JSON.parse(await shop.must("services", "list", "--json"));
    assert.deepEqual(listed.problems, {});
    assert.deepEqual(
      listed.services.map(({ service, server, version, state }) =>
        [service, server, version, state].join(" ")
      ),
      ["api s2 v1 running", "web s1 v1 running", "web s2 v1 running", "web s3 v1 running"],
    );
  });

  await chapter(t, "a fourth server joins while load goes on, and reaches everything", async () => {
    await lab.grow(4);
    await shop.configure((text) =>
      text.replace("  s3:\n", `  s4:\n    host: ${lab.address("s4")}\n  s3:\n`)
    );
    await shop.underLoad("a fourth server joins", servers, async () => {
      const atMs = performance.now();
      await shop.must("server", "init");
      tell(`server init with a new fourth: ${secondsSince(atMs)} s`);
    });
    const status = await assertAllLinked(shop, ["s1", "s2", "s3", "s4"]);
    const block = status.servers.find((server) => server.name === "s4")!.block;
    const dns = `--dns=${block.replace(/\.0\/24$/, ".1")}`;
    // Its container network reaches a container elsewhere, by name, before anything runs on it.
    const inside =
      `${STORY_ENGINE} run --rm --network jiji-net ${dns} busybox:1 timeout 5 wget -q -O -`
        .split(" ");
    const got = await eventually("a container on s4 calls the api on s2", async () => {
      const outcome = await lab.tryOn("s4", [...inside, "http://shop-api.jiji:8080/"]);
      return outcome.code === 0 ? outcome.stdout : undefined;
    }, { timeoutMs: 20_000 });
    assert.match(got, /three mugs/);
  });

  await chapter(t, "the service is extended to the fourth server", async () => {
    await shop.configure((text) => text.replace("hosts: [s1, s2, s3]", "hosts: [s1, s2, s3, s4]"));
    const outcome = await shop.underLoad("deploy to a fourth server", servers, async () => {
      return await shop.jiji("deploy", "--version", "v1");
    });
    assert.equal(outcome.code, 0, spoken(outcome));
    assert.match(outcome.stdout, /web on s4/);
    await shop.assertServes("1", ["s1", "s2", "s3", "s4"]);
  });
});
