import assert from "node:assert/strict";
import { type ContainerRow, deleteContainer, type Statement } from "@jiji/core/corrosion";
import { COLLECT_AFTER_MS, planCollection } from "../src/state/garbage_collector.ts";
import { judgePartition } from "../src/state/split_brain.ts";
import {
  judgeReplication,
  parseDiskSpace,
  parseMembers,
  reasonApart,
  REPLICATION_UNSEEN,
} from "../src/state/corrosion_health.ts";
import {
  heartbeatEveryMs,
  heartbeatLateMs,
  ownRow,
  planHeartbeat,
} from "../src/state/corrosion_client.ts";
import { judgeService, SERVICE_UNSEEN } from "../src/state/service_health.ts";
import { rowOf } from "../src/engine/container_registry.ts";
import { CollectionDuty } from "../src/duties/collection.ts";
import { container, peerSeed, serverConfig, serverRow, setUp } from "./builders.ts";

function rowOn(serverId: string): ContainerRow {
  const row = rowOf(container(1), { serverId, health: undefined });
  assert.ok(row);
  return row;
}

Deno.test("judgePartition(): half or less is cut off, also of two", () => {
  const members = ["s1", "s2", "s3", "s4"];
  const judge = (count: number, ...silent: string[]) =>
    judgePartition({ members: members.slice(0, count), self: "s1", silent: new Set(silent) })
      .partitioned;
  assert.equal(judge(1), false);
  assert.equal(judge(2), false);
  assert.equal(judge(2, "s2"), true);
  assert.equal(judge(3, "s3"), false);
  assert.equal(judge(4, "s3", "s4"), true);
});

const REMOVED = serverRow(3, { removedAtMs: 0 });

function plan(facts: { self?: string; silent?: string[]; nowMs?: number }) {
  return planCollection({
    self: facts.self ?? "s1",
    members: ["s1", "s2"],
    servers: [serverRow(1), serverRow(2), REMOVED],
    containers: [rowOn("s1"), rowOn("s2"), rowOn("s3"), rowOn("unknown")],
    silent: new Set(facts.silent),
    nowMs: facts.nowMs ?? COLLECT_AFTER_MS,
  });
}

Deno.test("planCollection(): only rows of servers removed a while ago", () => {
  assert.deepEqual(plan({}).deletes.map((one) => one.serverId), ["s3"]);
  assert.deepEqual(plan({ nowMs: COLLECT_AFTER_MS - 1 }).deletes, []);
});

Deno.test("CollectionDuty: a daemon that has just started waits until it knows who is silent", async () => {
  const executed: Statement[] = [];
  const execute = (statements: readonly Statement[]) => {
    executed.push(...statements);
    return Promise.resolve();
  };
  const { context, clock } = setUp({ api: { execute, query: () => Promise.resolve([]) } });
  context.facts.peers = [peerSeed(2)];
  for (const row of [serverRow(1), serverRow(2), REMOVED]) context.view.servers.set(row.id, row);
  const left = rowOn("s3");
  context.view.containers.set(left.id, left);
  context.view.filled.servers = context.view.filled.containers = true;
  const duty = new CollectionDuty(context);
  await duty.run();
  assert.deepEqual(executed, []);
  context.facts.silent = new Set(["s2"]);
  await clock.advance(60_000);
  await duty.run();
  assert.deepEqual(executed, [], "it is cut off");
  context.facts.silent = new Set();
  await duty.run();
  assert.deepEqual(executed, [deleteContainer(left.id, "s3")]);
});

Deno.test("planCollection(): one server collects, and none that may be cut off", () => {
  assert.deepEqual(plan({ self: "s2" }).deletes, []);
  assert.deepEqual(plan({ silent: ["s2"] }).deletes, []);
  assert.match(plan({ silent: ["s2"] }).reason, /1 of 2/);
});

Deno.test("judgeService(): restarts after some silence, then ever more rarely", () => {
  const silentMs = 30_000;
  let state = SERVICE_UNSEEN;
  const restarts: number[] = [];
  for (let nowMs = 0; nowMs <= 600_000; nowMs += 10_000) {
    const judged = judgeService(state, { answers: false, nowMs, silentMs });
    state = judged.state;
    if (judged.restart) restarts.push(nowMs / 1_000);
  }
  assert.deepEqual(restarts, [30, 60, 120, 240, 480]);
  assert.deepEqual(
    judgeService(state, { answers: true, nowMs: 0, silentMs }).state,
    SERVICE_UNSEEN,
  );
});

Deno.test("planHeartbeat(): the whole row when it differs, else the time, nothing when removed", () => {
  const wanted = ownRow(serverConfig(1), { hostname: "host1", nowMs: 9 });
  const present = { ...wanted, lastSeenMs: 1, removedAtMs: null };
  const first = planHeartbeat(wanted, undefined);
  assert.ok(first.kind === "write" && first.statement[0].startsWith("INSERT"));
  const beat = planHeartbeat(wanted, present);
  assert.ok(beat.kind === "beat" && beat.statement[0].startsWith("UPDATE"));
  const changed = planHeartbeat(wanted, { ...present, endpoints: [] });
  assert.ok(changed.kind === "write" && changed.statement[0].startsWith("INSERT"));
  assert.equal(planHeartbeat(wanted, { ...present, removedAtMs: 1 }).kind, "standDown");
});

Deno.test("ownRow(): a host name with odd characters is made fit", () => {
  const row = ownRow(serverConfig(1), { hostname: "a b'; --", nowMs: 0 });
  assert.equal(row.hostname, "a-b-----");
});

Deno.test("heartbeatEveryMs(): heartbeats of the whole cluster stay few", () => {
  assert.deepEqual([1, 3, 50, 100, 500].map(heartbeatEveryMs), [
    10_000,
    10_000,
    10_000,
    20_000,
    100_000,
  ]);
  assert.equal(heartbeatLateMs(3), 60_000);
});

Deno.test("reasonApart(): alone, or behind all others; never for others' troubles", () => {
  const sight = { members: ["fdcc::2"], missingVersions: 0, answering: ["s2", "s3"], late: [] };
  assert.equal(reasonApart(sight), undefined);
  assert.equal(reasonApart({ ...sight, late: ["s2"] }), undefined);
  assert.match(reasonApart({ ...sight, late: ["s2", "s3"] }) ?? "", /no heartbeat of s2, s3/);
  assert.match(reasonApart({ ...sight, members: [] }) ?? "", /no other member/);
  assert.equal(reasonApart({ ...sight, members: undefined }), undefined);
  assert.equal(reasonApart({ ...sight, members: [], answering: [], late: [] }), undefined);
});

Deno.test("judgeReplication(): joins anew after a minute, then restarts, ever more rarely", () => {
  let state = REPLICATION_UNSEEN;
  const done: string[] = [];
  for (let nowMs = 0; nowMs <= 900_000; nowMs += 30_000) {
    const judged = judgeReplication(state, { reason: "alone", nowMs });
    state = judged.state;
    if (judged.remedy) done.push(`${nowMs / 1_000} ${judged.remedy}`);
  }
  assert.deepEqual(done, ["60 rejoin", "120 restart", "240 rejoin", "480 restart"]);
  assert.deepEqual(judgeReplication(state, { reason: undefined, nowMs: 0 }), {
    state: REPLICATION_UNSEEN,
    remedy: undefined,
  });
});

Deno.test("parseMembers(), parseDiskSpace(): what the programs print, and nothing else", () => {
  const text = `{\n  "id": "0913",\n  "state": {\n    "addr": "[fdcc:1::2]:31280",\n  }\n}\n`;
  assert.deepEqual(parseMembers(text + text.replace("::2", "::3")), ["fdcc:1::2", "fdcc:1::3"]);
  assert.deepEqual(parseMembers("error"), []);
  assert.deepEqual(parseDiskSpace("     Avail  1B-blocks\n 1000 2000\n"), {
    freeBytes: 1000,
    totalBytes: 2000,
  });
  assert.equal(parseDiskSpace("df: no such file"), undefined);
});
