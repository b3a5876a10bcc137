/** The cluster's state and members, told as stories: hostile rows, lost databases, servers that leave. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { eventually } from "./lab.ts";
import { chapter, secondsSince, Shop, spoken, STORY_ENGINE, tell } from "./shop.ts";

/** Corrosion's API on a server; argument: the statements. */
const CORROSION_SCRIPT = `T=$(cat /etc/jiji/corrosion.token)
curl -sS -m 20 -H "authorization: Bearer $T" -H 'content-type: application/json' \\
  --data-binary "$1" http://127.0.0.1:31220/v1/transactions`;

type Sql = readonly [sql: string, params: readonly (string | number)[]];

async function write(shop: Shop, server: string, statements: readonly Sql[]): Promise<void> {
  const argv = ["sh", "-c", CORROSION_SCRIPT, "sh", JSON.stringify(statements)];
  const answer = await shop.lab.on(server, argv);
  assert.ok(!answer.includes('"error"'), answer);
}

interface Report {
  readonly stands_down: boolean;
  readonly malformed_rows: Readonly<Record<string, number>>;
  readonly notices: readonly string[];
}

interface Status {
  readonly servers: readonly { readonly id: string; readonly removedAtMs: number | null }[] | null;
  readonly daemon: Report | null;
}

async function statusOf(shop: Shop, server: string): Promise<Status | undefined> {
  const argv = ["/opt/jiji/bin/jiji-daemon", "status", "--json"];
  const { code, stdout } = await shop.lab.tryOn(server, argv);
  if (code !== 0) return undefined;
  const status: Status = JSON.parse(stdout);
  return status;
}

async function metricsOf(shop: Shop, server: string): Promise<string> {
  const address = `10.210.${Number(server.slice(1)) - 1}.1`;
  return await shop.lab.on(server, ["curl", "-sS", "-m", "5", `http://${address}:31283/metrics`]);
}

async function peersOf(shop: Shop, server: string): Promise<string[]> {
  const text = await shop.lab.on(server, ["wg", "show", "jiji0", "peers"]);
  return text.split("\n").filter(Boolean).sort();
}

async function removals(shop: Shop, server: string): Promise<string[]> {
  const status = await statusOf(shop, server);
  return (status?.servers ?? []).filter((row) => row.removedAtMs !== null).map((row) => row.id);
}

Deno.test({
  name: "network: state, backups, hostile rows, servers that leave and come back",
  fn: async (t) => {
    await using shop = await Shop.serving({ name: "netcmd" });
    await chapter(t, "commands that look say what is there", () => looking(shop));
    await chapter(t, "hostile rows reach nothing", () => hostileRows(shop));
    await chapter(
      t,
      "a server that is off is removed, and stands down when it is back",
      () => removedWhileOff(shop),
    );
    await chapter(t, "every database lost: the removal is remembered", () => totalLoss(shop));
    await chapter(t, "the server is added again and has its block", () => addedAgain(shop));
    await chapter(t, "the state is backed up and restored", () => backupAndRestore(shop));
    await chapter(t, "a server leaves, drained", () => drained(shop));
  },
});

async function looking(shop: Shop): Promise<void> {
  assert.match(await shop.must("network", "setup"), /Nothing to do: 3 servers/);
  const stats = JSON.parse(await shop.must("network", "db", "stats", "--json"));
  assert.equal(stats.in_step, true, JSON.stringify(stats));
  assert.equal(stats.servers.s2.rows.servers, 3);
  const table = await shop.must("network", "db", "query", "SELECT id FROM servers ORDER BY id");
  assert.deepEqual(table.trim().split("\n"), ["id", "s1", "s2", "s3"]);
  for (const sql of ["DELETE FROM servers", "WITH x AS (SELECT 1) DELETE FROM servers"]) {
    const refused = await shop.jiji("network", "db", "query", sql);
    assert.equal(refused.code, 2, spoken(refused));
  }
  assert.match(await shop.must("network", "gc"), /Nothing to do/);
  const view = JSON.parse(
    await shop.must("network", "inspect", "--container", "shop-web", "-H", "s3", "--json"),
  );
  assert.deepEqual([view.server, view.problems], ["s3", []]);
  assert.ok(Object.values(view.dns).every((one) => (one as { answered: boolean }).answered));
  const many = await shop.jiji("network", "inspect", "--container", "shop-web");
  assert.deepEqual([many.code, /is 3 containers/.test(many.stderr)], [1, true], spoken(many));
  const none = await shop.jiji("network", "inspect", "--container", "feed");
  assert.equal(none.code, 1, spoken(none));
  const refused = await shop.jiji("network", "teardown", "--yes");
  assert.deepEqual([refused.code, /still have containers/.test(refused.stderr)], [1, true]);
  const text = await metricsOf(shop, "s1");
  assert.match(text, /^jiji_daemon_peers\{state="answering"\} 2$/m);
  assert.match(text, /^jiji_daemon_corrosion_members 2$/m);
  const outside = await shop.lab.tryOn("s1", [
    "curl",
    "-sS",
    "-m",
    "2",
    "http://203.0.113.11:31283/",
  ]);
  assert.notEqual(outside.code, 0, "metrics listen on the mesh alone");
}

/** Rows that another writer could make: none of them may reach a shell, `wg` or a file name. */
function hostile(): Sql[] {
  const words = ["x'; DROP TABLE servers; --", "$(touch /tmp/pwned)", "-flag", "../../etc/passwd"];
  const rows = [...words, "a\nb", "\u001b[2J", "é", ""].flatMap((word): Sql[] => [
    ["INSERT INTO servers (id, hostname) VALUES (?, ?)", [word, word]],
    ["INSERT INTO containers (id, project, name) VALUES (?, ?, ?)", [word, word, word]],
  ]);
  const key = btoa(String.fromCharCode(...new Uint8Array(32).fill(9)));
  const server =
    "INSERT INTO servers (id, subnet, wireguard_ip, wireguard_pubkey, management_ip, " +
    "endpoints) VALUES (?, ?, '10.210.9.1', ?, ?, ?)";
  const endpoints = '["203.0.113.99:31820"]';
  return [
    ...rows,
    [server, ["bad1", "10.210.9.0/24", "$(id)", "fdcc::9", endpoints]],
    [server, ["bad2", "10.210.9.0/24; reboot", key, "fdcc::9", endpoints]],
    [server, ["bad3", "10.210.9.0/24", key, "fdcc::9 dev eth0", endpoints]],
    [server, ["bad4", "10.210.9.0/24", key, "fdcc::9", endpoints]],
    ["UPDATE servers SET endpoints = hex(zeroblob(500000)) WHERE id = ?", ["bad4"]],
    // These two parse: they claim what is not theirs to have.
    [server, ["thief1", "203.0.113.0/24", key, "fdcc::9", endpoints]],
    [server, ["thief2", "10.210.9.0/24", key, "2001:db8::9", endpoints]],
    ["INSERT INTO services (project, name, server_id) VALUES (?, ?, ?)", [
      "../..",
      "; rm",
      "$(id)",
    ]],
  ];
}

async function hostileRows(shop: Shop): Promise<void> {
  const peers = await peersOf(shop, "s2");
  await shop.underLoad("hostile rows", ["s1", "s2", "s3"], async () => {
    await write(shop, "s1", hostile());
    for (const server of ["s1", "s2", "s3"]) {
      await eventually(`${server} counts them`, async () => {
        const counts = (await statusOf(shop, server))?.daemon?.malformed_rows;
        return counts?.["servers"] === 12 && counts["containers"] === 8 ? true : undefined;
      }, { timeoutMs: 30_000 });
    }
  });
  assert.match(await metricsOf(shop, "s2"), /malformed_rows\{table="servers"\} 12/);
  assert.deepEqual(await peersOf(shop, "s2"), peers);
  const routes = await shop.lab.on("s2", ["ip", "route", "show", "dev", "jiji0"]);
  assert.ok(!/203\.0\.113|10\.210\.9\./.test(routes), routes);
  assert.equal((await shop.lab.tryOn("s1", ["ls", "/tmp/pwned"])).code, 2);
  await shop.assertServes("1", ["s1", "s2", "s3"]);
  const shown = JSON.parse(await shop.must("network", "gc", "--json"));
  assert.equal(shown.rows.length, 21, JSON.stringify(shown));
  assert.match(await shop.must("network", "gc", "--force"), /Removed 21 stale rows/);
  for (const thief of ["thief1", "thief2"]) await shop.must("server", "remove", thief, "--yes");
  await eventually("no malformed row is left", async () => {
    const counts = (await statusOf(shop, "s3"))?.daemon?.malformed_rows;
    return counts?.["servers"] === 0 && counts["containers"] === 0 ? true : undefined;
  }, { timeoutMs: 20_000 });
}

async function removedWhileOff(shop: Shop): Promise<void> {
  await shop.lab.kill("s3");
  const said = await shop.must("server", "remove", "s3", "--yes");
  assert.match(said, /s3 is removed\. shop-web runs on s1, s2/);
  await shop.lab.boot("s3");
  const startedMs = performance.now();
  await eventually("s3 stands down", async () => {
    return (await statusOf(shop, "s3"))?.daemon?.stands_down ? true : undefined;
  }, { timeoutMs: 40_000 });
  tell(`switched on after its removal, it stands down after ${secondsSince(startedMs)} s`);
  const allowed = await shop.lab.on("s1", ["wg", "show", "jiji0", "allowed-ips"]);
  assert.match(allowed, /\t10\.210\.2\.1\/32\n/, "it can be told, and nothing else");
}

async function totalLoss(shop: Shop): Promise<void> {
  const lose = "systemctl stop jiji-corrosion; cd /var/lib/jiji/corrosion && " +
    "rm -rf state.db* subscriptions; systemctl start jiji-corrosion";
  await shop.underLoad("every database lost", ["s1", "s2"], async () => {
    await Promise.all(["s1", "s2"].map((server) => shop.lab.on(server, ["sh", "-c", lose])));
    const startedMs = performance.now();
    for (const server of ["s1", "s2"]) {
      await eventually(`${server} knows again that s3 was removed`, async () => {
        return (await removals(shop, server)).includes("s3") ? true : undefined;
      }, { timeoutMs: 150_000 });
    }
    tell(`the state is rebuilt, removals too, after ${secondsSince(startedMs)} s`);
  });
  await shop.assertServes("1", ["s1", "s2"]);
}

async function addedAgain(shop: Shop): Promise<void> {
  const startedMs = performance.now();
  await shop.must("server", "add", "s3");
  tell(`s3 is a member again after ${secondsSince(startedMs)} s`);
  const config = JSON.parse(await shop.lab.on("s3", ["cat", "/etc/jiji/server.json"]));
  assert.equal(config.block, "10.210.2.0/24");
  await shop.must("deploy", "--version", "v1");
  await shop.assertServes("1", ["s1", "s2", "s3"]);
}

async function backupAndRestore(shop: Shop): Promise<void> {
  await shop.must("network", "backup", "--output", "state.db");
  const file = join(shop.folder, "state.db");
  assert.equal((await Deno.stat(file)).mode! & 0o777, 0o600);
  const wrong = await shop.jiji("network", "restore", ".jiji/deploy.yml", "--yes");
  assert.deepEqual([wrong.code, /is no backup/.test(wrong.stderr)], [1, true], spoken(wrong));
  const startedMs = performance.now();
  await shop.underLoad("a restore", ["s1", "s2", "s3"], async () => {
    await shop.must("network", "restore", "state.db", "--yes");
    tell(`restored on three servers in ${secondsSince(startedMs)} s`);
    await eventually("the state is in step", async () => {
      const stats = JSON.parse(
        (await shop.jiji("network", "db", "stats", "--json")).stdout || "{}",
      );
      return stats.in_step && stats.servers.s3?.rows.containers === 4 ? true : undefined;
    }, { timeoutMs: 30_000 });
  });
  await shop.assertServes("1", ["s1", "s2", "s3"]);
}

async function drained(shop: Shop): Promise<void> {
  const last = await shop.jiji("server", "remove", "s2", "--yes");
  assert.deepEqual(
    [last.code, /last place of shop-api/.test(last.stderr)],
    [1, true],
    spoken(last),
  );
  const asked = await shop.jiji("server", "remove", "s3");
  assert.equal(asked.code, 2, spoken(asked));
  const said = await shop.underLoad(
    "a server leaves",
    ["s1", "s2"],
    () => shop.must("server", "remove", "s3", "--yes", "--json"),
  );
  const result = JSON.parse(said);
  assert.deepEqual(
    [result.services, result.late],
    [[{ service: "shop-web", containers: ["shop-web"], elsewhere: ["s1", "s2"] }], []],
  );
  assert.deepEqual(await shop.containers("s3", STORY_ENGINE), ["kamal-proxy"]);
  assert.equal((await statusOf(shop, "s3"))?.daemon?.stands_down, true);
  const names = await shop.lab.on("s1", ["/opt/jiji/bin/jiji-dns", "names"]);
  assert.ok(!names.includes("10.210.2."), names);
}
