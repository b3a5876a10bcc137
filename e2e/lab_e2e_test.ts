import assert from "node:assert/strict";
import { eventually, Lab, labLeftovers } from "./lab.ts";

const SSH = ["ssh", "-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes"];

async function sshAnswers(lab: Lab, server: string): Promise<boolean> {
  const probe = `exec 3<>/dev/tcp/${lab.address(server)}/22 && head -c 4 <&3`;
  const outcome = await lab.tryRun(["timeout", "2", "bash", "-c", probe]);
  return outcome.stdout === "SSH-";
}

Deno.test("lab: bare servers, a laptop, partitions, power loss, and nothing left", async (t) => {
  const name = "e2e-lab";
  await using lab = await Lab.up({ name, servers: 2 });

  await t.step(
    "the laptop reaches a server by SSH with its key, and the server is bare",
    async () => {
      const address = `root@${lab.address("s1")}`;
      const output = await lab.run([
        ...SSH,
        address,
        "hostname; command -v docker podman wg; true",
      ]);
      assert.equal(output, "s1\n");
    },
  );

  await t.step("no route leads out, of the laptop or of a server", async () => {
    assert.doesNotMatch(await lab.run(["ip", "route"]), /default/);
    assert.doesNotMatch(await lab.on("s1", ["ip", "route"]), /default/);
  });

  await t.step("exit codes, input and output pass through", async () => {
    assert.equal((await lab.tryRun(["sh", "-c", "exit 7"])).code, 7);
    assert.equal((await lab.tryOn("s1", ["sh", "-c", "exit 8"])).code, 8);
    assert.equal(await lab.run(["cat"], { input: "to the laptop" }), "to the laptop");
    assert.equal(await lab.on("s2", ["cat"], { input: "to a server" }), "to a server");
  });

  await t.step("a cut drops packets between two, and only there, until healed", async () => {
    const ping = ["ping", "-c", "1", "-W", "1", lab.address("s2")];
    assert.equal((await lab.tryOn("s1", ping)).code, 0);
    await lab.cut("s1", "s2");
    assert.notEqual((await lab.tryOn("s1", ping)).code, 0);
    assert.ok(await sshAnswers(lab, "s1"));
    await lab.heal();
    assert.equal((await lab.tryOn("s1", ping)).code, 0);
  });

  await t.step("power loss keeps the disk, the address and the host key", async () => {
    const hostKey = await lab.on("s1", ["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]);
    const otherKey = await lab.on("s2", ["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]);
    assert.notEqual(hostKey, otherKey);
    await lab.on("s1", ["sh", "-c", "echo kept > /root/file && sync"]);
    await lab.kill("s1");
    assert.equal(await sshAnswers(lab, "s1"), false);
    await lab.boot("s1");
    assert.equal(await lab.on("s1", ["cat", "/root/file"]), "kept\n");
    assert.equal(await lab.on("s1", ["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]), hostKey);
    assert.ok(await sshAnswers(lab, "s1"));
  });

  await t.step("a server can be added to a running lab", async () => {
    await lab.grow(3);
    const { servers } = await lab.status();
    assert.deepEqual(servers.map((server) => server.state), ["on", "on", "on"]);
  });

  await t.step("down ends it whole, also what was started and forgotten", async () => {
    await lab.run(["sh", "-c", "setsid sleep 1000 </dev/null >/dev/null 2>&1 & true"]);
    await lab.down();
    const ours = async () => (await labLeftovers()).filter((line) => line.includes(name));
    await eventually("no leftovers", async () => (await ours()).length === 0 ? true : undefined, {
      timeoutMs: 5000,
    });
  });
});

Deno.test("lab: up cleans what a killed up has left", async () => {
  const name = "e2e-lab-crash";
  const killed = new Deno.Command("bin/lab", {
    args: ["up", "2"],
    env: { JIJI_LAB: name },
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const stderr = killed.stderr.getReader();
  // The first line tells that the network is there and servers are being booted.
  await stderr.read();
  killed.kill("SIGKILL");
  await killed.status;
  await stderr.cancel();
  await using lab = await Lab.up({ name, servers: 1 });
  const { servers } = await lab.status();
  assert.deepEqual(servers.map((server) => server.state), ["on"]);
});

Deno.test("lab: hosts with an engine run containers, and get them back after power loss", async () => {
  await using lab = await Lab.up({ name: "e2e-lab-engine", servers: 1, engine: "docker" });
  const web = ["--name", "web", "--restart", "always", "-p", "8080:80", "busybox:1"];
  await lab.on("s1", ["docker", "run", "-d", ...web, "httpd", "-f", "-p", "80", "-h", "/etc"]);
  const page = ["curl", "-s", "-m", "2", `http://${lab.address("s1")}:8080/passwd`];
  const answers = async () => (await lab.tryRun(page)).stdout.includes("root:") ? true : undefined;
  await eventually("the container answers", answers, { timeoutMs: 10_000 });
  await lab.kill("s1");
  await lab.boot("s1");
  await eventually("the container answers again", answers, { timeoutMs: 20_000 });
});
