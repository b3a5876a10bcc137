import assert from "node:assert/strict";
import {
  argvBridgeStep,
  type BridgeObserved,
  parseLinks,
  planBridge,
  strayPorts,
} from "../src/engine/container_bridge.ts";
import { networkSpec } from "../src/engine/container_network.ts";
import { NetworkDuty } from "../src/duties/network.ts";
import {
  ARGV_LINK_MONITOR,
  isAddressChange,
  LINK_GRACE_MS,
  parseLostLink,
  watchLinks,
} from "../src/mesh/link_watch.ts";
import { container, inspected, serverConfig, setUp } from "./builders.ts";

const SPEC = networkSpec(serverConfig(1));

/** As ip(8) prints an interface. */
function link(index: number, name: string, facts: Record<string, unknown> = {}) {
  const flags = ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"];
  return { ifindex: index, ifname: name, flags, addr_info: [], ...facts };
}

function inet(local: string, prefixlen = 24) {
  return { addr_info: [{ family: "inet", local, prefixlen }] };
}

const BRIDGE = link(5, "jiji-br0", inet("10.210.1.1"));
const INSIDE = [
  link(1, "lo", inet("127.0.0.1", 8)),
  link(8, "eth0", { link_index: 9, ...inet("10.210.1.3") }),
];

function observed(host: readonly unknown[], ...containers: readonly unknown[][]): BridgeObserved {
  return {
    links: parseLinks(JSON.stringify(host)),
    containers: containers.map((links) => parseLinks(JSON.stringify(links))),
  };
}

function commands(seen: BridgeObserved): string[] {
  return planBridge(SPEC, seen).map((step) => argvBridgeStep(step).join(" "));
}

Deno.test("planBridge(): does nothing when bridge, address and ports are there", () => {
  const port = link(9, "veth0e0267b", { master: "jiji-br0" });
  assert.deepEqual(commands(observed([BRIDGE, port], INSIDE)), []);
});

Deno.test("planBridge(): a deleted bridge comes back with its address, its ports, and a word to them", () => {
  assert.deepEqual(commands(observed([link(9, "veth0e0267b")], INSIDE)), [
    "ip link add name jiji-br0 address 02:42:0a:d2:01:01 type bridge",
    "ip addr replace 10.210.1.1/24 broadcast + dev jiji-br0",
    "ip link set dev veth0e0267b master jiji-br0",
    "sysctl -w net.ipv4.conf.jiji-br0.arp_notify=1",
    "ip link set dev jiji-br0 up",
  ]);
});

Deno.test("planBridge(): mends only what is wrong with a bridge that is there", () => {
  const down = { ...BRIDGE, flags: ["BROADCAST"] };
  assert.deepEqual(commands(observed([down])), [
    "sysctl -w net.ipv4.conf.jiji-br0.arp_notify=1",
    "ip link set dev jiji-br0 up",
  ]);
  assert.deepEqual(commands(observed([{ ...BRIDGE, addr_info: [] }])), [
    "ip addr replace 10.210.1.1/24 broadcast + dev jiji-br0",
  ]);
  assert.deepEqual(commands(observed([BRIDGE, link(9, "veth1")], INSIDE)), [
    "ip link set dev veth1 master jiji-br0",
  ]);
});

Deno.test("planBridge(): ports of other networks and other bridges are left alone", () => {
  const elsewhere = [link(4, "eth0", { link_index: 9, ...inet("172.18.0.3") })];
  const host = [BRIDGE, link(9, "veth1"), link(11, "veth2", { master: "br-other" })];
  assert.deepEqual(commands(observed(host, elsewhere)), []);
  const taken = [link(4, "eth0", { link_index: 11, ...inet("10.210.1.4") })];
  assert.deepEqual(commands(observed(host, taken)), []);
});

Deno.test("parseLinks(): what does not parse is left out; what is no list is an error", () => {
  const text = JSON.stringify([{ ifindex: "x" }, 1, link(9, "veth1"), link(2, "eth0")]);
  assert.deepEqual(strayPorts(parseLinks(text)).map((one) => one.name), ["veth1"]);
  assert.throws(() => parseLinks("{}"));
  assert.throws(() => parseLinks("Cannot find device"));
});

Deno.test("NetworkDuty: makes a lost bridge again under containers that run", async () => {
  const { process, context } = setUp();
  const one = container(1);
  const described = inspected(one);
  const network = [{
    IPAM: { Config: [{ Subnet: "10.210.1.0/24", Gateway: "10.210.1.1" }] },
    Options: { "com.docker.network.bridge.name": "jiji-br0" },
  }];
  let host = [link(9, "veth0e0267b")];
  process
    .on("sysctl", "1\n")
    .on("iptables", "")
    .on("docker network inspect jiji-net", JSON.stringify(network))
    .on("docker ps -q --no-trunc --filter network=jiji-net", `${one.id}\n`)
    .on(
      "docker inspect",
      JSON.stringify([{ ...described, State: { ...described.State, Pid: 77 } }]),
    )
    .on("ip -j addr show", () => JSON.stringify(host))
    .on("nsenter --net=/proc/77/ns/net ip -j addr show", JSON.stringify(INSIDE))
    .on("ip link", "")
    .on("ip addr", "");
  const duty = new NetworkDuty(context);
  await duty.run(new AbortController().signal);
  assert.equal(process.commands("ip link add name jiji-br0").length, 1);
  assert.equal(process.commands("ip link set dev veth0e0267b master jiji-br0").length, 1);
  host = [BRIDGE, link(9, "veth0e0267b", { master: "jiji-br0" })];
  process.ran.length = 0;
  await duty.run(new AbortController().signal);
  assert.deepEqual(process.commands("ip link"), []);
  assert.deepEqual(process.commands("docker ps"), [], "a sound bridge costs no look at containers");
});

Deno.test("parseLostLink(): an interface that is gone or switched off, and nothing else", () => {
  const flags = "<BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 state UP";
  assert.equal(parseLostLink(`Deleted 5: jiji-br0: ${flags}`), "jiji-br0");
  assert.equal(parseLostLink("5: jiji-br0: <BROADCAST,MULTICAST> mtu 1500 state DOWN"), "jiji-br0");
  assert.equal(parseLostLink(`5: jiji-br0: ${flags}`), undefined);
  assert.equal(parseLostLink(`Deleted 9: veth1@if8: ${flags}`), "veth1");
  for (const text of ["", "x", "Deleted", "1: lo"]) assert.equal(parseLostLink(text), undefined);
});

Deno.test("isAddressChange(): addresses that others could reach, new or gone", () => {
  const rest = "203.0.113.99/24 scope global secondary eth0\\       valid_lft forever";
  assert.ok(isAddressChange(`2: eth0    inet ${rest}`));
  assert.ok(isAddressChange(`Deleted 2: eth0    inet ${rest}`));
  assert.ok(isAddressChange("2: eth0    inet6 2001:db8::1/64 scope global \\  valid_lft 9sec"));
  const link = "9: veth1    inet6 fe80::1/64 scope link \\       valid_lft forever";
  for (const text of ["", link, "5: jiji-br0: <UP> mtu 1500 scope global"]) {
    assert.equal(isAddressChange(text), false, text);
  }
});

Deno.test("watchLinks(): the keeper of a lost interface is woken after a moment's grace", async () => {
  const woken: string[] = [];
  const { process, context, clock } = setUp({ wake: (duty) => woken.push(duty) });
  const stop = new AbortController();
  async function* lines() {
    yield "Deleted 4: jiji0: <POINTOPOINT,NOARP,UP> mtu 1420";
    yield "Deleted 9: veth1@if8: <BROADCAST,UP> mtu 1500";
    yield "Deleted 2: eth0    inet 203.0.113.9/24 scope global eth0";
    yield await Promise.resolve("Deleted 5: jiji-br0: <BROADCAST,UP> mtu 1500");
  }
  process.onLines(ARGV_LINK_MONITOR.join(" "), lines());
  const watching = watchLinks(context, stop.signal);
  await clock.advance(LINK_GRACE_MS - 1);
  assert.deepEqual(woken, ["addresses"]);
  await clock.advance(1);
  assert.deepEqual(woken, ["addresses", "topology", "network"]);
  stop.abort();
  await watching;
});
