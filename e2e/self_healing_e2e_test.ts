import assert from "node:assert/strict";
import {
  allIsWell,
  inWeb,
  knownServers,
  namesKept,
  type Pair,
  pairsAmong,
  query,
  sees,
  type Server,
  SERVERS,
  underMesh,
} from "./healing.ts";
import { eventually } from "./lab.ts";
import { chapter, secondsSince, Shop, spoken, STORY_ENGINE, tell } from "./shop.ts";

/** Something that breaks on s3, and how it can be seen that it was mended. */
interface Breakage {
  readonly what: string;
  /** Servers whose visitors notice nothing. Default: all. */
  readonly unharmed?: readonly Server[];
  /** Pairs whose containers notice nothing. Default: s1 and s2. */
  readonly pairs?: readonly Pair[];
  strike(): Promise<unknown>;
  /** Whether it is mended. */
  mended(): Promise<boolean>;
  /** By then all must be as before, seconds. */
  readonly withinS: number;
}

/** Breaks something under load and does nothing more. */
async function healsByItself(shop: Shop, o: Breakage): Promise<void> {
  const pairs = o.pairs ?? pairsAmong("s1", "s2");
  await shop.underLoad(
    `${o.what}: visitors`,
    o.unharmed ?? SERVERS,
    () =>
      underMesh(shop, { what: o.what, pairs }, async () => {
        await o.strike();
        const sinceMs = performance.now();
        await eventually(`${o.what}: mended`, async () => {
          return await o.mended().catch(() => false) ? true : undefined;
        }, { timeoutMs: o.withinS * 1_000 });
        tell(`${o.what}: mended after ${secondsSince(sinceMs)} s`);
        await allIsWell(shop, { sinceMs, withinS: o.withinS });
      }),
  );
}

/** Whether Corrosion of these servers has every server and container of the shop. */
async function stateIsWhole(shop: Shop, servers: readonly Server[]): Promise<boolean> {
  for (const server of servers) {
    const [[rows] = []] = await query(shop, server, "SELECT count(*) FROM containers");
    if ((await knownServers(shop, server)).length !== 3 || rows !== 4) return false;
  }
  return true;
}

const LOSE_DATABASE = "systemctl kill -s KILL jiji-corrosion; " +
  "find /var/lib/jiji/corrosion -mindepth 1 -maxdepth 1 -not -name tmp -exec rm -rf {} +";

const LOSE_DAEMON = "systemctl kill -s KILL jiji-daemon; " +
  "rm -rf /var/lib/jiji/daemon/* /run/jiji/liveness.json";

/** Waits until a server has noticed that another's daemon does not answer, and that it is there. */
async function missesDaemonOf(
  shop: Shop,
  o: { readonly by: Server; readonly server: Server },
): Promise<void> {
  const journal = ["journalctl", "-u", "jiji-daemon", "--since", "-20s", "-o", "cat"];
  await eventually(`${o.by} misses the daemon of ${o.server}`, async () => {
    const lines = (await shop.lab.on(o.by, journal)).split("\n");
    const told = lines.some((line) =>
      line.includes("daemons do not answer, their servers do") && line.includes(`"${o.server}"`)
    );
    return told ? true : undefined;
  }, { timeoutMs: 15_000 });
}

async function loseDatabase(shop: Shop, server: Server): Promise<void> {
  await shop.lab.on(server, ["sh", "-c", LOSE_DATABASE]);
}

/** Restarts the daemon of s3 with a wall clock that is wrong; without an offset it is right again. */
async function setClock(shop: Shop, offsetMs?: number): Promise<void> {
  const script = offsetMs === undefined
    ? "rm -r /etc/systemd/system/jiji-daemon.service.d"
    : "mkdir -p /etc/systemd/system/jiji-daemon.service.d && printf '[Service]\\n" +
      `Environment=JIJI_CLOCK_OFFSET_MS=${offsetMs}\\n' ` +
      "> /etc/systemd/system/jiji-daemon.service.d/clock.conf";
  const restart = "systemctl daemon-reload && systemctl restart jiji-daemon";
  await shop.lab.on("s3", ["sh", "-c", `${script} && ${restart}`]);
}

/** How far s3's heartbeat is ahead of the time on the other servers, seconds. */
async function heartbeatAheadS(shop: Shop): Promise<number> {
  const row = (await knownServers(shop, "s1")).find((one) => one.id === "s3");
  return ((row?.lastSeenMs ?? 0) - Date.now()) / 1_000;
}

async function wrongClock(shop: Shop, offsetMs: number): Promise<void> {
  const what = `clock ${offsetMs / 60_000} minutes off`;
  const isSet = async () => Math.abs(await heartbeatAheadS(shop) - offsetMs / 1_000) < 30;
  const strike = () => setClock(shop, offsetMs);
  await healsByItself(shop, { what, strike, mended: isSet, withinS: 30 });
  await shop.lab.cut("s3", "s1");
  const sinceMs = performance.now();
  const out = (by: Server, gone: Server) => ({
    what: `${what}: ${by} left out ${gone}`,
    by: [by],
    instances: SERVERS.filter((server) => server !== gone),
    withinS: 8,
    sinceMs,
  });
  await sees(shop, out("s3", "s1"));
  await sees(shop, out("s1", "s3"));
  await shop.lab.heal();
  await allIsWell(shop, { sinceMs: performance.now(), withinS: 20 });
}

/** Puts the state of s3 on a file system of 96 MB. */
const SMALL_DISK = `set -e
systemctl stop jiji-daemon jiji-dns jiji-corrosion
cp -a /var/lib/jiji /root/state
mount -t tmpfs -o size=96m,mode=0755 tmpfs /var/lib/jiji
cp -a /root/state/. /var/lib/jiji/
systemctl start jiji-corrosion jiji-dns jiji-daemon`;

async function fillDisk(shop: Shop): Promise<void> {
  const outcome = await shop.lab.tryOn("s3", ["dd", "if=/dev/zero", "of=/var/lib/jiji/full"]);
  assert.match(outcome.stderr, /No space left/);
}

Deno.test("self-healing: what breaks on one server is mended there, and others notice nothing", async (t) => {
  await using shop = await Shop.serving({ name: "e2e-healing" });
  const { lab } = shop;
  const all = pairsAmong(...SERVERS);
  await allIsWell(shop, { sinceMs: performance.now(), withinS: 30, what: "the cluster stands" });

  await chapter(t, "the mesh interface is deleted", () =>
    healsByItself(shop, {
      what: "jiji0 deleted",
      strike: () => lab.on("s3", ["ip", "link", "del", "jiji0"]),
      mended: async () => (await lab.on("s3", ["wg", "show", "jiji0", "peers"])).includes("="),
      withinS: 30,
    }));

  await chapter(t, "the bridge is deleted under running containers", async () => {
    const before = await lab.on("s3", inWeb("cat", "/proc/1/stat"));
    await healsByItself(shop, {
      what: "jiji-br0 deleted",
      unharmed: ["s1", "s2"],
      strike: () => lab.on("s3", ["ip", "link", "del", "jiji-br0"]),
      mended: async () => (await lab.on("s3", ["ip", "addr", "show", "jiji-br0"])).includes("UP"),
      withinS: 30,
    });
    const after = await lab.on("s3", inWeb("cat", "/proc/1/stat"));
    assert.equal(after.split(" ")[21], before.split(" ")[21], "the container ran all the time");
  });

  await chapter(t, "Corrosion is killed and its database deleted", () =>
    healsByItself(shop, {
      what: "database of s3 lost",
      pairs: all,
      strike: () => loseDatabase(shop, "s3"),
      mended: () => stateIsWhole(shop, ["s3"]),
      // The others' Corrosion takes it for dead for 43 s, as its old self never left.
      withinS: 120,
    }));

  await chapter(
    t,
    "every Corrosion is killed and every database deleted",
    () =>
      healsByItself(shop, {
        what: "all databases lost",
        pairs: all,
        strike: () => Promise.all(SERVERS.map((server) => loseDatabase(shop, server))),
        mended: () => stateIsWhole(shop, SERVERS),
        withinS: 90,
      }),
  );

  await chapter(
    t,
    "the daemon hangs, is killed and its state deleted: its server stays",
    () =>
      namesKept(shop, { what: "daemon lost", by: ["s1", "s2"] }, () =>
        healsByItself(shop, {
          what: "daemon's state lost",
          pairs: all,
          strike: async () => {
            await lab.on("s3", ["systemctl", "kill", "-s", "STOP", "jiji-daemon"]);
            await missesDaemonOf(shop, { by: "s1", server: "s3" });
            await lab.on("s3", ["sh", "-c", LOSE_DAEMON]);
          },
          mended: async () => {
            const files = ["/var/lib/jiji/daemon/peers.json", "/run/jiji/liveness.json"];
            return (await lab.tryOn("s3", ["ls", ...files])).code === 0;
          },
          withinS: 30,
        })),
  );

  await chapter(
    t,
    "database and daemon's state of one server are lost at once",
    () =>
      healsByItself(shop, {
        what: "all that s3 knew lost",
        pairs: all,
        strike: () => lab.on("s3", ["sh", "-c", `${LOSE_DATABASE}; ${LOSE_DAEMON}`]),
        mended: () => stateIsWhole(shop, ["s3"]),
        withinS: 120,
      }),
  );

  await chapter(t, "a daemon's clock is ten minutes wrong, either way", async () => {
    await wrongClock(shop, 600_000);
    await wrongClock(shop, -600_000);
    const strike = () => setClock(shop);
    const mended = async () => Math.abs(await heartbeatAheadS(shop)) < 30;
    await healsByItself(shop, { what: "clock right again", strike, mended, withinS: 30 });
  });

  if (STORY_ENGINE === "docker") {
    await chapter(t, "the engine is restarted", () =>
      healsByItself(shop, {
        what: "docker restarted",
        unharmed: ["s1", "s2"],
        strike: () => lab.on("s3", ["systemctl", "restart", "docker"]),
        mended: async () => (await lab.tryOn("s3", inWeb("true"))).code === 0,
        withinS: 40,
      }));
  }

  await chapter(
    t,
    "a server is removed while it is off: it comes back and stands aside",
    async () => {
      await shop.underLoad(
        "s3 removed: visitors",
        ["s1", "s2"],
        () =>
          underMesh(shop, { what: "s3 removed", pairs: pairsAmong("s1", "s2") }, async () => {
            await lab.kill("s3");
            await lab.on("s1", ["/opt/jiji/bin/jiji-daemon", "servers", "remove", "s3"]);
            await lab.boot("s3");
            const sinceMs = performance.now();
            await eventually("s3 knows that it was removed", async () => {
              // It has just booted: its Corrosion may not answer yet.
              const known = await knownServers(shop, "s3").catch(() => []);
              const row = known.find((one) => one.id === "s3");
              return typeof row?.removedAtMs === "number" ? true : undefined;
            }, { timeoutMs: 60_000 });
            tell(`s3 stood down ${secondsSince(sinceMs)} s after power on (limit 60 s)`);
            const left = { by: ["s1", "s2"], instances: ["s1", "s2"], withinS: 90, sinceMs };
            await sees(shop, { ...left, what: "the others do without it" });
          }),
      );
    },
  );

  await chapter(t, "it is added again", async () => {
    await shop.must("server", "add", "s3");
    await shop.must("deploy", "--version", "v1");
    await allIsWell(shop, {
      sinceMs: performance.now(),
      withinS: 90,
      what: "taken back",
    });
  });

  await chapter(t, "two laptops run server init for a new server at once", async () => {
    await lab.grow(4, STORY_ENGINE);
    const more = `  s3:\n    host: 203.0.113.13\n  s4:\n    host: 203.0.113.14\n`;
    const change = (text: string) => text.replace("  s3:\n    host: 203.0.113.13\n", more);
    await shop.configure(change);
    const other = await shop.copyProject("other-laptop");
    const outcomes = await Promise.all([
      shop.jiji("server", "init"),
      shop.jijiIn(other, ["server", "init"]),
    ]);
    const codes = outcomes.map((outcome) => outcome.code);
    tell(`the two ended with ${codes.join(" and ")}`);
    const said = outcomes.map(spoken).join("\n");
    assert.ok(codes.includes(0) && codes.every((code) => code === 0 || code === 5), said);
    for (const server of [...SERVERS, "s4"]) {
      const rows = await knownServers(shop, server);
      assert.deepEqual(rows.map((row) => row.id), [...SERVERS, "s4"], server);
      assert.equal(new Set(rows.map((row) => row.subnet)).size, 4, "a block of its own for each");
    }
    assert.match(await shop.must("server", "init"), /Nothing to do/);
  });

  await chapter(t, "the disk under a server's state is full for a while", async () => {
    await lab.on("s3", ["sh", "-c", SMALL_DISK]);
    await allIsWell(shop, { sinceMs: performance.now(), withinS: 60, what: "on a small disk" });
    let fullAtMs = 0;
    await shop.underLoad(
      "disk of s3 full: visitors",
      SERVERS,
      () =>
        underMesh(shop, { what: "disk of s3 full", pairs: all }, async () => {
          await fillDisk(shop);
          fullAtMs = Date.now();
          const sinceMs = performance.now();
          await eventually("s3 says that its disk is full", async () => {
            const log = ["journalctl", "-u", "jiji-daemon", "-n", "50", "-o", "cat", "--no-pager"];
            return /no space|disk/i.test(await lab.on("s3", log)) ? true : undefined;
          }, { timeoutMs: 60_000 });
          tell(`s3 said so after ${secondsSince(sinceMs)} s`);
        }),
    );
    await healsByItself(shop, {
      what: "space again",
      pairs: all,
      strike: () => lab.on("s3", ["rm", "/var/lib/jiji/full"]),
      mended: async () => {
        const rows = await knownServers(shop, "s3");
        const isNews = rows.every((row) => row.lastSeenMs > fullAtMs);
        return isNews && rows.length === 4;
      },
      withinS: 90,
    });
  });
});
