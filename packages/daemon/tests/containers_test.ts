import assert from "node:assert/strict";
import { LABELS } from "@jiji/core/cluster";
import type { ContainerRow } from "@jiji/core/corrosion";
import {
  advanceHealth,
  believeRow,
  FAILURES_UNHEALTHY,
  type HealthState,
  initialHealth,
} from "../src/engine/container_health.ts";
import { planRegistry, registryTransactions, rowOf } from "../src/engine/container_registry.ts";
import {
  argvEvents,
  argvExecShell,
  argvInspect,
  argvListIds,
  argvLogsTail,
} from "../src/engine/argv.ts";
import { applyEvents, isTelling, parseEvent } from "../src/engine/container_events.ts";
import { parseIds, parseInspected } from "../src/engine/containers.ts";
import { container } from "./builders.ts";

const INSPECTED = {
  Id: "c".repeat(64),
  Name: "/casa-web",
  Created: "2026-11-23T01:00:00.123456789Z",
  RestartCount: 0,
  State: {
    Running: true,
    ExitCode: 0,
    OOMKilled: false,
    StartedAt: "2026-11-23T01:00:01.5+01:00",
    Health: { Status: "starting" },
  },
  Config: { Labels: { [LABELS.project]: "casa", [LABELS.service]: "web" } },
  NetworkSettings: { Networks: { "jiji-net": { IPAddress: "10.210.1.4" }, bridge: null } },
};

Deno.test("argv: the engine's commands, word for word", () => {
  assert.deepEqual(
    argvListIds("docker").join(" "),
    "docker ps -a -q --no-trunc --filter label=jiji.project",
  );
  assert.deepEqual(
    argvInspect("podman", ["a", "b"]).join(" "),
    "podman inspect --type container a b",
  );
  assert.deepEqual(argvEvents("docker"), [
    "docker",
    "events",
    "--filter",
    "type=container",
    "--format",
    "{{json .}}",
  ]);
  assert.equal(argvEvents("podman").at(-1), "json");
  assert.deepEqual(argvExecShell("docker", { id: "a", command: "test -f /x; y" }), [
    "docker",
    "exec",
    "a",
    "/bin/sh",
    "-c",
    "test -f /x; y",
  ]);
  assert.deepEqual(
    argvLogsTail("docker", { id: "a", lines: 3 }).join(" "),
    "docker logs --tail 3 a",
  );
});

Deno.test("parseInspected(): reads a container of either engine", () => {
  const [one] = parseInspected(JSON.stringify([INSPECTED]));
  assert.equal(one?.name, "casa-web");
  assert.equal(one?.ip, "10.210.1.4");
  assert.equal(one?.createdAtMs, Date.parse("2026-11-23T01:00:00.123Z"));
  assert.equal(one?.startedAtMs, Date.parse("2026-11-23T00:00:01.5Z"));
  assert.equal(one?.engineHealth, "starting");
  const { Health: _, ...state } = INSPECTED.State;
  const podman = { ...INSPECTED, State: { ...state, Healthcheck: { Status: "healthy" } } };
  assert.equal(parseInspected(JSON.stringify([podman]))[0]?.engineHealth, "healthy");
});

Deno.test("parseInspected(): leaves hostile or foreign values out and keeps the rest", () => {
  const hostile = [
    { ...INSPECTED, Id: "$(reboot)" },
    { ...INSPECTED, State: { Running: "yes" } },
    17,
    { ...INSPECTED, NetworkSettings: { Networks: { "jiji-net": { IPAddress: "10.1; rm" } } } },
    INSPECTED,
  ];
  const found = parseInspected(JSON.stringify(hostile));
  assert.deepEqual(found.map((one) => one.ip), [undefined, "10.210.1.4"]);
  assert.throws(() => parseInspected("not json"));
});

Deno.test("parseEvent(): docker's and podman's events mean the same", () => {
  const docker = parseEvent('{"Type":"container","Action":"die","Actor":{"ID":"abc"}}');
  const podman = parseEvent('{"ID":"abc","Status":"died","Type":"container"}');
  assert.deepEqual(docker, { id: "abc", action: "die" });
  assert.deepEqual(podman, docker);
  assert.ok(docker && isTelling(docker));
  assert.ok(!isTelling({ id: "abc", action: "exec_create: /bin/sh" }));
  assert.equal(parseEvent("garbage"), undefined);
  assert.deepEqual(parseIds(`${"a".repeat(64)}\n\nx;y\n`), ["a".repeat(64)]);
});

Deno.test("applyEvents(): what an event says needs no question, everything else does", () => {
  const [one, two, three] = [container(1), container(2), container(3)];
  const { containers, look } = applyEvents([one, two, three], [
    { id: one.id, action: "kill", signal: "15" },
    { id: one.id, action: "die" },
    { id: two.id, action: "rename", name: "casa-web_old_7" },
    { id: three.id, action: "kill", signal: "SIGHUP" },
    { id: three.id, action: "die" },
    { id: three.id, action: "start" },
    { id: "fresh", action: "start" },
    { id: "brief", action: "start" },
    { id: "brief", action: "destroy" },
  ]);
  const facts = containers.map((each) => [each.name, each.running, each.isEnding ?? false]);
  assert.deepEqual(facts, [
    [one.name, false, true],
    ["casa-web_old_7", true, false],
    [three.name, false, false],
  ]);
  assert.deepEqual(look, [three.id, "fresh"]);
  assert.deepEqual(applyEvents([one], [{ id: one.id, action: "destroy" }]).containers, []);
  // Podman does not tell the new name.
  assert.deepEqual(applyEvents([one], [{ id: one.id, action: "rename" }]).look, [one.id]);
});

const CHECK = { kind: "tcp", port: 1, interval_ms: 5_000, timeout_ms: 500 } as const;
const GOOD = { ok: true, text: "open" };
const BAD = { ok: false, text: "refused" };

Deno.test("advanceHealth(): starting until the first success, checked often", () => {
  let state = initialHealth(0);
  for (let nowMs = 0; nowMs < 5; nowMs++) {
    state = advanceHealth(state, BAD, { nowMs, wallMs: nowMs, check: CHECK });
    assert.equal(state.status, "starting");
    assert.ok(state.nextCheckAtMs - nowMs <= 1_000);
  }
  state = advanceHealth(state, GOOD, { nowMs: 10, wallMs: 10, check: CHECK });
  assert.equal(state.status, "healthy");
  assert.equal(state.nextCheckAtMs, 5_010);
});

Deno.test("advanceHealth(): one failure degrades, three make unhealthy, one success heals", () => {
  let state = advanceHealth(initialHealth(0), GOOD, { nowMs: 0, wallMs: 0, check: CHECK });
  const seen: string[] = [];
  for (let failure = 1; failure <= FAILURES_UNHEALTHY + 1; failure++) {
    state = advanceHealth(state, BAD, { nowMs: failure, wallMs: 100 + failure, check: CHECK });
    seen.push(state.status);
  }
  assert.deepEqual(seen, ["degraded", "degraded", "unhealthy", "unhealthy"]);
  assert.equal(state.unhealthySinceMs, 103, "since the third failure, by the wall clock");
  state = advanceHealth(state, GOOD, { nowMs: 9, wallMs: 9, check: CHECK });
  assert.equal(state.status, "healthy");
  assert.equal(state.unhealthySinceMs, null);
});

Deno.test("believeRow(): what a daemon finds at its start is as its row says, until a check passes", () => {
  const row = { health: "healthy", unhealthySinceMs: null } as const;
  const bad = (state: HealthState) =>
    advanceHealth(state, BAD, { nowMs: 1, wallMs: 1, check: CHECK });
  const found = initialHealth(0, { wasThere: true });
  assert.equal(believeRow(found, row).status, "healthy");
  assert.equal(believeRow(bad(found), row).status, "healthy", "a check failed before the row came");
  assert.equal(bad(believeRow(bad(found), row)).status, "degraded");
  assert.equal(believeRow(found, undefined).status, "starting");
  assert.equal(believeRow(initialHealth(0), row).status, "starting", "it was restarted since");
  const unhealthy = { health: "unhealthy", unhealthySinceMs: 7 } as const;
  assert.equal(bad(believeRow(found, unhealthy)).unhealthySinceMs, 7);
  const good = advanceHealth(found, GOOD, { nowMs: 1, wallMs: 1, check: CHECK });
  assert.equal(believeRow(good, unhealthy).status, "healthy", "a check knows better");
});

function rows(...containers: ReturnType<typeof container>[]): ContainerRow[] {
  return containers.map((one) => rowOf(one, { serverId: "s1", health: undefined }))
    .filter((row) => row !== undefined);
}

Deno.test("rowOf(): only running jiji containers with an address have a row", () => {
  assert.equal(rows(container(1)).length, 1);
  assert.deepEqual(rows(container(1, { running: false })), []);
  assert.deepEqual(rows({ ...container(1), ip: undefined }), []);
  assert.deepEqual(rows({ ...container(1), labels: undefined }), []);
});

Deno.test("planRegistry(): writes on change only and removes only its own rows", () => {
  const wanted = rows(container(1), container(2));
  const present = [
    ...rows(container(2)),
    ...rows(container(3)),
    ...rows(container(4)).map((row) => ({ ...row, serverId: "s2" })),
  ];
  const plan = planRegistry(wanted, present, "s1");
  assert.deepEqual(plan.upserts.map((row) => row.id), [container(1).id]);
  assert.deepEqual(plan.deletes, [container(3).id]);
  const after = planRegistry(wanted, wanted, "s1");
  assert.deepEqual(registryTransactions(after, "s1"), []);
});

Deno.test("registryTransactions(): large changes go in several transactions", () => {
  const plan = { upserts: [], deletes: Array.from({ length: 250 }, (_, index) => `${index}`) };
  assert.deepEqual(registryTransactions(plan, "s1").map((one) => one.length), [100, 100, 50]);
});
