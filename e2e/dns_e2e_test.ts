import assert from "node:assert/strict";
import { LIBRARIES, makeResolvers, Resolvers, resolverServices } from "./dns_story.ts";
import { strangerStatement, writeRows } from "./dns_story.ts";
import { CHECKOUT, eventually } from "./lab.ts";
import { chapter, Shop, tell } from "./shop.ts";

/** Where the name server of a company stands: the laptop; and an address where nothing answers. */
const COMPANY = "203.0.113.1";
const NOBODY = "203.0.113.99";
/** Stops Corrosion so that its daemon's attempts to start it change nothing; and undoes that. */
const DROP_IN = "/run/systemd/system/jiji-corrosion.service.d";
const AWAY = `mkdir -p ${DROP_IN}; printf '[Unit]\\nConditionPathExists=/nowhere\\n' ` +
  `> ${DROP_IN}/away.conf; systemctl daemon-reload; systemctl stop jiji-corrosion`;
const BACK = `rm -r ${DROP_IN}; systemctl daemon-reload; systemctl start jiji-corrosion`;
/** Instances of a service whose addresses do not fit into an answer without EDNS. */
const MANY = 40;

async function openShop(name: string, engine: "docker" | "podman"): Promise<Shop> {
  const shop = await Shop.open({
    name,
    engine,
    servers: 2,
    configure: (text) =>
      text.replace("engine: docker", `engine: ${engine}`)
        .replace("  s3:\n    host: 203.0.113.13\n", "")
        .replace("[s1, s2, s3]", "[s2]").replace("[s2]", "[s1, s2]") +
      resolverServices() +
      `\nnetwork:\n  dns:\n    forward:\n      corp.example: [${NOBODY}, ${COMPANY}]\n`,
  });
  await makeResolvers(shop.folder);
  await shop.must("server", "init");
  await shop.must("deploy", "--version", "v1");
  return shop;
}

/** Restarts and kills jiji-dns of s1 while containers resolve without a pause. */
async function assertNoneLost(shop: Shop, resolvers: Resolvers): Promise<void> {
  const asking = [
    { what: "glibc", asked: resolvers.askFor("glibc", "shop-api.jiji", 12) },
    { what: "musl", asked: resolvers.askFor("musl", "api", 12) },
  ];
  for (const command of ["restart", "kill --signal=KILL", "restart"]) {
    await shop.lab.on("s1", ["systemctl", ...command.split(" "), "jiji-dns"]);
    await eventually("jiji-dns answers again", async () => {
      const argv = ["/opt/jiji/bin/jiji-dns", "query", "shop-api.jiji"];
      return (await shop.lab.tryOn("s1", argv)).code === 0 ? true : undefined;
    }, { timeoutMs: 20_000 });
  }
  for (const { what, asked } of asking) {
    const { asked: count, failed, slowestMs } = await asked;
    tell(
      `${what}: ${count} names over 2 restarts and a kill -9, ${failed} failed, slowest ${slowestMs} ms`,
    );
    assert.ok(count > 100);
    assert.equal(failed, 0);
  }
}

Deno.test("dns: resolvers of glibc and musl, restarts, Corrosion away, forwarding", async (t) => {
  await using shop = await openShop("e2e-dns", "docker");
  const { lab } = shop;
  const resolvers = new Resolvers(shop, "docker");
  const [first, second] = await resolvers.addresses("glibc", "shop-api.jiji");
  assert.ok(first && second);

  await chapter(t, "every form of a name, in both C libraries", async () => {
    const both = ["shop-api.jiji", "shop-api", "api", "api.shop.jiji", "SHOP-Api.jiji"];
    for (const library of LIBRARIES) {
      for (const found of await resolvers.resolve(library, ...both)) {
        assert.deepEqual(found.addresses, [first, second], `${library} ${found.name}`);
      }
      for (const name of ["nearest.shop-api.jiji", "shop-api-s1.jiji"]) {
        assert.deepEqual(await resolvers.addresses(library, name), [first], `${library} ${name}`);
      }
      const missing = await resolvers.resolve(library, "nope.jiji", "shop.jiji");
      for (const { name, error } of missing) assert.ok(error, `${library} ${name} resolves`);
    }
  });

  await chapter(t, "underscores, and answers cut for UDP", async () => {
    const many = Array.from({ length: MANY }, (_, index) => ({
      index: index + 2,
      project: "shop",
      service: "many",
    }));
    const rows = [...many, { index: 200, project: "my_shop", service: "a_b" }];
    await writeRows(shop, "s1", rows.map(strangerStatement));
    await eventually("the rows are names", async () => {
      const [found] = await resolvers.resolve("glibc", "my_shop-a_b.jiji");
      return found?.addresses.length === 1 ? true : undefined;
    }, { timeoutMs: 10_000 });
    assert.equal((await resolvers.addresses("musl", "a_b.my_shop.jiji")).length, 1);
    // glibc asks again over TCP; musl before 1.2.4 takes what fits into 512 octets.
    assert.equal((await resolvers.addresses("glibc", "many")).length, MANY);
    const fitting = (await resolvers.addresses("musl", "many")).length;
    assert.ok(fitting === MANY || fitting >= 28, `musl finds ${fitting}`);
  });

  await chapter(t, "restarts and a kill lose no name, also over TCP", async () => {
    const tcp = resolvers.askFor("glibc", "many", 10);
    await assertNoneLost(shop, resolvers);
    const { asked, failed, slowestMs } = await tcp;
    tell(`over TCP: ${asked} names, ${failed} failed, slowest ${slowestMs} ms`);
    assert.ok(failed <= 1, "only what was under way when it was killed");
  });

  await chapter(t, "without Corrosion the last answers stay, over a restart too", async () => {
    await lab.on("s1", ["sh", "-c", AWAY]);
    assert.notEqual((await lab.tryOn("s1", ["systemctl", "is-active", "jiji-corrosion"])).code, 0);
    await lab.on("s2", ["docker", "rm", "-f", "shop-api"]);
    await eventually("s2 answers without its api", async () => {
      const text = await lab.on("s2", ["/opt/jiji/bin/jiji-dns", "query", "shop-api.jiji"]);
      return text.includes(` A ${second}`) ? undefined : true;
    }, { timeoutMs: 20_000 });
    await eventually("s1 heard of it from s2's daemon", async () => {
      return (await resolvers.addresses("musl", "api")).length === 1 ? true : undefined;
    }, { timeoutMs: 5_000 });
    await eventually("the snapshot has it", async () => {
      const text = await lab.on("s1", ["cat", "/var/lib/jiji/dns/snapshot.jsonl"]);
      return text.includes(second!) ? undefined : true;
    }, { timeoutMs: 10_000 });
    await lab.on("s1", ["systemctl", "restart", "jiji-dns"]);
    assert.deepEqual(await resolvers.addresses("glibc", "api"), [first]);
    await lab.on("s1", ["sh", "-c", BACK]);
    const atMs = performance.now();
    await eventually("Corrosion has caught up", async () => {
      const rows = await lab.on("s1", ["/opt/jiji/bin/jiji-daemon", "status", "--json"]);
      return rows.includes(second!) ? undefined : true;
    }, { timeoutMs: 40_000 });
    tell(
      `Corrosion had caught up ${
        ((performance.now() - atMs) / 1000).toFixed(1)
      } s after it came back`,
    );
    // Subscriptions tell of a change up to 0.6 s after a question would find it.
    await eventually("jiji-dns has caught up", async () => {
      const found = await resolvers.addresses("glibc", "api");
      return found.join() === first ? true : undefined;
    }, { timeoutMs: 5_000 });
  });

  await chapter(
    t,
    "names of a company's server: failover, TCP, new resolvers of the host",
    async () => {
      const script = `${CHECKOUT}/e2e/resolver/name_server.ts`;
      const config = ["--config", `${CHECKOUT}/deno.json`];
      const argv = [Deno.execPath(), "run", ...config, "--allow-net", script, COMPANY, "192.0.2.7"];
      const server = lab.spawn(argv);
      try {
        await eventually("a name of the company", async () => {
          const [found] = await resolvers.resolve("glibc", "db.corp.example");
          return found?.addresses.join() === "192.0.2.7" ? true : undefined;
        }, { timeoutMs: 30_000 });
        const atMs = performance.now();
        assert.deepEqual(await resolvers.addresses("musl", "other.corp.example"), ["192.0.2.7"]);
        const tookMs = performance.now() - atMs;
        assert.ok(tookMs < 2_000, `the silent server is still asked first: ${tookMs} ms`);
        assert.equal((await resolvers.addresses("glibc", "big.corp.example")).length, 60);
        assert.ok((await resolvers.resolve("glibc", "a.host.example"))[0]?.error);
        const rewrite = `echo "nameserver ${COMPANY}" > /etc/resolv.conf`;
        await lab.on("s1", ["sh", "-c", rewrite]);
        await eventually("the host's new resolver is asked", async () => {
          const [found] = await resolvers.resolve("glibc", "a.host.example");
          return found?.addresses.join() === "192.0.2.7" ? true : undefined;
        }, { timeoutMs: 10_000 });
      } finally {
        server.kill("SIGTERM");
        await server.output();
      }
    },
  );
});

Deno.test("dns: restarts and a kill lose no name under podman", async () => {
  await using shop = await openShop("e2e-dns-podman", "podman");
  const resolvers = new Resolvers(shop, "podman");
  assert.equal((await resolvers.addresses("glibc", "shop-api.jiji")).length, 2);
  await assertNoneLost(shop, resolvers);
});
