import assert from "node:assert/strict";
import { shipFiles } from "../src/lib/services/file_shipping.ts";
import { deployOnce, resultsOf } from "./deployment_fixture.ts";
import { inFolder } from "./local_host.ts";
import { MockCluster } from "./mock_server_state.ts";
import { MockSSHManager } from "./mocks.ts";

const SIGNAL = new AbortController().signal;

Deno.test("shipFiles(): files and what is in folders get their modes and owners", () =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/a`, "a");
    using cluster = new MockCluster(["s1"]);
    const host = new MockSSHManager(cluster.server("s1"));
    const file = (remote: string, owner: string | undefined) => ({
      ...{ local: `${folder}/a`, remote, mode: 0o640, owner },
    });
    await shipFiles(host, {
      kind: "shipFiles",
      files: [file("/f/one", "1:2"), file("/f/two", undefined), file("/d/tree/three", undefined)],
      folders: [{ remote: "/d/tree", mode: 0o750, owner: "3:4" }],
    }, SIGNAL);
    const owners = [...cluster.server("s1").files].map(([path, { owner, mode }]) =>
      `${path} ${owner} ${mode.toString(8)}`
    );
    assert.deepEqual(owners.sort(), [
      "/d/tree/three 3:4 640",
      "/f/one 1:2 640",
      "/f/two root:root 640",
    ]);
    assert.deepEqual(cluster.unknown, []);
  }));

Deno.test("shipFiles(): an empty folder needs no file", async () => {
  using cluster = new MockCluster(["s1"]);
  const host = new MockSSHManager(cluster.server("s1"));
  await shipFiles(host, {
    kind: "shipFiles",
    files: [],
    folders: [{ remote: "/d/tree", mode: 0o755, owner: undefined }],
  }, SIGNAL);
  assert.match(host.commands[0] ?? "", /^mkdir -p \/d\/tree/);
});

Deno.test("deploy: a proxied service whose check is not HTTP is vouched for at each switch", async () => {
  for (const engine of ["docker", "podman"] as const) {
    using cluster = new MockCluster(["s1"], engine);
    const services = (version: string) =>
      `  web:
    image: web:${version}
    hosts: [s1]
    ports: [3000]
    proxy: {app_port: 3000, healthcheck: {tcp: true}}
`;
    await deployOnce(cluster, { services: services("1") });
    const second = await deployOnce(cluster, { services: services("2") });
    assert.deepEqual(resultsOf(second), { "web@s1": "done" });
    const { address } = cluster.server("s1").find("shop-web")!;
    assert.deepEqual(cluster.server("s1").routes.get("shop-web-3000"), [`${address}:3000`]);
    assert.deepEqual(cluster.violations, []);
    assert.deepEqual(cluster.unknown, []);
  }
});
