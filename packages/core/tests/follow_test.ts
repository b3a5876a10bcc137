import assert from "node:assert/strict";
import { FakeCorrosion, RecordingLogger, SimClock } from "@jiji/core/testing";
import {
  CorrosionError,
  corrosionHttpApi,
  followTable,
  parseServerRow,
  SELECT_SERVERS,
  type ServerRow,
  type Statement,
  subscribe,
  type SubscriptionEvent,
  type SubscriptionOptions,
  touchServer,
  upsertServer,
} from "../src/corrosion/mod.ts";
import { type Clock, systemClock } from "../src/runtime/clock.ts";
import { seededRandom } from "../src/runtime/random.ts";
import { waitFor } from "../src/runtime/retry.ts";

function server(id: string, lastSeenMs = 1): Omit<ServerRow, "removedAtMs"> {
  return {
    id,
    hostname: id,
    subnet: "10.210.1.0/24",
    wireguardIp: "10.210.1.1",
    wireguardPubkey: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    managementIp: "fdcc::1",
    endpoints: [],
    lastSeenMs,
    doc: {},
  };
}

/** Real time but for the waits, which are a hundredth as long. */
const hurried: Clock = {
  ...systemClock,
  sleep: (durationMs, options) => systemClock.sleep(durationMs / 100, options),
};

class Followed implements AsyncDisposable {
  readonly rows = new Map<string, ServerRow>();
  readonly logger = new RecordingLogger();
  fills = 0;
  refused: ReadonlyMap<string, string> = new Map();
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;

  constructor(fake: FakeCorrosion) {
    const { rows } = this;
    this.#done = followTable<ServerRow>({
      statement: SELECT_SERVERS,
      parse: parseServerRow,
      sink: {
        onRows: (all) => {
          this.fills += 1;
          rows.clear();
          for (const [id, row] of all) rows.set(id, row);
        },
        onRow: (id, row) => rows.set(id, row),
        onGone: (id) => rows.delete(id),
        onRefused: (refused) => {
          this.refused = refused;
        },
      },
      subscribe: (statement, options) => subscribe(fake.address, statement, options),
      api: corrosionHttpApi(fake.address),
      clock: hurried,
      random: seededRandom(1),
      logger: this.logger,
      signal: this.#stop.signal,
    });
  }

  /** Waits until the followed rows are as `isSo` says. */
  async until(isSo: () => boolean): Promise<void> {
    const seen = await waitFor(() => isSo() ? true : undefined, {
      clock: systemClock,
      timeoutMs: 5_000,
      everyMs: 5,
    });
    assert.ok(seen, `waited in vain; rows: ${JSON.stringify([...this.rows])}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }
}

Deno.test("followTable(): fills, then follows inserts, updates and deletes", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  await api.execute([upsertServer(server("one"))]);
  await using followed = new Followed(fake);
  await followed.until(() => followed.rows.has("one"));
  await api.execute([upsertServer(server("two")), touchServer("one", 9)]);
  await followed.until(() =>
    followed.rows.size === 2 && followed.rows.get("one")?.lastSeenMs === 9
  );
  await api.execute([["DELETE FROM servers WHERE id = ?", ["one"]]]);
  await followed.until(() => !followed.rows.has("one"));
  assert.equal(followed.fills, 1);
});

Deno.test("followTable(): resumes after a cut without reading all rows again", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  await using followed = new Followed(fake);
  await followed.until(() => followed.fills === 1);
  await api.execute([upsertServer(server("one"))]);
  await followed.until(() => followed.rows.has("one"));
  fake.cutStreams();
  await api.execute([upsertServer(server("two"))]);
  await followed.until(() => followed.rows.has("two"));
  assert.equal(followed.fills, 1);
});

Deno.test("followTable(): a delete missed while Corrosion lost its position still happens", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  await api.execute([upsertServer(server("one")), upsertServer(server("two"))]);
  await using followed = new Followed(fake);
  await followed.until(() => followed.rows.size === 2);
  fake.forgetSubscriptions();
  fake.changeSilently("DELETE FROM servers WHERE id = 'one'");
  await followed.until(() => !followed.rows.has("one"));
  assert.equal(followed.fills, 2);
});

Deno.test("followTable(): a Corrosion that lost its database is asked for all rows at once", async () => {
  const clock = new SimClock(1_000_000);
  const stop = new AbortController();
  const asked: { readonly atMs: number; readonly isResume: boolean }[] = [];
  async function* script(
    _statement: Statement,
    o: SubscriptionOptions,
  ): AsyncGenerator<SubscriptionEvent> {
    const isResume = o.resume !== undefined;
    asked.push({ atMs: clock.monotonicMs(), isResume });
    await clock.sleep(0);
    if (asked.length === 1) {
      yield { kind: "opened", queryId: "one" };
      yield { kind: "ready", changeId: 5 };
    }
    if (asked.length < 10) throw new CorrosionError("it is down", { isCut: true });
    if (isResume) throw new CorrosionError("no such subscription", { isCut: false });
    yield { kind: "opened", queryId: "two" };
    yield { kind: "ready", changeId: 0 };
    await new Promise((_, reject) =>
      o.signal.addEventListener("abort", () => reject(o.signal.reason))
    );
  }
  const done = followTable<ServerRow>({
    statement: SELECT_SERVERS,
    parse: parseServerRow,
    sink: { onRows: () => undefined, onRow: () => undefined, onGone: () => undefined },
    subscribe: script,
    api: { execute: () => Promise.resolve(), query: () => Promise.resolve([]) },
    clock,
    random: seededRandom(1),
    logger: new RecordingLogger(),
    signal: stop.signal,
  });
  for (let second = 0; second < 120; second++) await clock.advance(1_000);
  stop.abort();
  await done;
  const [before, refused, anew] = asked.slice(-3);
  assert.ok(before && refused?.isResume && anew && !anew.isResume);
  assert.ok(refused.atMs - before.atMs > 5_000, "it was asked ever more rarely");
  assert.ok(anew.atMs - refused.atMs <= 500, `${anew.atMs - refused.atMs} ms`);
});

Deno.test("followTable(): starts over when Corrosion answers with another query", async () => {
  await using fake = new FakeCorrosion();
  await using followed = new Followed(fake);
  await followed.until(() => followed.fills === 1);
  await corrosionHttpApi(fake.address).execute([upsertServer(server("one"))]);
  await followed.until(() => followed.rows.has("one"));
  fake.answerWithOtherQuery();
  fake.cutStreams();
  await followed.until(() => followed.fills === 2);
});

Deno.test("followTable(): starts over after a gap in the change ids", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  await api.execute([upsertServer(server("one"))]);
  await using followed = new Followed(fake);
  await followed.until(() => followed.rows.size === 1);
  fake.loseChange("DELETE FROM servers WHERE id = 'one'");
  await api.execute([upsertServer(server("two"))]);
  await followed.until(() => followed.rows.has("two") && !followed.rows.has("one"));
  assert.equal(followed.fills, 2);
});

Deno.test("followTable(): a quiet stream is compared with the table and mended", async () => {
  await using fake = new FakeCorrosion();
  await using followed = new Followed(fake);
  await followed.until(() => followed.fills === 1);
  await corrosionHttpApi(fake.address).execute([upsertServer(server("one"))]);
  await followed.until(() => followed.rows.has("one"));
  // The stream will never tell of this; only the comparison after IDLE_CHECK_MS can.
  fake.changeSilently("DELETE FROM servers");
  await followed.until(() => followed.rows.size === 0);
});

Deno.test("followTable(): a malformed update keeps the last good row and says so", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  await api.execute([upsertServer(server("one"))]);
  await using followed = new Followed(fake);
  await followed.until(() => followed.rows.has("one"));
  await api.execute([["UPDATE servers SET wireguard_pubkey = '; rm -rf /' WHERE id = 'one'", []]]);
  await followed.until(() => followed.logger.lines.some((line) => line.message === "row skipped"));
  assert.equal(followed.rows.get("one")?.wireguardPubkey, server("one").wireguardPubkey);
});

Deno.test("followTable(): rows that do not parse are counted, logged once, and forgotten when mended", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  const hostile = `x'; rm -rf / ${"\n"}${"-".repeat(500)}`;
  await api.execute([
    upsertServer(server("one")),
    upsertServer(server("two")),
    ["UPDATE servers SET subnet = '../../etc' WHERE id = 'two'", []],
    ["INSERT INTO servers (id, hostname) VALUES (?, ?)", [hostile, "h".repeat(1_000_000)]],
  ]);
  await using followed = new Followed(fake);
  await followed.until(() => followed.refused.size === 2);
  assert.deepEqual([...followed.rows.keys()], ["one"]);
  assert.ok(
    [...followed.refused].every(([key, reason]) => key.length <= 80 && reason.length < 300),
  );
  await api.execute([["UPDATE servers SET last_seen = 7 WHERE id = 'two'", []]]);
  await api.execute([["UPDATE servers SET last_seen = 9 WHERE id = 'one'", []]]);
  await followed.until(() => followed.rows.get("one")?.lastSeenMs === 9);
  const told = followed.logger.lines.filter((line) => line.message === "row skipped");
  assert.equal(told.length, 2);
  await api.execute([upsertServer(server("two")), ["DELETE FROM servers WHERE id = ?", [hostile]]]);
  await followed.until(() => followed.rows.has("two") && followed.refused.size === 0);
});

Deno.test("followTable(): a row too long to be read costs no other row", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  const huge = "h".repeat(5_000_000);
  await api.execute([
    upsertServer(server("one")),
    ["INSERT INTO servers (id, hostname) VALUES ('huge', ?)", [huge]],
    upsertServer(server("two")),
  ]);
  await using followed = new Followed(fake);
  await followed.until(() => followed.rows.size === 2);
  assert.deepEqual([...followed.refused.keys()], ["(overlong)"]);
  assert.equal((await api.query(["SELECT id, hostname FROM servers", []])).length, 2);
  await api.execute([["UPDATE servers SET last_seen = 9 WHERE id = 'one'", []]]);
  await followed.until(() => followed.rows.get("one")?.lastSeenMs === 9);
});
