/** Faults on a server in the middle of a deploy, and how a story of them goes. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { edit, secondsSince, Shop, type ShopEvent, spoken, STORY_ENGINE, tell } from "./shop.ts";

const SERVERS = ["s1", "s2", "s3"] as const;

interface FaultyRun {
  readonly code: number;
  /** Whether the instant came. */
  readonly hit: boolean;
  readonly said: string;
}

/** Deploys, and does something to the servers at an instant of it. */
async function deployWhile(
  shop: Shop,
  version: string,
  fault: { readonly at: RegExp | undefined; act(): Promise<unknown> },
): Promise<FaultyRun> {
  let acting: Promise<unknown> | undefined;
  if (fault.at === undefined) await (acting = fault.act());
  const child = shop.lab.spawn(shop.argv("deploy", "--version", version, "--json"), {
    cwd: shop.folder,
  });
  const stdout = new Response(child.stdout).text();
  let said = "";
  let lineStart = 0;
  for await (const piece of child.stderr.pipeThrough(new TextDecoderStream())) {
    said += piece;
    for (let end = said.indexOf("\n", lineStart); end >= 0; end = said.indexOf("\n", lineStart)) {
      const line = said.slice(lineStart, end);
      lineStart = end + 1;
      if (acting !== undefined || !line.startsWith("{")) continue;
      const event: ShopEvent = JSON.parse(line);
      const words = `${event.event} ${event.lane ?? ""}: ${event.title ?? ""}`;
      if (fault.at?.test(words)) acting = fault.act();
    }
  }
  await acting;
  const { code } = await child.status;
  return { code, hit: acting !== undefined, said: `${said}\n${await stdout}` };
}

/** The next version goes through everywhere, and nothing of the failed one is left. */
async function deployAgain(shop: Shop, version: string): Promise<void> {
  const atMs = performance.now();
  await shop.setVersion(version);
  const outcome = await shop.jiji("deploy", "--version", version);
  assert.equal(outcome.code, 0, spoken(outcome));
  tell(`the next deploy went through in ${secondsSince(atMs)} s`);
  await shop.assertServes(version, SERVERS);
  for (const server of SERVERS) {
    const left = await shop.containers(server, STORY_ENGINE);
    assert.deepEqual(left.filter((name) => /_(old|leaving)_/.test(name)), [], server);
  }
}

/** Runs a command on the server that the fault is about. */
export const onFaulty = (...argv: readonly string[]) => (shop: Shop): Promise<string> =>
  shop.lab.on("s2", argv);

/** A fault on s2, the instant of the deploy at which it strikes, and how it ends. */
export interface Fault {
  readonly name: string;
  /** Matches `EVENT LANE: TITLE`; without it the fault is there before the deploy begins. */
  readonly at?: RegExp;
  /** Servers whose visitors notice nothing. */
  readonly unharmed: readonly string[];
  /** Exit codes that the deploy may end with. */
  readonly codes: readonly number[];
  /** What it says. */
  readonly says: RegExp;
  /** Makes it happen. */
  strike(shop: Shop): Promise<unknown>;
  /** Ends it. */
  mend(shop: Shop): Promise<unknown>;
}

/** Tells the story of each fault: deploy into it, mend it, deploy again, all under load. */
export async function tellFaults(
  t: Deno.TestContext,
  name: string,
  faults: readonly Fault[],
): Promise<void> {
  await using shop = await Shop.serving({
    name,
    configure: (text) =>
      text.replace("user: root", "user: root\n  connect_timeout: 4") +
      "deploy: {health_timeout: 10s, drain_timeout: 3s}\n",
  });
  // A new version takes seconds to start, so that a fault strikes in the middle.
  const path = join(shop.folder, "web/run.sh");
  await edit(path, (text) => text.replace("httpd -f", "sleep 4 && httpd -f"));
  let number = 1;
  for (const fault of faults) {
    await t.step(fault.name, async () => {
      const version = `f${++number}`;
      await shop.setVersion(version);
      await shop.underLoad(fault.name, fault.unharmed, async () => {
        const atMs = performance.now();
        const run = await deployWhile(shop, version, {
          at: fault.at,
          act: () => fault.strike(shop),
        });
        tell(`the deploy ended after ${secondsSince(atMs)} s with ${run.code}`);
        assert.ok(run.hit, `the instant never came:\n${run.said}`);
        assert.ok(fault.codes.includes(run.code), `exit ${run.code}\n${run.said}`);
        assert.match(run.said, fault.says);
        await fault.mend(shop);
        await deployAgain(shop, `g${number}`);
      });
    });
  }
}
