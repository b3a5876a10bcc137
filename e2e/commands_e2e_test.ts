import assert from "node:assert/strict";
import { join } from "node:path";
import { eventually } from "./lab.ts";
import { chapter, secondsSince, Shop, spoken, tell } from "./shop.ts";

const SERVERS = ["s1", "s2"] as const;

/** An answer that takes five seconds. */
const SLOW = "#!/bin/sh\nsleep 5\nprintf 'Content-Type: text/plain\\r\\n\\r\\nok slow\\n'\n";

/** Asks for slow answers on and on, each by a new connection; gives what came back. */
function startSlow(shop: Shop, server: string) {
  const url = `http://${shop.lab.address(server)}/cgi-bin/slow`;
  const ask = ["curl", "-s", "-o", "/dev/null", "-m", "14", "-w", "%{http_code}", url];
  const stop = new AbortController();
  const worker = async () => {
    const codes: string[] = [];
    while (!stop.signal.aborted) codes.push((await shop.lab.tryRun(ask)).stdout.trim());
    return codes;
  };
  const workers = Promise.all(Array.from({ length: 4 }, worker));
  return async () => {
    stop.abort();
    return (await workers).flat();
  };
}

interface AuditEntry {
  readonly action: string;
  readonly status: string;
  readonly host: string;
  readonly message: string;
}

async function auditOf(shop: Shop, ...filter: readonly string[]): Promise<AuditEntry[]> {
  return JSON.parse(await shop.must("audit", "--json", "-n", "100", ...filter)).entries;
}

Deno.test("commands: instances, proxy reboot, prune, locks, teardown", async (t) => {
  await using shop = await Shop.open({
    name: "e2e-commands",
    servers: 2,
    configure: (text) =>
      text.replace(/ {2}s3:\n.*\n/, "").replaceAll("[s1, s2, s3]", "[s1, s2]")
        .replace('    ports: ["3000"]', '    scale: 2\n    ports: ["3000"]'),
  });
  const { lab } = shop;
  await Deno.writeTextFile(join(shop.folder, "web/www/cgi-bin/slow"), SLOW, { mode: 0o755 });
  await shop.must("server", "init");
  await shop.must("deploy", "--version", "v1");

  await chapter(t, "instances are listed and chosen by name", async () => {
    const listed = JSON.parse(await shop.must("services", "list", "--json", "-S", "web"));
    const names = listed.services.map(({ instance }: { instance: string }) => instance);
    assert.deepEqual(names, ["s1", "s1-2", "s2", "s2-2"]);
    const several = await shop.jiji("services", "exec", "-S", "web", "-H", "s1", "hostname");
    assert.equal(several.code, 2, spoken(several));
    assert.match(several.stderr, /shop-web on s1, shop-web-2 on s1[^]*--instance/);
    const choose = ["services", "exec", "-S", "web", "--instance", "s1-2"];
    assert.match(await shop.must(...choose, "cat", "/www/version"), /1/);
    const wrong = await shop.jiji(...choose, "sh", "-c", "exit 7");
    assert.equal(wrong.code, 7, spoken(wrong));
    await shop.must(...choose, "sh", "-c", "echo hello from the second >/proc/1/fd/1");
    const logs = await shop.must("services", "logs", "-S", "web", "-n", "5", "--json");
    assert.match(logs, /"source":"s1 shop-web-2","text":"hello from the second"/);
  });

  await chapter(t, "proxy reboot under load, with answers that take five seconds", async () => {
    const before = await lab.on("s1", ["docker", "inspect", "-f", "{{.Id}}", "kamal-proxy"]);
    const slow = startSlow(shop, "s1");
    await eventually("a slow request is under way", async () => {
      const seen = await lab.on("s1", ["sh", "-c", "ps ax | grep -c '[s]leep 5'; :"]);
      return Number(seen) > 0 ? true : undefined;
    }, { timeoutMs: 10_000 });
    const atMs = performance.now();
    await shop.underLoad("proxy reboot", SERVERS, async () => {
      await shop.must("proxy", "reboot", "-H", "s1");
      tell(`proxy reboot of s1: ${secondsSince(atMs)} s`);
    });
    const codes = await slow();
    assert.deepEqual([...new Set(codes)], ["200"], codes.join(" "));
    tell(`${codes.length} answers of five seconds, none cut`);
    const after = await lab.on("s1", ["docker", "inspect", "-f", "{{.Id}}", "kamal-proxy"]);
    assert.notEqual(after, before);
    assert.deepEqual(await shop.containers("s1"), ["kamal-proxy", "shop-web", "shop-web-2"]);
    const rules = await lab.on("s1", ["sh", "-c", "iptables-save | grep -c standin; :"]);
    assert.equal(rules.trim(), "0");
  });

  await chapter(t, "a killed CLI leaves a reboot that finishes by itself", async () => {
    await shop.underLoad("killed proxy reboot", ["s2"], async () => {
      const child = lab.spawn(["timeout", "-s", "KILL", "3", ...shop.argv("proxy", "reboot")], {
        cwd: shop.folder,
      });
      await Promise.all([child.stdout.cancel(), child.stderr.cancel(), child.status]);
      await eventually("no reboot is under way", async () => {
        const unit = ["systemctl", "is-active", "--quiet", "jiji-proxy-reboot"];
        return (await lab.tryOn("s1", unit)).code === 0 ? undefined : true;
      }, { timeoutMs: 60_000 });
    });
    for (const server of SERVERS) {
      assert.ok(!(await shop.containers(server)).some((name) => /standin|previous/.test(name)));
    }
  });

  await chapter(t, "a lock taken by hand keeps a deploy away until it is released", async () => {
    await shop.must("lock", "acquire", "--reason", "moving disks", "--for", "10m");
    const deploy = await shop.jiji("deploy", "--version", "v2");
    assert.equal(deploy.code, 5, spoken(deploy));
    assert.match(deploy.stderr, /moving disks[^]*until 20\d\d[^]*jiji lock release/);
    const { locks } = JSON.parse(await shop.must("lock", "status", "--json"));
    const byHand = locks.filter(({ untilMs }: { untilMs?: number }) => untilMs !== undefined);
    assert.deepEqual(byHand.map(({ server }: { server: string }) => server), [...SERVERS]);
    await shop.must("lock", "release", "--yes");
  });

  await chapter(t, "prune keeps what each service retains, and what runs", async () => {
    await shop.setVersion("2");
    await shop.must("deploy", "--version", "v2");
    const plan = JSON.parse(await shop.must("services", "prune", "-r", "1", "--plan", "--json"));
    const references = plan.remove.map(({ reference }: { reference: string }) => reference);
    assert.ok(references.includes("localhost:31270/shop-web:v1"), references.join());
    assert.ok(!references.some((name: string) => name.endsWith("shop-web:v2")));
    await shop.must("services", "prune", "-r", "1");
    const images = await lab.on("s1", ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert.deepEqual(images.split("\n").filter((name) => name.includes("shop-web")), [
      "localhost:31270/shop-web:v2",
    ]);
    assert.match(await shop.must("services", "prune", "-r", "1"), /Nothing to do/);
  });

  await chapter(t, "every changing command is in the audit log, and it is filtered", async () => {
    await shop.must("server", "exec", "-H", "s1", "true");
    const entries = await auditOf(shop);
    for (
      const action of [
        ...["server init", "deploy", "services exec", "proxy reboot", "lock acquire"],
        ...["lock release", "services prune", "server exec"],
      ]
    ) {
      assert.ok(entries.some((entry) => entry.action === action), action);
    }
    const failed = await auditOf(shop, "--action", "services exec", "--status", "failed");
    assert.deepEqual(failed.map(({ message }) => message), ["shop-web-2: sh"]);
    assert.deepEqual(await auditOf(shop, "--until", "1d"), []);
    assert.equal((await shop.jiji("audit", "--since", "yesterday")).code, 2);
  });

  await chapter(t, "teardown asks, leaves a cluster without s2, and s2 can come back", async () => {
    const unasked = await shop.jiji("server", "teardown");
    assert.equal(unasked.code, 2, spoken(unasked));
    assert.match(unasked.stderr, /--yes/);
    const plan = await shop.must("server", "teardown", "--all", "--plan", "-H", "s2");
    assert.match(plan, /remove shop-api, shop-web, shop-web-2[^]*leave the cluster/);
    await shop.underLoad("teardown of s2", ["s1"], async () => {
      await shop.must("server", "teardown", "--all", "--yes", "-H", "s2");
    });
    const left = "ls -d /etc/jiji /opt/jiji /var/lib/jiji /run/jiji 2>/dev/null; " +
      "docker ps -aq; docker volume ls -q; ip -br link | grep jiji; id -u jiji 2>/dev/null; :";
    assert.equal((await lab.on("s2", ["sh", "-c", left])).trim(), "");
    const members = await lab.on("s1", ["/opt/jiji/bin/jiji-daemon", "servers", "list"]);
    assert.match(members, /^s2 .*\(removed\)$/m);
    await shop.must("server", "init");
    await shop.must("deploy", "--version", "v2");
    await shop.assertServes("2", SERVERS);
  });

  await chapter(t, "services remove drains, and forgets releases with their secrets", async () => {
    await shop.must("services", "remove", "-S", "web", "--yes");
    assert.deepEqual(await shop.containers("s2"), ["kamal-proxy", "shop-api"]);
    const releases = "ls /var/lib/jiji/projects/shop/releases";
    assert.equal((await lab.on("s2", ["sh", "-c", releases])).trim(), "api");
  });
});
