import assert from "node:assert/strict";
import { eventually } from "./lab.ts";
import { secondsSince, Shop, type ShopEvent, spoken, tell } from "./shop.ts";

const SERVERS = ["s1", "s2", "s3"] as const;

/** An instant of a deploy: the event at which the signal is sent. */
interface Instant {
  readonly event: "started" | "finished";
  readonly lane: RegExp;
  readonly title: RegExp;
}

/** How each kind of step of a redeploy is told, in its order. */
const STEP_TITLES: Readonly<Record<string, RegExp>> = {
  pullImage: /^pulling /,
  renameContainer: /^renaming /,
  startContainer: /^starting /,
  healthGate: /^waiting until /,
  routeProxy: /^switching /,
  stopContainer: /^stopping /,
  removeContainer: /^removing shop-/,
  removeImages: /^removing \d+ old image/,
};

/** Steps of milliseconds that are told only when they fail: nothing to strike at. */
const UNTOLD = ["keepRelease", "writeAudit"];

/** Before and after each step, on another server each time; nothing is left to do after the last. */
const INSTANTS: readonly Instant[] = [
  { event: "started", lane: /^push web$/, title: /^pushing/ },
  ...Object.entries(STEP_TITLES).flatMap(([kind, title], index): Instant[] => {
    const lane = (offset: number) =>
      new RegExp(`^${SERVERS[(index + offset) % SERVERS.length]} web$`);
    const before: Instant = { event: "started", lane: lane(0), title };
    const after: Instant = { event: "finished", lane: lane(1), title };
    return kind === "removeImages" ? [before] : [before, after];
  }),
];

/** Kinds of the steps in what `deploy --plan --json` prints. */
function kindsOf(plan: string): string[] {
  const phases = ["recover", "prepare", "release", "start", "switch", "retire"];
  const { services }: {
    services: { instances: Record<string, { kind: string }[] | undefined>[] }[];
  } = JSON.parse(plan);
  const steps = services.flatMap(({ instances }) =>
    instances.flatMap((instance) => phases.flatMap((phase) => instance[phase] ?? []))
  );
  return [...new Set(steps.map((step) => step.kind))];
}

interface Interrupted {
  readonly code: number;
  /** Whether the event came. */
  readonly hit: boolean;
  readonly said: string;
}

/** Reads to the end, so that nothing is left open. */
async function drain(reader: ReadableStreamDefaultReader<string>): Promise<void> {
  while (!(await reader.read()).done);
}

/** Runs jiji and sends it a signal at an instant. */
async function interrupt(
  shop: Shop,
  args: readonly string[],
  options: { readonly at: (event: ShopEvent) => boolean; readonly signal: Deno.Signal },
): Promise<Interrupted> {
  const argv = ["sh", "-c", 'echo $$; exec "$@"', "sh", ...shop.argv(...args, "--json")];
  const child = shop.lab.spawn(argv, { cwd: shop.folder });
  const stdout = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const pid = Number((await stdout.read()).value);
  assert.ok(pid > 1, "the process id of jiji");
  const drained = drain(stdout);
  let hit = false;
  let said = "";
  let lineStart = 0;
  for await (const piece of child.stderr.pipeThrough(new TextDecoderStream())) {
    said += piece;
    for (let end = said.indexOf("\n", lineStart); end >= 0; end = said.indexOf("\n", lineStart)) {
      const line = said.slice(lineStart, end);
      lineStart = end + 1;
      if (hit || !line.startsWith("{") || !options.at(JSON.parse(line))) continue;
      hit = true;
      Deno.kill(pid, options.signal);
    }
  }
  await drained;
  return { code: (await child.status).code, hit, said };
}

function matches(instant: Instant): (event: ShopEvent) => boolean {
  return (event) =>
    event.event === instant.event && instant.lane.test(event.lane ?? "") &&
    instant.title.test(event.title ?? "");
}

async function assertNothingOld(shop: Shop): Promise<void> {
  for (const server of SERVERS) {
    const expected = ["kamal-proxy", ...(server === "s2" ? ["shop-api"] : []), "shop-web"];
    assert.deepEqual(await shop.containers(server), expected, server);
  }
}

/** A lock is a folder; what guards its making is a file that stays. */
const FIND_LOCKS = "find /var/lib/jiji/locks -mindepth 1 -type d".split(" ");

async function locks(shop: Shop): Promise<string> {
  const found = await Promise.all(
    SERVERS.map((server) => shop.lab.on(server, FIND_LOCKS)),
  );
  return found.join("");
}

/** The next version goes through from another copy of the project, as from another colleague's. */
async function deployFromElsewhere(shop: Shop, version: string): Promise<void> {
  const elsewhere = await shop.copyProject("elsewhere");
  const outcome = await shop.jijiIn(elsewhere, ["deploy", "--version", version]);
  assert.equal(outcome.code, 0, spoken(outcome));
}

Deno.test("interruption: whenever jiji is killed, the old version serves and the next run mends", async (t) => {
  await using shop = await Shop.serving({ name: "e2e-interrupt" });
  let number = 1;

  await t.step("every step of a redeploy is struck at", async () => {
    for (const version of ["p1", "p2", "p3"]) {
      await shop.setVersion(version);
      await shop.must("deploy", "--version", version);
    }
    await shop.setVersion("p4");
    const kinds = kindsOf(await shop.must("deploy", "--version", "p4", "--plan", "--json"));
    assert.deepEqual(kinds.sort(), [...Object.keys(STEP_TITLES), ...UNTOLD].sort());
  });

  for (const instant of INSTANTS) {
    const words = `${instant.event} ${instant.lane.source} ${instant.title.source}`;
    const what = words.replace(/[\^$]/g, "").trim();
    await t.step(`SIGKILL at: ${what}`, async () => {
      const version = `k${++number}`;
      await shop.setVersion(version);
      await shop.underLoad(
        `killed at "${what}", then deployed from elsewhere`,
        SERVERS,
        async () => {
          const killed = await interrupt(shop, ["deploy", "--version", version], {
            at: matches(instant),
            signal: "SIGKILL",
          });
          assert.ok(killed.hit, `the instant never came:\n${killed.said}`);
          assert.equal(killed.code, 137, killed.said);
          await deployFromElsewhere(shop, version);
        },
      );
      await shop.assertServes(version, SERVERS);
      await assertNothingOld(shop);
      assert.equal(await locks(shop), "");
    });
  }

  await t.step("SIGKILL on a laptop that never comes back: its lock is waited out", async () => {
    const version = `k${++number}`;
    await shop.setVersion(version);
    await shop.underLoad("killed, then deployed from another machine", SERVERS, async () => {
      const killed = await interrupt(shop, ["deploy", "--version", version], {
        at: (event) => event.event === "started" && /^switching /.test(event.title ?? ""),
        signal: "SIGKILL",
      });
      assert.ok(killed.hit, killed.said);
      // The fourth line tells the holder's process; without it nobody can know that it is gone.
      const forget = "sed -i 4s/.*// /var/lib/jiji/locks/shop/owner";
      await Promise.all(SERVERS.map((server) => shop.lab.on(server, forget.split(" "))));
      const atMs = performance.now();
      await deployFromElsewhere(shop, version);
      tell(`deployed from elsewhere within ${secondsSince(atMs)} s of the kill`);
    });
    await shop.assertServes(version, SERVERS);
    await assertNothingOld(shop);
  });

  const early = INSTANTS.filter((instant) =>
    instant.event === "started" &&
    /^\^(pulling|renaming|starting|waiting)/.test(instant.title.source)
  );
  for (const instant of early) {
    const what = `${instant.title.source}`.replace(/[\^$]/g, "").trim();
    await t.step(
      `Ctrl-C while ${what}: exit 130, the old version serves, no lock is left`,
      async () => {
        const before = `k${number}`;
        const version = `c${number}`;
        await shop.setVersion(version);
        const ended = await shop.underLoad(`Ctrl-C while ${what}`, SERVERS, async () => {
          return await interrupt(shop, ["deploy", "--version", version], {
            at: matches(instant),
            signal: "SIGINT",
          });
        });
        assert.ok(ended.hit, `the instant never came:\n${ended.said}`);
        assert.equal(ended.code, 130, ended.said);
        assert.equal(await locks(shop), "");
        await shop.assertServes(before, SERVERS);
        await assertNothingOld(shop);
      },
    );
  }

  await t.step("after all that, a deploy goes through", async () => {
    await shop.setVersion("last");
    await shop.must("deploy", "--version", "last");
    await shop.assertServes("last", SERVERS);
  });
});

Deno.test("interruption: server init killed again and again ends in a cluster all the same", async (t) => {
  await using shop = await Shop.open({ name: "e2e-init-kill", engine: "none" });
  const { lab } = shop;

  await t.step("while the package manager is at work", async () => {
    const unpacking = async () => {
      return (await lab.tryOn("s1", ["pgrep", "-x", "dpkg"])).code === 0 ? true : undefined;
    };
    const child = lab.spawn([
      "sh",
      "-c",
      'echo $$; exec "$@"',
      "sh",
      ...shop.argv("server", "init"),
    ], {
      cwd: shop.folder,
    });
    const stdout = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const stderr = new Response(child.stderr).text();
    const pid = Number((await stdout.read()).value);
    await eventually("dpkg unpacks on s1", unpacking, { timeoutMs: 60_000 });
    Deno.kill(pid, "SIGKILL");
    assert.equal((await child.status).code, 137, await stderr);
    await drain(stdout);
  });

  const instants = [
    ["started", "key"],
    ["started", "corrosion"],
    ["started", "jiji-daemon"],
    ["started", "server.json"],
    ["finished", "corrosion.toml"],
    ["started", "units"],
  ] as const;
  for (const [event, title] of instants) {
    await t.step(`when ${title} ${event}`, async () => {
      const killed = await interrupt(shop, ["server", "init"], {
        at: (seen) => seen.event === event && seen.title === title,
        signal: "SIGKILL",
      });
      assert.ok(killed.hit, `the instant never came:\n${killed.said}`);
      assert.equal(killed.code, 137, killed.said);
    });
  }

  await t.step("the next run finishes, and the one after has nothing to do", async () => {
    const atMs = performance.now();
    const said = await shop.must("server", "init");
    assert.match(said, /3 servers ready/);
    tell(`finished in ${secondsSince(atMs)} s`);
    assert.match(await shop.must("server", "init"), /Nothing to do/);
    await shop.must("deploy", "--version", "v1");
    await shop.assertServes("1", SERVERS);
  });
});
