import assert from "node:assert/strict";
import { FakeCorrosion, findCorrosion, startCorrosion } from "@jiji/core/testing";
import {
  type CorrosionAddress,
  CorrosionError,
  corrosionHttpApi,
  SELECT_SERVERS,
  type StreamPosition,
  subscribe,
  type SubscriptionEvent,
  touchServer,
  upsertServer,
} from "../src/corrosion/mod.ts";
import { Secret } from "../src/runtime/secret.ts";

const SERVER = {
  id: "one",
  hostname: "one.example",
  subnet: "10.210.1.0/24",
  wireguardIp: "10.210.1.1",
  wireguardPubkey: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
  managementIp: "fdcc::1",
  endpoints: ["203.0.113.11:31820"],
  lastSeenMs: 1,
  doc: {},
};

/** The suite that fake and real thing must both pass; each test uses rows of its own. */
async function suite(t: Deno.TestContext, address: CorrosionAddress): Promise<void> {
  const api = corrosionHttpApi(address);
  await t.step("execute(): writes all statements or none", async () => {
    await api.execute([upsertServer(SERVER)]);
    await assert.rejects(
      api.execute([touchServer("one", 99), ["INSERT INTO nowhere VALUES (1)", []]]),
      (error) => error instanceof CorrosionError && error.status === 500,
    );
    const rows = await api.query(["SELECT last_seen FROM servers WHERE id = ?", ["one"]]);
    assert.deepEqual(rows, [[1]]);
  });
  await t.step("query(): binds values and never runs them", async () => {
    const hostile = "x'); DROP TABLE servers; --";
    assert.deepEqual(await api.query(["SELECT id FROM servers WHERE id = ?", [hostile]]), []);
    assert.equal((await api.query(SELECT_SERVERS)).length, 1);
  });
  await t.step("query(): fails loudly on a statement that does not parse", async () => {
    await assert.rejects(api.query(["SELEKT", []]), CorrosionError);
  });
  await t.step("execute(): a wrong token is refused with its status", async () => {
    const stranger = corrosionHttpApi({ ...address, token: new Secret("wrong") });
    await assert.rejects(
      stranger.execute([touchServer("one", 2)]),
      (error) => error instanceof CorrosionError && error.status === 401,
    );
  });
  await t.step("subscribe(): rows, ready, then changes with contiguous ids", async () => {
    const seen = await collect(address, 4, async (count) => {
      if (count === 3) await api.execute([touchServer("one", 5)]);
    });
    assert.deepEqual(seen.map((event) => event.kind), ["opened", "row", "ready", "change"]);
    const change = seen[3];
    assert.ok(change?.kind === "change" && change.type === "update");
    assert.equal(change.cells[7], 5);
  });
  await t.step("subscribe(): a query Corrosion does not know cannot be resumed", async () => {
    const events = subscribe(address, ["SELECT key, value FROM cluster_metadata", []], {
      signal: AbortSignal.timeout(5_000),
      resume: { queryId: crypto.randomUUID(), changeId: 7 },
    });
    await assert.rejects(
      async () => {
        for await (const _ of events) { /* nothing is expected */ }
      },
      (error) => error instanceof CorrosionError && error.status === 404,
    );
  });
  await t.step("subscribe(): resuming tells what was missed, without all rows", async () => {
    const position = await positionAfterChange(address, () => api.execute([touchServer("one", 6)]));
    await api.execute([touchServer("one", 7)]);
    const seen = await collect(address, 2, () => Promise.resolve(), position);
    const found = await collect(address, 1, () => Promise.resolve());
    assert.equal(found[0]?.kind, "opened", "the query can still be asked for by its text");
    assert.equal(seen[0]?.kind, "opened");
    assert.ok(seen[1]?.kind === "change" && seen[1].cells[7] === 7);
  });
}

/** The first `count` events; `on` is called after each with how many there are. */
async function collect(
  address: CorrosionAddress,
  count: number,
  on: (count: number) => Promise<void>,
  resume?: StreamPosition,
): Promise<SubscriptionEvent[]> {
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(10_000)]);
  const seen: SubscriptionEvent[] = [];
  const options = resume === undefined ? { signal } : { signal, resume };
  for await (const event of subscribe(address, SELECT_SERVERS, options)) {
    seen.push(event);
    await on(seen.length);
    if (seen.length === count) break;
  }
  stop.abort();
  return seen;
}

async function positionAfterChange(
  address: CorrosionAddress,
  change: () => Promise<void>,
): Promise<StreamPosition> {
  let isReady = false;
  let changeId = 0;
  let queryId = "";
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(10_000)]);
  for await (const event of subscribe(address, SELECT_SERVERS, { signal })) {
    if (event.kind === "opened") queryId = event.queryId;
    if (event.kind === "ready" && !isReady) {
      isReady = true;
      await change();
    }
    if (event.kind !== "change") continue;
    changeId = event.changeId;
    if (event.cells[7] === 6) break;
  }
  stop.abort();
  return { queryId, changeId };
}

Deno.test("CorrosionApi contract: the fake keeps it", async (t) => {
  await using fake = new FakeCorrosion();
  await suite(t, fake.address);
});

const binary = await findCorrosion();
const why = binary ? "" : " (skipped: set JIJI_CORROSION or run bin/lab prepare corrosion)";
Deno.test({
  name: `CorrosionApi contract: the real binary keeps it${why}`,
  ignore: !binary,
  fn: async (t) => {
    await using real = await startCorrosion(binary ?? "");
    await suite(t, real.address);
  },
});
