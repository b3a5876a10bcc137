import assert from "node:assert/strict";
import {
  addresses,
  allIsWell,
  dropFrom,
  knownServers,
  meshIsWhole,
  pairsAmong,
  sees,
  SERVERS,
  underMesh,
} from "./healing.ts";
import { eventually } from "./lab.ts";
import { chapter, secondsSince, Shop, tell } from "./shop.ts";

/** A silent server leaves the others' answers within this time, seconds. */
const SILENT_WITHIN_S = 8;
/** After the end of a partition all is as before within this time, seconds. */
const HEALED_WITHIN_S = 20;
/** A server that got another address is found again within this time, seconds. */
const MOVED_WITHIN_S = 20;

/** s1 and s3 do not hear each other; both hear s2, whom nothing happened to. */
async function partedPair(
  shop: Shop,
  o: { readonly what: string; cut(): Promise<unknown>; readonly during?: () => Promise<void> },
): Promise<void> {
  const pairs = [...pairsAmong("s1", "s2"), ...pairsAmong("s2", "s3")];
  await shop.underLoad(
    `${o.what}: visitors of all three proxies`,
    SERVERS,
    () =>
      underMesh(shop, { what: o.what, pairs }, async () => {
        await o.cut();
        const limits = { sinceMs: performance.now(), withinS: SILENT_WITHIN_S };
        const left = (by: string, gone: string) => ({
          what: `${by} left out ${gone}`,
          by: [by],
          instances: SERVERS.filter((server) => server !== gone),
        });
        await sees(shop, { ...limits, ...left("s1", "s3") });
        await sees(shop, { ...limits, ...left("s3", "s1") });
        assert.equal((await addresses(shop, "s2")).length, 3, "s2 hears both");
        await o.during?.();
      }),
  );
}

/** Ends it, and nothing else is done. */
async function heal(
  shop: Shop,
  end: () => Promise<unknown>,
  withinS = HEALED_WITHIN_S,
): Promise<void> {
  await end();
  await allIsWell(shop, { sinceMs: performance.now(), withinS });
}

/** Everything of everyone is still known: silence is no reason to forget. */
async function assertNothingForgotten(shop: Shop): Promise<void> {
  for (const server of SERVERS) {
    const known = (await knownServers(shop, server)).filter((row) => row.removedAtMs === null);
    assert.deepEqual(known.map((row) => row.id), SERVERS, server);
    const peers = await shop.lab.on(server, ["wg", "show", "jiji0", "peers"]);
    assert.equal(peers.trim().split("\n").length, 2, `${server} keeps its peers`);
  }
}

Deno.test("partition: every shape among three servers, and its healing", async (t) => {
  await using shop = await Shop.serving({ name: "e2e-partition" });
  const { lab } = shop;
  const started = { sinceMs: performance.now(), withinS: 30 };
  await allIsWell(shop, { ...started, what: "the cluster stands" });

  await chapter(t, "two lose each other, both see the third: news go round by it", async () => {
    const cutAtMs = Date.now();
    await partedPair(shop, {
      what: "s1 and s3 parted",
      cut: () => lab.cut("s1", "s3"),
      during: async () => {
        const sinceMs = performance.now();
        await eventually("s3 hears of s1 by s2", async () => {
          const row = (await knownServers(shop, "s3")).find((one) => one.id === "s1");
          return row && row.lastSeenMs > cutAtMs ? true : undefined;
        }, { timeoutMs: 25_000 });
        tell(`s3 had news of s1 by way of s2 after ${secondsSince(sinceMs)} s (limit 25 s)`);
      },
    });
    await assertNothingForgotten(shop);
    await heal(shop, () => lab.heal());
  });

  await chapter(t, "packets are lost in one direction only", async () => {
    await partedPair(shop, {
      what: "nothing from s1 to s3",
      cut: () => dropFrom(shop, { from: "s1", at: "s3" }),
    });
    await heal(shop, () => dropFrom(shop, { from: "s1", at: "s3", verb: "-D" }));
  });

  await chapter(t, "one is cut off: both sides serve on, neither forgets the other", async () => {
    const pairs = pairsAmong("s1", "s2");
    await shop.underLoad(
      "s3 cut off: visitors of all three proxies",
      SERVERS,
      () =>
        underMesh(shop, { what: "s3 cut off", pairs }, async () => {
          await lab.cut("s3", "s1");
          await lab.cut("s3", "s2");
          const limits = { sinceMs: performance.now(), withinS: SILENT_WITHIN_S };
          const both = { by: ["s1", "s2"], instances: ["s1", "s2"] };
          await sees(shop, { ...limits, ...both, what: "s1 and s2 left out s3" });
          const alone = { by: ["s3"], instances: ["s3"] };
          await sees(shop, { ...limits, ...alone, what: "s3 answers with its own instance" });
        }),
    );
    await assertNothingForgotten(shop);
    await heal(shop, () => lab.heal());
  });

  await chapter(t, "a server's address changes: its peers follow it", async () => {
    const [before, after] = [lab.address("s3"), "203.0.113.113"];
    const move = async (from: string, to: string) => {
      const change = 'ip addr del "$1/24" dev eth0 && ip addr add "$2/24" dev eth0';
      await lab.on("s3", ["sh", "-c", change, "sh", from, to]);
      return performance.now();
    };
    const pairs = pairsAmong("s1", "s2");
    await shop.underLoad(
      "s3 moves: visitors of s1 and s2",
      ["s1", "s2"],
      () =>
        underMesh(shop, { what: "s3 moves", pairs }, async () => {
          const sinceMs = await move(before, after);
          await eventually("WireGuard of s1 follows", async () => {
            const text = await lab.on("s1", ["wg", "show", "jiji0", "endpoints"]);
            return text.includes(`${after}:`) ? true : undefined;
          }, { timeoutMs: MOVED_WITHIN_S * 1_000 });
          await meshIsWhole(shop, MOVED_WITHIN_S);
          const limit = `limit ${MOVED_WITHIN_S} s`;
          tell(`all reach each other ${secondsSince(sinceMs)} s after the move (${limit})`);
          await eventually("the others know the new address", async () => {
            const row = (await knownServers(shop, "s1")).find((one) => one.id === "s3");
            return row?.endpoints.some((text) => text.startsWith(`${after}:`)) ? true : undefined;
          }, { timeoutMs: MOVED_WITHIN_S * 1_000 });
          tell(`its row named the new address after ${secondsSince(sinceMs)} s (${limit})`);
        }),
    );
    await heal(shop, () => move(after, before), MOVED_WITHIN_S);
  });
});
