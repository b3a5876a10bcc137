import assert from "node:assert/strict";
import { observeHost, parseObservation } from "../src/lib/deployment/deployment_observation.ts";
import { imageSteps } from "../src/lib/deployment/deployment_steps.ts";
import { planDeployment } from "../src/lib/deployment/deployment_plan.ts";
import { renderPlanSteps, renderPlanSummary } from "../src/lib/output/deployment_plan_text.ts";
import { deployOnce, type DeployRun, desiredOf } from "./deployment_fixture.ts";
import { MockCluster } from "./mock_server_state.ts";
import { MockSSHManager } from "./mocks.ts";

const web = (image: string, more = "") => `
  web:
    image: "${image}"
    hosts: [s2, s1]
    ports: [3000]
    proxy: {app_port: 3000, host: shop.example.com}
    ${more}
`;

/** The plan of a deploy, without doing it. */
async function planOf(cluster: MockCluster, run: DeployRun) {
  const { desired } = await desiredOf(cluster, run);
  const { signal } = new AbortController();
  const observed = await Promise.all(
    [...cluster.servers.values()].map((state) =>
      observeHost(new MockSSHManager(state), { engine: cluster.engine, project: "shop" }, signal)
    ),
  );
  return planDeployment(desired, new Map(observed.map((host) => [host.name, host])), {
    nowMs: 1_764_000_000_000,
    deployment: "d1",
    force: run.force ?? false,
    release: run.release ?? true,
    envFolder: "/run/jiji/env",
    canary: run.canary ?? [],
  });
}

Deno.test("planDeployment(): on bare servers, in the order of server names", async (t) => {
  using cluster = new MockCluster(["s1", "s2"]);
  const plan = await planOf(cluster, { services: web("web:1") });
  await t.assertSnapshot(renderPlanSteps(plan).join("\n"));
  await t.assertSnapshot(renderPlanSummary(plan).join("\n"));
  const same = await planOf(cluster, { services: web("web:1") });
  assert.deepEqual(plan, same, "the same wish and observation give the same plan");
});

Deno.test("planDeployment(): names each cause of a replacement, never a value", async (t) => {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, { services: web("web:1") });
  const changed = web("web:2", "environment: {clear: {A: hidden-value}}\n    memory: 64m");
  const plan = await planOf(cluster, { services: changed });
  await t.assertSnapshot(renderPlanSummary(plan).join("\n"));
  assert(!JSON.stringify(plan).includes("hidden-value"));
  const forced = await planOf(cluster, { services: web("web:1"), force: true });
  assert.deepEqual(forced.services[0]!.instances.map(({ causes }) => causes), [["forced"], [
    "forced",
  ]]);
});

Deno.test("planDeployment(): gives new containers addresses that nobody has", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, { services: web("web:1") });
  const two = web("web:2") + web("api:1").replace("web:", "api:").replace("shop.", "api.");
  const plan = await planOf(cluster, { services: two });
  const planned = plan.services.flatMap(({ instances }) =>
    instances.flatMap(({ expect }) => expect.map(({ has }) => has))
  );
  const there = [...cluster.servers.values()].flatMap((state) =>
    state.containers.map((container) => container.address)
  );
  assert.equal(planned.length, 4);
  assert.equal(new Set([...planned, ...there]).size, planned.length + there.length);
});

Deno.test("planDeployment(): a lost route is put back without touching the container", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, { services: web("web:1") });
  cluster.mayBeDown = true;
  cluster.server("s1").routes.clear();
  const plan = await planOf(cluster, { services: web("web:1") });
  const { address } = cluster.server("s1").find("shop-web")!;
  assert.deepEqual(renderPlanSteps(plan), [
    `[s1] switch routeProxy shop-web-3000 → ${address}:3000 — proxy does not lead to it`,
  ]);
});

Deno.test("planDeployment(): a stopped container is replaced, one server alone", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, { services: web("web:1") });
  cluster.mayBeDown = true;
  Object.assign(cluster.server("s2").find("shop-web")!, { running: false, exitCode: 137 });
  const plan = await planOf(cluster, { services: web("web:1") });
  assert.deepEqual(
    plan.services[0]!.instances.map(({ host, action, causes }) => [host, action, causes]),
    [["s1", "as is", []], ["s2", "replace", ["container is exited"]]],
  );
});

Deno.test("planDeployment(): leaves containers of other projects and of nobody alone", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  const host = new MockSSHManager(cluster.server("s1"));
  for (const name of ["shop-web-2", "shop-web_older_12", "other-web"]) {
    await host.run(["docker", "run", "--detach", "--name", name, "image"], { timeoutMs: 1_000 });
  }
  const plan = await planOf(cluster, { services: web("web:1") });
  const text = renderPlanSteps(plan).join("\n");
  assert(!/other-web|shop-web-2|shop-web_older/.test(text));
});

Deno.test("planDeployment(): a built image is pulled unless the server has this very digest", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  const { desired } = await desiredOf(cluster, { services: web("web:1") });
  const [service] = desired;
  const digest = `sha256:${"a".repeat(64)}`;
  const built = { ...service!, pull: "always" as const, imageDigest: digest };
  const [s1, s2] = await Promise.all(
    ["s1", "s2"].map((name) =>
      observeHost(new MockSSHManager(cluster.server(name)), {
        engine: cluster.engine,
        project: "shop",
      }, new AbortController().signal)
    ),
  );
  const { image } = built.spec;
  const has = { ...s1!, imageDigests: new Map([[image, digest]]) };
  const other = { ...s2!, imageDigests: new Map([[image, `sha256:${"b".repeat(64)}`]]) };
  const pulls = (host: typeof has) =>
    imageSteps(built, host).filter((step) => step.kind === "pullImage").length;
  assert.deepEqual([pulls(has), pulls(other), pulls({ ...other, imageDigests: new Map() })], [
    0,
    1,
    1,
  ]);
});

Deno.test("parseObservation(): images with and without a digest", () => {
  const digest = `sha256:${"c".repeat(64)}`;
  const config = JSON.stringify(new MockCluster(["s1"]).server("s1").config);
  const host = parseObservation(
    "s1",
    `@config ${btoa(config)}\n@image r/shop-web:2 ${digest}\n@image r/shop-web:1 <none>\n` +
      "@image r/shop-web:<none> <none>\n@image r/shop-api:1\n",
  );
  assert.deepEqual(host.images, ["r/shop-web:2", "r/shop-web:1", "r/shop-api:1"]);
  assert.deepEqual([...host.imageDigests ?? []], [["r/shop-web:2", digest]]);
});
