import assert from "node:assert/strict";
import { parseDaemonReport } from "@jiji/core/cluster";
import { SCHEMA_VERSION } from "@jiji/core/corrosion";
import { VERSION } from "@jiji/core/runtime";
import { clusterSchema, makeReport, type ReportSources } from "../src/daemon_report.ts";
import { renderMetrics } from "../src/metrics.ts";
import { serverRow } from "./builders.ts";

function sources(facts: Partial<ReportSources> = {}): ReportSources {
  const mine = { version: VERSION, schema: SCHEMA_VERSION };
  const rows = [1, 2, 3].map((index) => serverRow(index, { doc: mine }));
  return {
    self: "s1",
    startedAtMs: 5_000,
    view: {
      servers: new Map(rows.map((row) => [row.id, row])),
      refused: { servers: new Map(), containers: new Map() },
      heard: new Map(),
    },
    peers: ["s2", "s3"],
    conflicts: [],
    silent: new Set(),
    standsDown: false,
    corrosion: {
      answers: true,
      restarts: 0,
      rejoins: 0,
      sight: undefined,
      freeBytes: undefined,
      problems: [],
    },
    duties: new Map([["health", {
      runs: 3,
      failures: 1,
      totalMs: 1_500,
      lastMs: 2,
      error: 'no "wg"\n',
    }]]),
    ...facts,
  };
}

Deno.test("makeReport(): nothing to tell when all is well, and it parses", () => {
  const report = makeReport(sources());
  assert.deepEqual(report.notices, []);
  assert.equal(report.partition.reason, "3 of 3 servers answer");
  assert.deepEqual(parseDaemonReport(JSON.stringify(report)), report);
});

Deno.test("makeReport(): says what an operator should know", () => {
  const view = sources().view;
  const old = serverRow(2, { doc: { version: "0.0.1", schema: 0 } });
  const report = makeReport(sources({
    view: {
      servers: new Map([...view.servers, ["s2", old]]),
      refused: { servers: new Map(), containers: new Map([["x'; \n--", "cell 0"]]) },
      heard: new Map([["s3", { atMs: 0, clockAheadMs: -600_000 }]]),
    },
    silent: new Set(["s2", "s3"]),
    conflicts: ["s4", "s5", "s6", "s7"].map((serverId) => ({
      serverId,
      reason: "has the key of s2",
    })),
    standsDown: true,
  }));
  assert.equal(report.cluster_schema, 0);
  assert.deepEqual(report.notices.map((notice) => notice.split(":")[0]), [
    "this server was removed from the cluster",
    "it may be cut off (1 of 3 servers answer)",
    "1 malformed row in containers passed over",
    "not let into the mesh",
    "the clock of s3 is 600 s behind",
    "versions of jiji differ",
  ]);
  assert.ok(report.notices.every((notice) => !notice.includes("\n")));
  const refused = report.notices.find((notice) => notice.startsWith("not let into the mesh"));
  assert.match(refused ?? "", /: s4 \(has the key of s2\), .*s6 .*, 1 more\./);
});

Deno.test("clusterSchema(): the oldest member's counts", () => {
  const rows = [serverRow(1, { doc: { schema: 1 } }), serverRow(2, { doc: { schema: 0 } })];
  assert.equal(clusterSchema(rows), 0);
  assert.equal(clusterSchema([]), SCHEMA_VERSION);
});

Deno.test("renderMetrics(): Prometheus text, each family once, labels escaped", () => {
  const report = makeReport(sources());
  const text = renderMetrics({
    report,
    peers: ["s2", "s3"],
    liveness: {
      format: 1,
      written_at_ms: 0,
      silent: ["s3"],
      rtt_ms: { s2: 1.5 },
      loss: { s2: 0.25 },
    },
    links: [{ serverId: 's"2', handshakeAgeS: 12, rxBytes: 1, txBytes: 2 }],
    health: ["healthy", "healthy", "degraded"],
    rows: { servers: 3, containers: 1 },
  });
  const lines = text.trimEnd().split("\n");
  const form = /^(# (HELP|TYPE) jiji_daemon_\S+ .+|jiji_daemon_[a-z_]+(\{.*\})? -?[0-9.e+-]+)$/;
  assert.deepEqual(lines.filter((line) => !form.test(line)), []);
  const types = lines.filter((line) => line.startsWith("# TYPE")).map((line) => line.split(" ")[2]);
  assert.equal(new Set(types).size, types.length);
  for (
    const line of [
      'jiji_daemon_peers{state="silent"} 1',
      'jiji_daemon_link_rtt_seconds{server="s2"} 0.0015',
      'jiji_daemon_link_loss_ratio{server="s2"} 0.25',
      'jiji_daemon_link_handshake_age_seconds{server="s\\"2"} 12',
      'jiji_daemon_containers{health="healthy"} 2',
      'jiji_daemon_duty_failures_total{duty="health"} 1',
      'jiji_daemon_duty_seconds_total{duty="health"} 1.5',
      'jiji_daemon_malformed_rows{table="servers"} 0',
      "jiji_daemon_partitioned 0",
      "jiji_daemon_corrosion_up 1",
    ]
  ) assert.ok(lines.includes(line), line);
  assert.ok(!text.includes("corrosion_members"), "what is not known is not told");
});
