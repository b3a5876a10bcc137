import assert from "node:assert/strict";
import { observeHost } from "../src/lib/deployment/deployment_observation.ts";
import { removeContainers } from "../src/lib/services/service_removal.ts";
import {
  isNothingToTearDown,
  planTeardown,
  renderTeardown,
  type TeardownFacts,
} from "../src/lib/services/teardown_plan.ts";
import { deployOnce } from "./deployment_fixture.ts";
import { MockCluster } from "./mock_server_state.ts";
import { MockSSHManager } from "./mocks.ts";

const WEB = `
  web:
    image: "web:1"
    hosts: [s1]
    ports: [3000]
    proxy: {app_port: 3000, host: shop.example.com}
`;

const WISH = {
  project: "shop",
  repositories: ["localhost:31270/shop-web"],
  volumes: ["shop-web-data", "shop-web-gone"],
  all: false,
};

/** A server after a deploy of web; another project runs there as well. */
async function deployed(cluster: MockCluster): Promise<TeardownFacts> {
  await deployOnce(cluster, { services: WEB });
  const state = cluster.server("s1");
  const web = state.find("shop-web")!;
  state.containers.push({
    ...web,
    id: "f".repeat(64),
    name: "shop-two-web",
    address: "10.210.0.77",
    labels: { ...web.labels, "jiji.project": "shop-two", "jiji.proxy": "[]" },
  });
  const host = new MockSSHManager(state);
  const signal = new AbortController().signal;
  const image = (repository: string, tag: string | undefined, id: string) => ({
    repository,
    tag,
    id,
  });
  return {
    host: await observeHost(host, { engine: "docker", project: "shop" }, signal),
    traces: true,
    images: [
      image("localhost:31270/shop-web", "1", "a"),
      image("localhost:31270/shop-web", undefined, "b"),
      image("localhost:31270/shop-two-web", "1", "c"),
    ],
    volumes: ["shop-web-data", "shop-two-web-data"],
    projects: ["shop"],
  };
}

Deno.test("planTeardown(): the project's own things, by labels and whole names", async () => {
  using cluster = new MockCluster(["s1"]);
  const plan = planTeardown("s1", await deployed(cluster), WISH);
  assert.deepEqual(plan.containers.map(({ name }) => name), ["shop-web"]);
  assert.deepEqual(plan.images, ["localhost:31270/shop-web:1", "b"]);
  assert.deepEqual(plan.volumes, ["shop-web-data"]);
  assert.deepEqual([plan.files, plan.leaves, plan.others], [true, false, ["shop-two"]]);
  assert.deepEqual(renderTeardown(plan), [
    "  s1  remove shop-web, with their routes",
    "  s1  delete volume shop-web-data, with its data",
    "  s1  remove 2 images",
    "  s1  delete kept releases and files; the audit log stays",
  ]);
});

Deno.test("planTeardown(): --all names the projects that are in the way, also stopped ones", async () => {
  using cluster = new MockCluster(["s1"]);
  const facts = await deployed(cluster);
  const plan = planTeardown("s1", { ...facts, projects: ["blog", "shop"] }, { ...WISH, all: true });
  assert.deepEqual([plan.leaves, plan.others], [true, ["blog", "shop-two"]]);
});

Deno.test("planTeardown(): a bare server has nothing, one with traces of jiji is left with --all", () => {
  const bare = { host: undefined, traces: false, images: [], volumes: [], projects: [] };
  assert(isNothingToTearDown(planTeardown("s1", bare, { ...WISH, all: true })));
  const halfway = { ...bare, traces: true };
  assert(isNothingToTearDown(planTeardown("s1", halfway, WISH)));
  assert(planTeardown("s1", halfway, { ...WISH, all: true }).leaves);
});

Deno.test("removeContainers(): drains the route, stops, removes, and takes the route away last", async () => {
  using cluster = new MockCluster(["s1"]);
  cluster.mayBeDown = true;
  await deployOnce(cluster, { services: WEB });
  const host = new MockSSHManager(cluster.server("s1"));
  host.addMockResponse("kamal-proxy stop", {});
  const signal = new AbortController().signal;
  const { config, containers } = await observeHost(
    host,
    { engine: "docker", project: "shop" },
    signal,
  );
  const own = containers.filter(({ labels }) => labels !== undefined);
  host.commands.length = 0;
  await removeContainers(host, config, { containers: own, drainTimeoutMs: 5_000, signal });
  assert.deepEqual(host.commands.map((command) => command.replaceAll(own[0]!.id, "ID")), [
    "docker exec kamal-proxy kamal-proxy stop shop-web-3000 --drain-timeout=5000ms",
    "docker stop --time 10 ID",
    "docker rm --force --volumes ID",
    "docker exec kamal-proxy kamal-proxy remove shop-web-3000",
  ]);
  assert.deepEqual([...cluster.server("s1").routes.keys()], []);
  assert.deepEqual(cluster.server("s1").containers.map(({ name }) => name), ["kamal-proxy"]);
});
