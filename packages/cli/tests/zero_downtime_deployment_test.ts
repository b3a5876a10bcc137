import assert from "node:assert/strict";
import { HealthGateError, JijiError, RemoteCommandError } from "@jiji/core";
import { isIdle } from "../src/lib/services/deployment_orchestrator.ts";
import { renderPlanSteps } from "../src/lib/output/deployment_plan_text.ts";
import { deployOnce, type DeployRun, resultsOf } from "./deployment_fixture.ts";
import { MockCluster } from "./mock_server_state.ts";
import { KillSwitch } from "./mocks.ts";

/** A proxied service on two servers, and one that nothing leads to on the second. */
const services = (version: string, jobs = version) => `
  web:
    image: "web:${version}"
    hosts: [s1, s2]
    ports: [3000]
    environment: {clear: {V: "${version}"}, secrets: [KEY]}
    proxy: {app_port: 3000, host: shop.example.com}
  jobs:
    image: "jobs:${jobs}"
    hosts: [s2]
`;
const SECRETS = { KEY: "s3cret-value" };

function run(version: string, more: Partial<DeployRun> = {}): DeployRun {
  return { services: services(version), secrets: SECRETS, ...more };
}

/** Names of containers on every server, sorted. */
function containersOf(cluster: MockCluster): string[] {
  return [...cluster.servers.values()].flatMap((state) =>
    state.containers.map((container) =>
      `${state.name} ${container.name} ${container.image} ${container.running ? "up" : "down"}`
    )
  ).sort();
}

const PROXY = "basecamp/kamal-proxy";
const settled = (version: string, jobs = version) => [
  `s1 shop-web web:${version} up`,
  `s2 shop-jobs jobs:${jobs} up`,
  `s2 shop-web web:${version} up`,
];
const ours = (cluster: MockCluster) =>
  containersOf(cluster).filter((text) => !text.includes(PROXY));

Deno.test("deploy: first install starts everything, the second run has nothing to do", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  const first = await deployOnce(cluster, run("1"));
  assert.deepEqual(resultsOf(first), { "jobs@s2": "done", "web@s1": "done", "web@s2": "done" });
  assert.deepEqual(ours(cluster), settled("1"));
  for (const name of ["s1", "s2"]) {
    const state = cluster.server(name);
    const web = state.find("shop-web")!;
    assert.deepEqual(state.routes.get("shop-web-3000"), [`${web.address}:3000`]);
    assert.equal(web.environment, "V=1\nKEY=s3cret-value\n");
    const left = [...state.files.keys()].filter((path) => path.endsWith(".env"));
    assert.deepEqual(left, [], "environment files are gone");
  }
  const second = await deployOnce(cluster, run("1"));
  assert(second.plan.services.every(({ instances }) => instances.every(isIdle)));
  assert.deepEqual(renderPlanSteps(second.plan), []);
  const forced = await deployOnce(cluster, run("1", { force: true }));
  assert.deepEqual(resultsOf(forced), { "jobs@s2": "done", "web@s1": "done", "web@s2": "done" });
});

Deno.test("deploy: replaces one after the other without a moment in which nothing serves", async () => {
  for (const engine of ["docker", "podman"] as const) {
    using cluster = new MockCluster(["s1", "s2"], engine);
    await deployOnce(cluster, run("1"));
    const before = cluster.server("s1").find("shop-web")!.address;
    const result = await deployOnce(cluster, run("2"));
    assert.deepEqual(ours(cluster), settled("2"));
    assert.notEqual(cluster.server("s1").find("shop-web")!.address, before);
    const { commands } = result.hosts.get("s1")!;
    const at = (part: string) => commands.findIndex((command) => command.includes(part));
    const gated = [
      "rename shop-web shop-web_old_",
      "run --detach --name shop-web",
      "jiji-daemon probe shop-web",
    ];
    const retired = ["stop --time 10 shop-web_old_", "rm --force --volumes shop-web_old_"];
    // Names and route follow side by side, between the gate and the end of the old container.
    for (const follows of ["kamal-proxy deploy shop-web-3000", "jiji-dns await"]) {
      const order = [...gated, follows, ...retired].map(at);
      assert(order.every((position) => position >= 0), commands.join("\n"));
      assert.deepEqual(order, order.toSorted((a, b) => a - b));
    }
  }
});

Deno.test("deploy: no secret in any command", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  const result = await deployOnce(cluster, run("1"));
  for (const host of result.hosts.values()) {
    assert(!host.commands.join("\n").includes("s3cret-value"));
  }
  assert(!JSON.stringify(result.plan).includes("s3cret-value"));
  assert(!JSON.stringify(result.events).includes("s3cret-value"));
});

Deno.test("deploy: an unhealthy version leaves the old one serving everywhere", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, run("1"));
  const routes = () => [...cluster.servers.values()].map((state) => [...state.routes]);
  const before = routes();
  const result = await deployOnce(cluster, run("unhealthy-2"));
  assert.deepEqual(ours(cluster), settled("1"));
  assert.deepEqual(routes(), before);
  assert.equal(resultsOf(result)["jobs@s2"], "not tried");
  const web = result.outcomes.filter(({ service }) => service === "web");
  assert(web.every(({ error }) => error instanceof HealthGateError));
  assert(web.every(({ serving }) => serving === "1"));
  assert.match((web[0]!.error as Error).message, /503[\s\S]*listening on :8080/);
});

Deno.test("deploy: one bad server puts back those that had switched, unless they are to be kept", async () => {
  for (const onFailure of ["rollback", "keep"] as const) {
    using cluster = new MockCluster(["s1", "s2"]);
    await deployOnce(cluster, run("1"));
    cluster.server("s2").proxyRefuses = true;
    const result = await deployOnce(cluster, run("2", { onFailure }));
    const kept = onFailure === "keep";
    assert.equal(resultsOf(result)["web@s1"], kept ? "done" : "put back");
    assert.equal(resultsOf(result)["web@s2"], "failed");
    assert(result.outcomes.find(({ host }) => host === "s2")!.error instanceof RemoteCommandError);
    assert.equal(cluster.server("s1").find("shop-web")!.image, kept ? "web:2" : "web:1");
    assert.equal(cluster.server("s2").find("shop-web")!.image, "web:1");
    cluster.server("s2").proxyRefuses = false;
    await deployOnce(cluster, run("2"));
    assert.deepEqual(ours(cluster), settled("2"));
  }
});

Deno.test("deploy: believes the proxy's listing, not its exit code", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, run("1"));
  cluster.server("s1").proxyLies = true;
  const result = await deployOnce(cluster, run("2"));
  const { error } = result.outcomes.find(({ service, host }) =>
    service === "web" && host === "s1"
  )!;
  assert(error instanceof JijiError);
  assert.match(
    error.message,
    /lists 10\.210\.0\.\d+:3000 for shop-web-3000, not 10\.210\.0\.\d+:3000/,
  );
  assert.deepEqual(ours(cluster), settled("1"));
});

for (const image of ["missing", "unstartable", "crashes"]) {
  Deno.test(`deploy: an image that is ${image} harms nothing`, async () => {
    using cluster = new MockCluster(["s1", "s2"]);
    await deployOnce(cluster, run("1"));
    const result = await deployOnce(cluster, run(`${image}-2`));
    assert(result.outcomes.some(({ error }) => error instanceof JijiError));
    assert.deepEqual(ours(cluster), settled("1"));
  });
}

Deno.test("deploy: a jiji-dns that does not follow is named, and the drain lasts a TTL longer", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, run("1"));
  cluster.server("s2").dnsFrozen = true;
  const result = await deployOnce(cluster, run("2"));
  assert.deepEqual(ours(cluster), settled("2"));
  const notices = result.events.flatMap((event) => event.kind === "notice" ? [event] : []);
  assert(notices.some(({ lane, message }) => lane === "s2" && /did not follow/.test(message)));
});

Deno.test("deploy: Ctrl-C before the switch puts everything back", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, run("1"));
  const controller = new AbortController();
  const result = await deployOnce(cluster, {
    ...run("2"),
    signal: controller.signal,
    prepare: (host) => {
      const original = host.run.bind(host);
      host.run = (argv, options) => {
        if (argv.includes("probe")) controller.abort(new Error("ctrl-c"));
        return original(argv, options);
      };
    },
  });
  assert(result.outcomes.some(({ error }) => error !== undefined));
  assert.deepEqual(ours(cluster), settled("1"));
});

/** A deploy interrupted at a command, which then has its effect or not. False when it had fewer. */
async function interruptedDeploy(at: number, effect: "done" | "not done"): Promise<boolean> {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, run("1"));
  const controller = new AbortController();
  let count = 0;
  await deployOnce(cluster, {
    ...run("2"),
    signal: controller.signal,
    prepare: (host) => {
      const original = host.run.bind(host);
      host.run = async (argv, options) => {
        if (++count === at) controller.abort(new Error("ctrl-c"));
        if (!options.signal?.aborted) return await original(argv, options);
        if (effect === "done") await original(argv, options);
        throw options.signal.reason;
      };
    },
  });
  const left = ours(cluster).join();
  const whole = [settled("1"), settled("2", "1"), settled("1", "2"), settled("2")];
  assert(whole.some((state) => state.join() === left), `command ${at}, ${effect}: ${left}`);
  return count >= at;
}

Deno.test("deploy: Ctrl-C at any command leaves one whole version serving, and nothing else", async () => {
  for (const effect of ["done", "not done"] as const) {
    let at = 1;
    while (await interruptedDeploy(at, effect)) at++;
    assert(at > 20, `only ${at} commands were tried`);
  }
});

Deno.test("deploy: when the old container can't be renamed it is not taken for the new one", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, run("1"));
  const before = cluster.server("s1").find("shop-web")!.address;
  const result = await deployOnce(cluster, {
    ...run("2"),
    prepare: (host) => {
      const original = host.run.bind(host);
      host.run = async (argv, options) => {
        const result = argv.includes("rename") && argv.includes("shop-web")
          ? { exitCode: 1, signal: undefined, stdout: "", stderr: "engine is busy", durationMs: 1 }
          : await original(argv, options);
        return result;
      };
    },
  });
  assert(result.outcomes.some(({ error }) => error instanceof RemoteCommandError));
  assert.deepEqual(ours(cluster), settled("1"));
  assert.equal(cluster.server("s1").find("shop-web")!.address, before);
});

Deno.test("deploy: a service that stops first is stopped before its successor starts", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  cluster.mayBeDown = true;
  const database = (version: string) => `
  db: {image: "db:${version}", hosts: [s1], stop_first: true, ports: ["5432:5432"]}
`;
  await deployOnce(cluster, { services: database("1") });
  const result = await deployOnce(cluster, { services: database("2") });
  assert.deepEqual(ours(cluster), ["s1 shop-db db:2 up"]);
  const commands = result.hosts.get("s1")!.commands;
  const stop = commands.findIndex((command) => command.includes("stop --time 10 shop-db"));
  const start = commands.findIndex((command) => command.includes("--name shop-db"));
  assert(stop >= 0 && stop < start);
  const broken = await deployOnce(cluster, { services: database("unhealthy") });
  assert(broken.outcomes[0]!.error instanceof HealthGateError);
  assert.deepEqual(ours(cluster), ["s1 shop-db db:2 up"]);
});

Deno.test("deploy: images past what a service retains go, the one in use stays", async () => {
  using cluster = new MockCluster(["s1"]);
  const built = (version: string) => `
  web: {build: ., hosts: [s1], retain: 2, environment: {clear: {V: "${version}"}}}
`;
  const { images } = cluster.server("s1");
  for (const tag of ["a", "b", "c"]) images.add(`localhost:31270/shop-web:${tag}`);
  await deployOnce(cluster, { services: built("1") });
  await deployOnce(cluster, { services: built("2") });
  assert.deepEqual([...images].sort(), [
    "localhost:31270/shop-web:1",
    "localhost:31270/shop-web:c",
  ]);
});

/** Kills the CLI at its `at`-th command of a deploy from 1 to 2; whether it got that far. */
async function killedDeploy(at: number, when: "before" | "after"): Promise<boolean> {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, run("1"));
  const kill = new KillSwitch(at, when);
  await deployOnce(cluster, run("2", { kill })).catch(() => undefined);
  const reached = kill.commands >= at;
  // Whatever was left, the next run converges; the cluster checks serving after every command.
  const again = await deployOnce(cluster, run("2"));
  assert(again.outcomes.every(({ error }) => error === undefined), `killed ${when} ${at}`);
  assert.deepEqual(ours(cluster), settled("2"), `killed ${when} command ${at}`);
  const idle = await deployOnce(cluster, run("2"));
  assert.deepEqual(renderPlanSteps(idle.plan), [], `killed ${when} command ${at}`);
  return reached;
}

Deno.test("deploy: killed before or after any command, it serves on and the next run finishes", async () => {
  for (const when of ["before", "after"] as const) {
    let at = 1;
    while (await killedDeploy(at, when)) at++;
    assert(at > 25, `only ${at} commands were tried`);
  }
});

Deno.test("deploy: killed at any command, the next run can also go back to the old version", async () => {
  for (let at = 1; at < 60; at += 3) {
    using cluster = new MockCluster(["s1", "s2"]);
    await deployOnce(cluster, run("1"));
    const kill = new KillSwitch(at, "after");
    await deployOnce(cluster, run("2", { kill })).catch(() => undefined);
    await deployOnce(cluster, run("1"));
    assert.deepEqual(ours(cluster), settled("1"), `killed after command ${at}`);
  }
});

Deno.test("deploy: killed while it puts back a bad version, or killed twice, it still converges", async () => {
  for (let at = 1; at < 60; at += 1) {
    using cluster = new MockCluster(["s1", "s2"]);
    await deployOnce(cluster, run("1"));
    const bad = run("unhealthy-2", { kill: new KillSwitch(at, "after") });
    await deployOnce(cluster, bad).catch(() => undefined);
    const again = run("3", { kill: new KillSwitch(((at * 7) % 50) + 1, "before") });
    await deployOnce(cluster, again).catch(() => undefined);
    await deployOnce(cluster, run("3"));
    assert.deepEqual(ours(cluster), settled("3"), `killed at command ${at}`);
  }
});
