import assert from "node:assert/strict";
import { PROXY_VOLUME, SERVER_PATHS, VOUCHED_FLAGS } from "@jiji/core/cluster";
import { type ContainerRow, corrosionHttpApi } from "@jiji/core/corrosion";
import { FakeCorrosion, type FakeProcess, settle } from "@jiji/core/testing";
import { initialHealth } from "../src/engine/container_health.ts";
import type { CheckNetwork } from "../src/duties/checks.ts";
import { ContainersDuty, HealthDuty, RegistryDuty } from "../src/duties/containers.ts";
import { rowOf } from "../src/engine/container_registry.ts";
import { FirewallDuty } from "../src/duties/firewall.ts";
import { RULES_GRACE_MS } from "../src/firewall/engine_rules.ts";
import { NetworkDuty } from "../src/duties/network.ts";
import { ProxyDuty } from "../src/duties/proxy.ts";
import { HealthyFile } from "../src/healthy_file.ts";
import { container, inspected, serverConfig, setUp } from "./builders.ts";

const SIGNAL = new AbortController().signal;

function firewallProcess(process: FakeProcess): FakeProcess {
  return process
    .on("sysctl -n net.ipv4.ip_forward", "1\n")
    .on("iptables-save", "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n*nat\nCOMMIT\n")
    .on("iptables-restore -w 5 --noflush", "")
    .on("ip6tables-save", "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n")
    .on("nft -j -t list ruleset", '{"nftables":[]}');
}

Deno.test("NetworkDuty: makes docker's network when it is missing", async () => {
  const { process, context } = setUp();
  process
    .on(
      "docker network inspect jiji-net",
      () => ({ exitCode: 1, stderr: "Error: No such network: jiji" }),
    )
    .on("docker network create", "id\n");
  await new NetworkDuty(context).run(SIGNAL);
  assert.equal(process.commands("docker network create").length, 1);
});

Deno.test("NetworkDuty: podman's network is a file, and only netavark reads it", async () => {
  const { process, context, files } = setUp({ config: serverConfig(1, { engine: "podman" }) });
  process
    .on("podman network inspect jiji-net", () => ({ exitCode: 125, stderr: "network not found" }))
    .on("podman info", "netavark\n");
  await new NetworkDuty(context).run(SIGNAL);
  const file = JSON.parse(files.texts.get("/etc/containers/networks/jiji-net.json") ?? "");
  assert.equal(file.network_interface, "jiji-br0");
  assert.equal(file.subnets[0].gateway, "10.210.1.1");
  process.on("podman info", "cni\n");
  await assert.rejects(new NetworkDuty(context).run(SIGNAL), /install netavark/);
});

Deno.test("NetworkDuty: an engine that is down loses no network", async () => {
  const { process, context } = setUp();
  process.on("docker network inspect jiji-net", () => ({
    exitCode: 1,
    stderr: "Cannot connect to the Docker daemon",
  }));
  await assert.rejects(new NetworkDuty(context).run(SIGNAL), /Cannot connect/);
  assert.equal(process.commands("docker network create").length, 0);
});

Deno.test("FirewallDuty: switches forwarding on and puts in what is missing", async () => {
  const { process, context } = setUp();
  const applied: string[] = [];
  firewallProcess(process)
    .on("sysctl -n net.ipv4.ip_forward", "0\n")
    .on("sysctl -w net.ipv4.ip_forward=1", "")
    .on("iptables-restore", (_argv, { stdin }) => {
      applied.push(`${stdin}`);
      return "";
    });
  await new FirewallDuty(context).run(SIGNAL);
  assert.equal(process.commands("sysctl -w").length, 1);
  assert.deepEqual(applied[0]?.match(/^\*\w+/gm), ["*filter", "*nat", "*mangle"]);
  process.on("sysctl -n net.ipv4.ip_forward", () => ({ exitCode: 1, stderr: "read-only" }));
  await assert.rejects(new FirewallDuty(context).run(SIGNAL), /read-only/);
  assert.equal(applied.length, 2, "one hides nothing of the other");
});

Deno.test("FirewallDuty: a host that its owner closed is opened and looked at each time", async () => {
  const { process, context, clock } = setUp();
  firewallProcess(process);
  const duty = new FirewallDuty(context);
  await duty.run(SIGNAL);
  await duty.run(SIGNAL);
  assert.equal(process.commands("nft -j").length, 1, "an open host is looked at now and then");
  await clock.advance(10_000);
  const input = { family: "inet", table: "host", name: "input", type: "filter", hook: "input" };
  const scripts: string[] = [];
  process
    .on(
      "nft -j -t list ruleset",
      JSON.stringify({ nftables: [{ chain: { ...input, policy: "drop" } }] }),
    )
    .on("nft -f -", (_argv, { stdin }) => {
      scripts.push(`${stdin}`);
      return "";
    });
  await duty.run(SIGNAL);
  await duty.run(SIGNAL);
  assert.equal(scripts.length, 2, "whoever closes it again is noticed");
  assert.match(scripts[0]!, /^insert rule inet host input udp dport 31820 accept/);
  process.on("ip6tables-save", () => ({ exitCode: 3, stderr: "no IPv6 here" }));
  await duty.run(SIGNAL);
  assert.equal(scripts.length, 3, "a host without IPv6 has a firewall all the same");
});

Deno.test("FirewallDuty: a host without iptables is left without rules, said once", async () => {
  const { process, context, logger } = setUp();
  firewallProcess(process).on(
    "iptables-save",
    () => ({ exitCode: 127, stderr: "iptables: not found" }),
  );
  const duty = new FirewallDuty(context);
  await duty.run(SIGNAL);
  await duty.run(SIGNAL);
  assert.equal(logger.lines.filter((line) => line.message.includes("iptables")).length, 1);
});

Deno.test("FirewallDuty: rules of docker that were flushed while no daemon ran are brought back", async () => {
  const { process, context, clock } = setUp();
  const rules = "*nat\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\nCOMMIT\n" +
    "*filter\n-A FORWARD -j DOCKER-USER\nCOMMIT\n";
  firewallProcess(process).on("iptables-save", rules);
  await new FirewallDuty(context).run(SIGNAL);
  process.on("iptables-save", "");
  process.on("systemctl try-restart docker.service", "");
  const restarted = new FirewallDuty(context);
  await restarted.run(SIGNAL);
  await clock.advance(RULES_GRACE_MS);
  await restarted.run(SIGNAL);
  assert.equal(process.commands("systemctl try-restart docker.service").length, 1);
});

Deno.test("containers: from the engine's words to rows, and out again when they end", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  const { process, context, clock, files } = setUp({ api });
  context.view.filled.containers = true;
  const one = container(1);
  process
    .on("docker ps -a -q", `${one.id}\n`)
    .on("docker inspect", JSON.stringify([inspected(one)]));
  let status = 503;
  const network: CheckNetwork = {
    httpGet: () => Promise.resolve({ status, headers: {}, body: "" }),
    tcpConnect: () => Promise.reject(new Error("unused")),
  };
  const healthy = new HealthyFile(context);
  const onHealth = () => void healthy.tell();
  const duties = {
    containers: new ContainersDuty(context, onHealth),
    health: new HealthDuty(context, network, onHealth),
    registry: new RegistryDuty(context),
  };
  const health = async () => {
    await duties.registry.run();
    const rows = await api.query(["SELECT name, health_status FROM containers", []]);
    return rows;
  };
  await duties.containers.run(SIGNAL);
  assert.deepEqual(await health(), [], "it was there before, and nothing is known of it");
  await duties.health.run();
  await clock.advance(0);
  assert.deepEqual(await health(), [["casa-web", "starting"]], "503 is not healthy");
  status = 204;
  await clock.advance(1_000);
  await duties.health.run();
  await clock.advance(0);
  assert.deepEqual(await health(), [["casa-web", "healthy"]]);
  assert.equal(await files.read(SERVER_PATHS.healthy), `${one.labels?.deployment} casa-web\n`);
  process.on("docker inspect", JSON.stringify([inspected({ ...one, running: false })]));
  await duties.containers.run(SIGNAL);
  assert.deepEqual(await health(), []);
  assert.equal(await files.read(SERVER_PATHS.healthy), "");
});

Deno.test("containers: a daemon that reads the engine before its rows overwrites none of them", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  const { process, context, files } = setUp({ api });
  const one = container(1);
  process
    .on("docker ps -a -q", `${one.id}\n`)
    .on("docker inspect", JSON.stringify([inspected(one)]));
  const healthy = new HealthyFile(context);
  const onHealth = () => void healthy.tell();
  const told: ContainerRow[] = [];
  const tell = (rows: readonly ContainerRow[]) => void told.push(...rows);
  const duties = {
    containers: new ContainersDuty(context, onHealth),
    registry: new RegistryDuty(context, { tell, onHealth }),
  };
  await duties.containers.run(SIGNAL);
  await duties.registry.run();
  assert.deepEqual(told, [], "nothing is known of the rows yet");
  const [seen] = context.facts.containers ?? [];
  const row = seen && rowOf(seen, { serverId: context.config.server_id, health: undefined });
  assert.ok(row);
  context.view.containers.set(one.id, { ...row, health: "healthy" });
  context.view.filled.containers = true;
  await duties.registry.run();
  assert.deepEqual(told, []);
  assert.equal(context.facts.health.get(one.id)?.status, "healthy");
  await settle();
  assert.equal(await files.read(SERVER_PATHS.healthy), `${one.labels?.deployment} casa-web\n`);
});

Deno.test("RegistryDuty: touches nothing before both sides are known, or once removed", async () => {
  const { context } = setUp();
  const registry = new RegistryDuty(context);
  await registry.run();
  context.facts.containers = [container(1)];
  await registry.run();
  context.view.filled.containers = true;
  context.facts.standsDown = true;
  await registry.run();
  context.facts.standsDown = false;
  await assert.rejects(registry.run(), /corrosion is down/);
});

const STATE_PATH = "/var/lib/docker/volumes/jiji-kamal-proxy/_data";

function proxySetUp() {
  const made = setUp();
  const { process, context } = made;
  const one = container(1);
  context.facts.containers = [one];
  context.facts.health.set(one.id, { ...initialHealth(0), status: "healthy" });
  process
    .on(`docker volume inspect --format {{.Mountpoint}} ${PROXY_VOLUME}`, `${STATE_PATH}\n`)
    .on(
      "docker inspect --type container kamal-proxy",
      JSON.stringify([{ ...inspected(one), Name: "kamal-proxy" }]),
    )
    .on("docker exec kamal-proxy kamal-proxy deploy", "");
  return { ...made, duty: new ProxyDuty(context) };
}

Deno.test("ProxyDuty: a lost route is set again after the dwell time, once", async () => {
  const { process, clock, files, duty } = proxySetUp();
  await duty.run(SIGNAL);
  assert.equal(process.commands("docker exec kamal-proxy").length, 0, "a command may be at work");
  await clock.advance(2_000);
  await duty.run(SIGNAL);
  assert.equal(process.commands("docker exec kamal-proxy").length, 1);
  files.texts.set(
    `${STATE_PATH}/kamal-proxy.state`,
    JSON.stringify([{ name: "casa-web-3000", active_targets: ["10.210.1.2:3000"] }]),
  );
  await clock.advance(20_000);
  await duty.run(SIGNAL);
  assert.equal(process.commands("docker exec kamal-proxy").length, 1);
});

Deno.test("ProxyDuty: half a state file means later, then the proxy's own word counts", async () => {
  for (const half of ['[{"name":"cas', ""]) {
    const { process, clock, files, duty } = proxySetUp();
    const header = "Service Host Path Target State TLS\n";
    const row = "casa-web-3000 casa.example / 10.210.1.2:3000 running no\n";
    process.on("docker exec kamal-proxy kamal-proxy list", header + row);
    files.texts.set(`${STATE_PATH}/kamal-proxy.state`, half);
    await duty.run(SIGNAL);
    assert.equal(process.commands("docker exec").length, 0, "someone may be writing it");
    const later = async (ms: number) => {
      await clock.advance(ms);
      await duty.run(SIGNAL);
    };
    await later(2_000);
    await later(2_000);
    assert.equal(process.commands("docker exec kamal-proxy kamal-proxy list").length, 1);
    process.on("docker exec kamal-proxy kamal-proxy list", header);
    await later(10_000);
    assert.equal(process.commands("docker exec kamal-proxy kamal-proxy deploy").length, 0);
    await later(2_000);
    assert.equal(process.commands("docker exec kamal-proxy kamal-proxy deploy").length, 1);
  }
});

Deno.test("ProxyDuty: what a new proxy put back unchecked is set again, once for each start", async () => {
  const { process, clock, files, context } = proxySetUp();
  const proxy = [{ name: "casa-web-3000", app_port: 3000, flags: [...VOUCHED_FLAGS] }];
  const one = container(1, { pid: 101, labels: { proxy } });
  context.facts.containers = [one];
  context.facts.proxyStartedAtMs = one.createdAtMs + 1;
  async function* ready() {
    yield await Promise.resolve("ready");
  }
  process
    .on("docker ps", `${one.id}\n`)
    .on(`docker inspect --type container ${one.id}`, () => {
      const raw = inspected(one);
      return { stdout: JSON.stringify([{ ...raw, State: { ...raw.State, Pid: 101 } }]) };
    })
    .onLines("nsenter", { [Symbol.asyncIterator]: ready });
  files.texts.set(
    `${STATE_PATH}/kamal-proxy.state`,
    JSON.stringify([{ name: "casa-web-3000", active_targets: ["10.210.1.2:3000"] }]),
  );
  const sets = () => process.commands("docker exec kamal-proxy kamal-proxy deploy").length;
  const duty = new ProxyDuty(context);
  process.on("docker exec kamal-proxy kamal-proxy deploy", () => ({ exitCode: 1 }));
  await duty.run(SIGNAL);
  process.on("docker exec kamal-proxy kamal-proxy deploy", "");
  await duty.run(SIGNAL);
  await clock.advance(5_000);
  await duty.run(SIGNAL);
  assert.equal(sets(), 2, "one that failed, one that did not");
  await new ProxyDuty(context).run(SIGNAL);
  assert.equal(sets(), 2, "a new daemon knows that this start was seen to");
  context.facts.proxyStartedAtMs += 60_000;
  await duty.run(SIGNAL);
  assert.equal(sets(), 3);
});

Deno.test("ProxyDuty: a proxy that is down is not told anything", async () => {
  const { process, clock, duty } = proxySetUp();
  process.on("docker inspect --type container kamal-proxy", () => ({ exitCode: 1 }));
  await duty.run(SIGNAL);
  await clock.advance(5_000);
  await duty.run(SIGNAL);
  assert.equal(process.commands("docker exec kamal-proxy").length, 0);
});

Deno.test("RegistryDuty: services are announced again, should the state have been lost", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  const { context, clock } = setUp({ api });
  const registry = new RegistryDuty(context);
  context.facts.containers = [container(1)];
  context.view.filled.containers = true;
  const announced = async () => {
    await registry.run();
    return (await api.query(["SELECT name FROM services", []])).flat();
  };
  assert.deepEqual(await announced(), ["web"]);
  fake.changeSilently("DELETE FROM services");
  assert.deepEqual(await announced(), []);
  await clock.advance(600_000);
  assert.deepEqual(await announced(), ["web"]);
});
