import assert from "node:assert/strict";
import { JijiError, RemoteCommandError, systemProcess } from "@jiji/core";
import {
  type ProxyReboot,
  renderProxyRebootScript,
} from "../src/lib/engine/proxy_reboot_script.ts";
import {
  argvRebootUnit,
  parseRebootLine,
  planProxyReboot,
  rebootProxy,
} from "../src/lib/services/proxy_reboot_service.ts";
import { observeHost } from "../src/lib/deployment/deployment_observation.ts";
import { deployOnce } from "./deployment_fixture.ts";
import { MockCluster } from "./mock_server_state.ts";
import { MockSSHManager } from "./mocks.ts";

const REBOOT: ProxyReboot = {
  engine: "docker",
  address: "10.210.0.2",
  dnsServer: "10.210.0.1",
  standinAddress: "10.210.0.9",
  block: "10.210.0.0/24",
  drainSeconds: 30,
};

const WEB = `
  web:
    image: "web:1"
    hosts: [s1]
    ports: [3000]
    proxy: {app_port: 3000, host: shop.example.com}
`;

Deno.test("planProxyReboot(): a free address where a proxy is, nothing where none is", async () => {
  using cluster = new MockCluster(["s1", "s2"]);
  await deployOnce(cluster, { services: WEB });
  const signal = new AbortController().signal;
  const plans = await Promise.all(["s1", "s2"].map(async (name) => {
    const host = new MockSSHManager(cluster.server(name));
    const observed = await observeHost(host, { engine: "docker", project: "shop" }, signal);
    return planProxyReboot(observed, { drainTimeoutMs: 1_500 });
  }));
  assert.equal(plans[1], undefined);
  const taken = cluster.server("s1").containers.map(({ address }) => address);
  assert.equal(plans[0]?.drainSeconds, 2);
  assert.equal(plans[0].address, "10.210.0.2");
  assert(!taken.includes(plans[0].standinAddress), plans[0].standinAddress);
  assert.match(plans[0].standinAddress, /^10\.210\.0\.\d+$/);
});

Deno.test("renderProxyRebootScript(): is a script that sh reads, for each engine", async () => {
  for (const engine of ["docker", "podman"] as const) {
    const script = renderProxyRebootScript({ ...REBOOT, engine });
    const checked = await systemProcess.run(["sh", "-n"], { timeoutMs: 10_000, stdin: script });
    assert.deepEqual([checked.exitCode, checked.stderr], [0, ""]);
    assert.match(script, engine === "docker" ? /-I DOCKER-USER 1/ : /-I FORWARD 1/);
    const standin = script.split("\n").find((line) => line.startsWith("run_standin"))!;
    assert(!standin.includes("--publish"), "ports of the server are the proxy's alone");
    assert.match(standin, /--restart no/);
    // Read whole before it begins: the caller may be gone by then.
    assert.match(script, /\nmain "\$@"\nexit \$\?\n$/);
  }
});

Deno.test("parseRebootLine(): steps and failures, nothing else", () => {
  assert.deepEqual(parseRebootLine("@@ draining"), { kind: "step", text: "draining" });
  assert.deepEqual(parseRebootLine("@@fail no"), { kind: "failure", text: "no" });
  assert.equal(parseRebootLine("b0c4"), undefined);
});

/** A server on which the unit prints this and ends so. */
function hostThat(stdout: string, exitCode: number, stderr = ""): MockSSHManager {
  const host = new MockSSHManager(new MockCluster(["s1"]).server("s1"));
  host.addMockResponse(argvRebootUnit().join(" "), { stdout, exitCode, stderr });
  return host;
}

Deno.test("rebootProxy(): tells the steps; a failure says what serves", async () => {
  const steps: string[] = [];
  await rebootProxy(hostThat("@@ pulling\n@@ done\n", 0), REBOOT, (step) => steps.push(step));
  assert.deepEqual(steps, ["pulling", "done"]);
  const why = "the new proxy does not serve the same routes; the former one was put back";
  await assert.rejects(
    rebootProxy(hostThat(`@@ replacing\n@@fail ${why}\n`, 1), REBOOT, () => undefined),
    (error: unknown) =>
      error instanceof RemoteCommandError && error.message.includes(`of s1 failed: ${why}`),
  );
  const busy = "Failed to start transient service unit: Unit jiji-proxy-reboot.service was already";
  await assert.rejects(
    rebootProxy(hostThat("", 1, busy), REBOOT, () => undefined),
    (error: unknown) =>
      error instanceof JijiError && /is being rebooted already/.test(error.message),
  );
});
