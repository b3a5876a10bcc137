import assert from "node:assert/strict";
import { HealthGateError } from "@jiji/core";
import { renderPlanSteps, renderPlanSummary } from "../src/lib/output/deployment_plan_text.ts";
import { deployOnce, type DeployRun, resultsOf } from "./deployment_fixture.ts";
import { MockCluster } from "./mock_server_state.ts";
import { KillSwitch } from "./mocks.ts";

/** A proxied service of several instances. */
function web(version: string, scale: number, more = ""): DeployRun {
  return {
    services: `
  web:
    image: "web:${version}"
    hosts: [s1, s2]
    ports: [3000]
    scale: ${scale}
    proxy: {app_port: 3000, host: shop.example.com}
    ${more}
`,
  };
}

/** Containers of the service on a server, and where its route leads. */
function there(cluster: MockCluster, name: string): { containers: string[]; routed: string[] } {
  const state = cluster.server(name);
  const own = state.containers.filter((one) => one.labels["jiji.service"] === "web");
  const names = new Map(own.map((one) => [`${one.address}:3000`, one.name]));
  return {
    containers: own.map((one) => `${one.name} ${one.labels["jiji.instance"]} ${one.image}`).sort(),
    routed: (state.routes.get("shop-web-3000") ?? []).map((target) => names.get(target) ?? target),
  };
}

const expected = (server: string, version: string, scale: number) => {
  const numbers = Array.from({ length: scale }, (_, index) => index === 0 ? "" : `-${index + 1}`);
  return {
    containers: numbers.map((number) => `shop-web${number} ${server}${number} web:${version}`),
    routed: numbers.map((number) => `shop-web${number}`),
  };
};

Deno.test("scale: up and down touches only the instances that come or go", async (t) => {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, web("1", 2));
  assert.deepEqual(there(cluster, "s1"), expected("s1", "1", 2));
  const ids = cluster.server("s1").containers.map((one) => one.id);
  const up = await deployOnce(cluster, web("1", 3));
  await t.assertSnapshot(renderPlanSummary(up.plan).join("\n"));
  await t.assertSnapshot(renderPlanSteps(up.plan).join("\n"));
  assert.deepEqual(there(cluster, "s2"), expected("s2", "1", 3));
  assert(ids.every((id) => cluster.server("s1").find(id)), "the others stayed");
  const down = await deployOnce(cluster, web("1", 1));
  await t.assertSnapshot(renderPlanSteps(down.plan).join("\n"));
  assert.deepEqual(there(cluster, "s1"), expected("s1", "1", 1));
  const idle = await deployOnce(cluster, web("1", 1));
  assert.deepEqual(renderPlanSteps(idle.plan), []);
});

Deno.test("scale: one broken instance of three is replaced alone", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, web("1", 3));
  cluster.mayBeDown = true;
  Object.assign(cluster.server("s1").find("shop-web-2")!, { running: false, exitCode: 1 });
  const result = await deployOnce(cluster, web("1", 3));
  assert.deepEqual(renderPlanSummary(result.plan), [
    "  web  s1  replace  shop-web-2: container is exited",
    "  web  s2  as is",
  ]);
  assert.deepEqual(there(cluster, "s1"), expected("s1", "1", 3));
});

Deno.test("scale: an unhealthy version puts every instance back", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, web("1", 3));
  const result = await deployOnce(cluster, web("unhealthy-2", 2));
  assert(result.outcomes.every(({ error }) => error instanceof HealthGateError));
  for (const server of ["s1", "s2"]) {
    assert.deepEqual(there(cluster, server), expected(server, "1", 3));
  }
});

Deno.test("scale: killed at any step between scales and versions, the next run finishes", async () => {
  const changes = [["1", 1, "2", 3], ["1", 3, "2", 1], ["1", 1, "1", 2], ["1", 3, "1", 2]] as const;
  for (const [from, before, to, after] of changes) {
    for (const when of ["before", "after"] as const) {
      for (let at = 1, reached = true; reached; at++) {
        using cluster = new MockCluster(["s1", "s2"]);
        await deployOnce(cluster, web(from, before));
        const kill = new KillSwitch(at, when);
        await deployOnce(cluster, { ...web(to, after), kill }).catch(() => undefined);
        reached = kill.commands >= at;
        await deployOnce(cluster, web(to, after));
        const place = `${before} to ${after}, killed ${when} ${at}`;
        for (const server of ["s1", "s2"]) {
          assert.deepEqual(there(cluster, server), expected(server, to, after), place);
        }
        const idle = await deployOnce(cluster, web(to, after));
        assert.deepEqual(renderPlanSteps(idle.plan), [], place);
      }
    }
  }
});

Deno.test("hosts: a service leaves a server that is no longer among its hosts, after the others", async (t) => {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, web("1", 2));
  cluster.mayBeDown = true;
  const run = web("1", 2);
  const moved = { ...run, services: run.services.replace("[s1, s2]", "[s1]") };
  const result = await deployOnce(cluster, moved);
  await t.assertSnapshot(renderPlanSteps(result.plan).join("\n"));
  assert.deepEqual(resultsOf(result), { "web@s1": "as is", "web@s2": "done" });
  assert.deepEqual(there(cluster, "s1"), expected("s1", "1", 2));
  assert.deepEqual(there(cluster, "s2"), { containers: [], routed: [] });
});

const released = (cluster: MockCluster) =>
  [...cluster.servers.values()].flatMap((state) =>
    state.released.map((word) => `${state.name} ${word}`)
  );

Deno.test("release command: once, in the new image, before anything is replaced", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  const run = (version: string) => web(version, 1, 'release_command: ["bin/migrate", "--all"]');
  const first = await deployOnce(cluster, run("1"));
  assert.deepEqual(released(cluster), ["s1 --all"]);
  const commands = first.hosts.get("s1")!.commands;
  const at = (part: string) => commands.findIndex((command) => command.includes(part));
  assert(at("run_release") > 0 && at("run_release") < at("run --detach --name shop-web"));
  await deployOnce(cluster, run("1"));
  cluster.mayBeDown = true;
  Object.assign(cluster.server("s2").find("shop-web")!, { running: false, exitCode: 1 });
  await deployOnce(cluster, run("1"));
  assert.equal(released(cluster).length, 1, "a broken container is no new release");
  await deployOnce(cluster, run("2"));
  assert.equal(released(cluster).length, 2);
  await deployOnce(cluster, { ...run("1"), release: false });
  assert.equal(released(cluster).length, 2, "a rollback runs none");
});

Deno.test("release command: its failure stops the deploy and says what it wrote", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  const run = (version: string) => web(version, 1, "release_command: bin/migrate");
  await deployOnce(cluster, run("1"));
  for (const onFailure of ["rollback", "keep"] as const) {
    const result = await deployOnce(cluster, { ...run("unmigratable-2"), onFailure });
    assert.deepEqual(resultsOf(result), { "web@s1": "failed", "web@s2": "not tried" });
    const { error, serving } = result.outcomes[0]!;
    assert.match(
      (error as Error).message,
      /release command of shop-web ended with code 3[\s\S]*table is locked/,
    );
    assert.equal(serving, "1");
    assert.deepEqual(there(cluster, "s1"), expected("s1", "1", 1));
  }
});

Deno.test("canary: goes first alone, and its failure leaves the others untouched", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  const canary = ["s2"];
  await deployOnce(cluster, { ...web("1", 1), canary });
  const good = await deployOnce(cluster, { ...web("2", 1), canary });
  const order = good.events.flatMap((event) =>
    event.kind === "finished" && event.detail === "switched" ? [event.lane] : []
  );
  assert.deepEqual(order, ["s2 web", "s1 web"]);
  assert(
    good.events.some((event) => event.kind === "notice" && /watched for 10 s/.test(event.message)),
  );
  for (const onFailure of ["rollback", "keep"] as const) {
    const bad = await deployOnce(cluster, { ...web("unhealthy-3", 1), canary, onFailure });
    assert.deepEqual(resultsOf(bad), { "web@s1": "not tried", "web@s2": "failed" });
    assert(!bad.hosts.get("s1")!.commands.some((command) => command.includes("--name shop-web")));
    assert.deepEqual(there(cluster, "s2"), expected("s2", "2", 1));
  }
});
