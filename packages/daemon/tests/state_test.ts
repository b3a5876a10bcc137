import assert from "node:assert/strict";
import {
  parseQueryResult,
  parseStaleRows,
  parseStateStats,
  SERVER_PATHS,
} from "@jiji/core/cluster";
import {
  corrosionHttpApi,
  upsertContainer,
  upsertServer,
  upsertService,
} from "@jiji/core/corrosion";
import { Secret, UsageError } from "@jiji/core/runtime";
import { FakeCorrosion, FakeProcess, SimClock } from "@jiji/core/testing";
import { collectStale, collectStats, QUERY_ROWS_MAX, queryState } from "../src/commands/state.ts";
import { rowOf } from "../src/engine/container_registry.ts";
import { planStale, type StaleInput } from "../src/state/stale_rows.ts";
import { container, FakeFiles, serverConfig, serverRow } from "./builders.ts";

const NOW_MS = 10_000_000;

function stale(facts: Partial<StaleInput> = {}) {
  const of = (index: number, serverId: unknown, unhealthySinceMs: unknown = null) => ({
    id: `${index}`.repeat(12),
    name: "casa-web",
    serverId,
    unhealthySinceMs,
    refused: undefined,
  });
  return planStale({
    self: "s1",
    servers: [
      serverRow(1, { lastSeenMs: NOW_MS }),
      serverRow(2, { lastSeenMs: NOW_MS - 300_000 }),
      serverRow(3, { lastSeenMs: NOW_MS - 700_000 }),
      serverRow(4, { removedAtMs: 1 }),
      serverRow(5, { lastSeenMs: NOW_MS }),
      serverRow(6, { lastSeenMs: NOW_MS }),
    ],
    malformedServers: [],
    containers: [
      of(1, "s1", 1),
      of(2, "s2"),
      of(3, "s2", NOW_MS - 200_000),
      of(4, "s3"),
      of(5, "s4"),
      of(6, "nobody"),
    ],
    services: [
      { project: "casa", name: "web", serverId: "s1" },
      { project: "casa", name: "web", serverId: "s4" },
    ],
    silent: new Set(["s2", "s3"]),
    nowMs: NOW_MS,
    staleMs: 180_000,
    offlineMs: 600_000,
    ...facts,
  });
}

Deno.test("planStale(): only what nobody keeps, each with its reason", () => {
  const { rows, refusal } = stale();
  assert.equal(refusal, undefined);
  assert.deepEqual(rows.map((row) => `${row.table} ${row.server}: ${row.reason}`), [
    "containers nobody: its server is unknown",
    "containers s2: unhealthy for 200 s, and its server is silent",
    "containers s3: its server was last seen 700 s ago",
    "containers s4: its server was removed",
    "services s4: its server was removed",
  ]);
});

Deno.test("planStale(): refuses while it may be cut off; malformed rows show as text only", () => {
  assert.match(stale({ silent: new Set(["s2", "s3", "s5", "s6"]) }).refusal ?? "", /1 of 5/);
  const [row] = stale({
    containers: [{
      id: "x'; DROP TABLE servers; --",
      name: "\u001b[2J\n",
      serverId: 7,
      unhealthySinceMs: "soon",
      refused: "cell 0",
    }],
  }).rows;
  assert.equal(row?.reason, "malformed: cell 0");
  assert.ok(/^[\x20-\x7e]*$/.test(`${row?.row}${row?.server}`));
  assert.equal(row?.statement[0], "DELETE FROM containers WHERE id = ?");
});

Deno.test("queryState(): a statement that does not end is the asker's fault, not the server's", async () => {
  const columns = new TextEncoder().encode('{"columns":["count"]}\n');
  const endless = () =>
    new Response(new ReadableStream({ start: (stream) => stream.enqueue(columns) }));
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, endless);
  const address = { url: `http://127.0.0.1:${server.addr.port}`, token: new Secret("t") };
  await assert.rejects(queryState("SELECT 1", address, { timeoutMs: 50 }), (error) => {
    assert(error instanceof UsageError);
    assert.match(error.message, /takes longer than 0.05 s/);
    return true;
  });
  await server.shutdown();
});

Deno.test("queryState(): reads, and refuses everything else", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  await api.execute([upsertServer(serverRow(1))]);
  const found = await queryState("  select id, 1 AS one FROM servers", fake.address);
  assert.deepEqual(found, { columns: ["id", "one"], rows: [["s1", 1]], cut: false });
  assert.deepEqual(parseQueryResult(JSON.stringify(found)), found);
  for (const sql of ["DELETE FROM servers", "ATTACH '/x' AS y", "PRAGMA x", ";", "-- select"]) {
    await assert.rejects(queryState(sql, fake.address), /only a statement that reads/);
  }
  await assert.rejects(queryState("SELECT nothing FROM nowhere", fake.address), {
    code: "usage",
  });
  const many = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000)
    SELECT i FROM n`;
  const cut = await queryState(many, fake.address);
  assert.deepEqual([cut.rows.length, cut.cut], [QUERY_ROWS_MAX, true]);
});

Deno.test("collectStats(): what another build of Corrosion does not tell is null", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  await api.execute([upsertServer(serverRow(1))]);
  const process = new FakeProcess()
    .on("/opt/jiji/bin/corrosion --version", "klukai 0.1.4\n")
    .on("/opt/jiji/bin/corrosion -c", () => ({ exitCode: 1, stderr: "no socket" }));
  const found = await collectStats({ config: serverConfig(1), api, process });
  assert.deepEqual(found.rows, { cluster_metadata: 0, containers: 0, servers: 1, services: 0 });
  assert.equal(found.corrosion, "klukai 0.1.4");
  assert.deepEqual([found.members, found.heads, found.missing_versions], [null, null, null]);
  assert.deepEqual(parseStateStats(JSON.stringify(found)), found);
});

Deno.test("collectStale(): shows, removes when told, and refuses without a liveness report", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  const row = rowOf(container(1), { serverId: "s3", health: undefined });
  assert.ok(row);
  await api.execute([
    upsertServer(serverRow(1)),
    upsertContainer(row),
    upsertService(row, "s3"),
    ["INSERT INTO containers (id) VALUES ('../../etc/passwd')", []],
    ["INSERT INTO servers (id) VALUES ('$(reboot)')", []],
  ]);
  const files = new FakeFiles();
  const clock = new SimClock();
  const options = { config: serverConfig(1), api, files, clock, staleMs: 1, offlineMs: 1 };
  const blind = await collectStale({ ...options, force: true });
  assert.match(blind.refusal ?? "", /jiji-daemon does not run/);
  assert.equal(blind.removed, false);
  files.texts.set(
    SERVER_PATHS.liveness,
    JSON.stringify({ format: 1, written_at_ms: clock.nowMs(), silent: [], rtt_ms: {} }),
  );
  const shown = await collectStale({ ...options, force: false });
  assert.deepEqual([shown.rows.length, shown.removed], [4, false]);
  assert.deepEqual(parseStaleRows(JSON.stringify(shown)), shown);
  assert.equal((await collectStale({ ...options, force: true })).removed, true);
  assert.deepEqual((await collectStale({ ...options, force: true })).rows, []);
});
