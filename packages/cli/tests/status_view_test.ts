import assert from "node:assert/strict";
import type { ServerStatus } from "@jiji/core";
import { linkMatrix } from "../src/lib/network/status_view.ts";
import { configurationOf } from "./configuration_fixture.ts";

const SERVERS = configurationOf(
  "project: shop\nbuilder: {engine: docker}\nservers:\n" +
    "  s1: {host: 203.0.113.11}\n  s2: {host: 203.0.113.12}\nservices:\n" +
    "  web: {image: nginx, hosts: [s1]}\n",
).servers;

const NOW = 1_764_000_000_000;

function row(id: string, ageMs: number, removedAtMs: number | null = null) {
  return {
    id,
    hostname: `${id}.internal`,
    subnet: `10.210.${id.slice(1)}.0/24`,
    wireguardIp: "",
    wireguardPubkey: "k",
    managementIp: "fdcc::1",
    endpoints: [],
    lastSeenMs: NOW - ageMs,
    doc: {},
    removedAtMs,
  };
}

function container(id: string, serverId: string) {
  return {
    id,
    project: "shop",
    service: "web",
    serverId,
    instance: serverId,
    name: id,
    version: "1",
    ip: "10.210.1.3",
    ports: [],
    startedAtMs: 0,
    health: "healthy" as const,
    unhealthySinceMs: null,
  };
}

function status(id: string | null, changes: Partial<ServerStatus> = {}): ServerStatus {
  return {
    format: 1,
    version: "1",
    server_id: id,
    generated_at_ms: NOW,
    servers: [row("s1", 0), row("s2", 60_000)],
    containers: [container("a", "s1"), container("b", "s2"), container("c", "s2")],
    peers: [],
    liveness: { format: 1, written_at_ms: NOW, silent: [], rtt_ms: { s1: 1, s2: 2.5 } },
    units: {},
    problems: [],
    ...changes,
  };
}

Deno.test("linkMatrix(): joins what every server told", () => {
  const peer = {
    server_id: "s2",
    public_key: "k",
    endpoint: "203.0.113.12:31820",
    allowed_ips: [],
    handshake_age_s: 12,
    loss: 0.25,
    mtu: 1440,
    psk: true,
    rx_bytes: 1,
    tx_bytes: 2,
  };
  const view = linkMatrix(
    SERVERS,
    new Map([["s1", status("s1", { peers: [peer] })], ["s2", status("s2")]]),
    { nowMs: NOW },
  );
  assert.deepEqual(view.servers.map((one) => [one.name, one.address, one.state, one.containers]), [
    ["s1", "203.0.113.11", "member", 1],
    ["s2", "203.0.113.12", "member", 2],
  ]);
  assert.deepEqual(view.servers[0]!.links, {
    s2: {
      linked: true,
      daemonless: false,
      rttMs: 2.5,
      endpoint: "203.0.113.12:31820",
      handshakeAgeSeconds: 12,
      loss: 0.25,
      mtu: 1440,
      psk: true,
    },
  });
  assert.deepEqual(Object.keys(view.servers[1]!.links), ["s1"]);
});

Deno.test("linkMatrix(): an unreachable server appears as the others see it", () => {
  const silent = { format: 1 as const, written_at_ms: NOW, silent: ["s2"], rtt_ms: { s2: 2 } };
  const view = linkMatrix(SERVERS, new Map([["s1", status("s1", { liveness: silent })]]), {
    nowMs: NOW,
  });
  const [s1, s2] = view.servers;
  assert.equal(s1!.links["s2"]!.linked, false, "a silent server is no link, whatever its last RTT");
  assert.deepEqual([s2!.state, s2!.block, s2!.containers, s2!.seen, s2!.links], [
    "unreachable",
    "10.210.2.0/24",
    2,
    "60 s ago",
    {},
  ]);
});

Deno.test("linkMatrix(): nothing told is nothing known, never zero", () => {
  const view = linkMatrix(SERVERS, new Map(), { nowMs: NOW });
  assert.deepEqual(view.servers.map((one) => [one.state, one.containers, one.seen, one.block]), [
    ["unreachable", null, "never", null],
    ["unreachable", null, "never", null],
  ]);
  const bare = status(null, { servers: null, containers: null, peers: null, liveness: null });
  const [s1] = linkMatrix(SERVERS, new Map([["s1", bare]]), { nowMs: NOW }).servers;
  assert.deepEqual([s1!.state, s1!.containers, s1!.links["s2"]!.linked], [
    "not a member",
    null,
    false,
  ]);
});

Deno.test("linkMatrix(): members that the configuration lacks are shown, removed ones are not", () => {
  const servers = [row("s1", 0), row("s2", 0, NOW), row("s3", 0)];
  const view = linkMatrix(SERVERS, new Map([["s1", status("s1", { servers })]]), { nowMs: NOW });
  assert.deepEqual(view.servers.map((one) => [one.name, one.address]), [
    ["s1", "203.0.113.11"],
    ["s3", "s3.internal"],
  ]);
});

Deno.test("linkMatrix(): says in words how long ago a server was seen", () => {
  const seen = (ageMs: number) => {
    const statuses = new Map([["s1", status("s1", { servers: [row("s1", ageMs)] })]]);
    return linkMatrix(SERVERS, statuses, { nowMs: NOW }).servers[0]!.seen;
  };
  assert.deepEqual([-5_000, 19_999, 20_000, 119_000, 120_000, 7_200_000].map(seen), [
    "now",
    "now",
    "20 s ago",
    "119 s ago",
    "2 min ago",
    "2 h ago",
  ]);
});

Deno.test("linkMatrix(): the newest row of a server counts, whoever answered first", () => {
  const cutOff = status("s2", {
    servers: [row("s1", 300_000, NOW - 300_000), row("s2", 0)],
    containers: [container("a", "s1"), container("gone", "s1"), container("b", "s2")],
  });
  const sound = status("s1", {
    servers: [row("s1", 1_000), row("s2", 300_000)],
    containers: [container("a", "s1"), container("b", "s2"), container("old", "s2")],
  });
  const third = status("s3", { servers: [row("s1", 2_000), row("s2", 301_000)] });
  const seen = (statuses: [string, ServerStatus][]) =>
    linkMatrix(SERVERS, new Map(statuses), { nowMs: NOW }).servers
      .map((one) => [one.name, one.seen, one.containers]);
  const wanted = [["s1", "now", 1], ["s2", "5 min ago", 1]];
  assert.deepEqual(seen([["s1", sound], ["s2", cutOff], ["s3", third]]), wanted);
  assert.deepEqual(seen([["s3", third], ["s2", cutOff], ["s1", sound]]), wanted);
});

Deno.test("linkMatrix(): who was not asked is not unreachable, and nobody links to itself", () => {
  const bare = status(null, { servers: null, containers: null, peers: null });
  const statuses = new Map([["s1", bare]]);
  const view = linkMatrix(SERVERS, statuses, { nowMs: NOW, asked: new Set(["s1"]) });
  assert.deepEqual(view.servers.map((one) => [one.name, one.state, Object.keys(one.links)]), [
    ["s1", "not a member", ["s2"]],
    ["s2", "not asked", []],
  ]);
});
