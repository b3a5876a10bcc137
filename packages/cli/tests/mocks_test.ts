import assert from "node:assert/strict";
import { ConnectionError } from "@jiji/core";
import { MockCluster } from "./mock_server_state.ts";
import { KillSwitch, MockSSHManager } from "./mocks.ts";

const LIMIT = { timeoutMs: 1_000 };

Deno.test("MockCluster: an unknown command fails the test, also when its error is swallowed", async () => {
  const cluster = new MockCluster(["s1"]);
  const host = new MockSSHManager(cluster.server("s1"));
  await assert.rejects(host.run(["docker", "swarm", "init"], LIMIT), /unknown command/);
  await assert.rejects(host.run(["docker", "run", "--name", "a", "--tty", "b"], LIMIT), /unknown/);
  assert.throws(() => cluster[Symbol.dispose](), /s1: docker swarm init/);
});

Deno.test("MockCluster: notices that a route which had served no longer does", async () => {
  const cluster = new MockCluster(["s1"]);
  const host = new MockSSHManager(cluster.server("s1"));
  const docker = (...args: string[]) => host.run(["docker", ...args], LIMIT);
  await docker("run", "--detach", "--name", "kamal-proxy", "proxy");
  await docker("run", "--detach", "--name", "a", "--ip", "10.210.0.2", "image");
  await docker("exec", "kamal-proxy", "kamal-proxy", "deploy", "r", "--target=10.210.0.2:80");
  assert.deepEqual(cluster.violations, []);
  await docker("stop", "--time", "1", "a");
  assert.throws(() => cluster[Symbol.dispose](), /r on s1 does not answer after: s1: docker stop/);
});

Deno.test("MockSSHManager: behaves as the engines do when names, ports and addresses are taken", async () => {
  using cluster = new MockCluster(["s1"]);
  const host = new MockSSHManager(cluster.server("s1"));
  const docker = (...args: string[]) => host.run(["docker", ...args], LIMIT);
  const start = (name: string, ...flags: string[]) =>
    docker("run", "--detach", "--name", name, ...flags, "image");
  await start("a", "--publish", "127.0.0.1:80:3000/tcp", "--ip", "10.210.0.2");
  assert.match((await start("a")).stderr, /already in use/);
  assert.match((await start("b", "--publish", "80:1")).stderr, /port is already allocated/);
  assert.equal(cluster.server("s1").find("b")!.running, false, "it is left behind, as in Docker");
  assert.match((await start("c", "--ip", "10.210.0.2")).stderr, /Address already in use/);
  assert.equal((await docker("rename", "a", "b")).exitCode, 1);
  assert.match((await docker("stop", "--time", "1", "zz")).stderr, /No such container/);
});

Deno.test("MockSSHManager: answers with a stub, and is gone once the CLI is killed", async () => {
  using cluster = new MockCluster(["s1"]);
  const host = new MockSSHManager(cluster.server("s1"), new KillSwitch(2, "after"));
  host.addMockResponse("uname", { stdout: "Linux\n" });
  assert.equal((await host.run(["uname"], LIMIT)).stdout, "Linux\n");
  const lost = (error: unknown) => error instanceof ConnectionError && error.phase === "lost";
  await assert.rejects(host.run(["mkdir", "-p", "/x"], LIMIT), lost);
  assert(cluster.server("s1").folders.has("/x"), "the second command ran, its answer was lost");
  await assert.rejects(host.run(["mkdir", "-p", "/y"], LIMIT), lost);
  assert(!cluster.server("s1").folders.has("/y"));
});
