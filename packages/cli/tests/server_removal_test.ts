import assert from "node:assert/strict";
import type { ServerRow } from "@jiji/core";
import { markRemoved } from "../src/lib/network/server_removal.ts";
import { BareCluster } from "./bare_server.ts";

const S4: ServerRow = {
  id: "s4",
  hostname: "",
  subnet: "10.210.3.0/24",
  wireguardIp: "",
  wireguardPubkey: "k",
  managementIp: "fdcc::4",
  endpoints: [],
  lastSeenMs: 0,
  doc: {},
  removedAtMs: null,
};

const REMOVE = "/opt/jiji/bin/jiji-daemon servers remove s4";

function threeOfFour() {
  const cluster = new BareCluster(["s1", "s2", "s3"]);
  cluster.rows.set("s4", S4);
  return { cluster, staying: [...cluster.servers.values()] };
}

Deno.test("markRemoved(): every member writes it, all with the moment that the first one gave", async () => {
  const { cluster, staying } = threeOfFour();
  assert.deepEqual(await markRemoved("s4", staying), []);
  assert.deepEqual(staying.map(({ commands }) => commands), [
    [REMOVE],
    [`${REMOVE} --at-ms 1764000000123`],
    [`${REMOVE} --at-ms 1764000000123`],
  ]);
  assert.equal(cluster.rows.get("s4")?.removedAtMs, 1_764_000_000_123);
});

Deno.test("markRemoved(): a server that can be reached is told itself, with the same moment", async () => {
  const cluster = new BareCluster(["s1", "s2", "s4"]);
  cluster.rows.set("s4", S4);
  const [one, two, leaving] = [...cluster.servers.values()];
  assert.ok(one && two && leaving);
  cluster.server("s1").lost = true;
  assert.equal((await markRemoved("s4", [one, two], { leaving })).length, 1);
  assert.deepEqual([two.commands, leaving.commands], [
    [REMOVE],
    [`${REMOVE} --at-ms 1764000000123`],
  ]);
  cluster.server("s2").lost = true;
  await assert.rejects(markRemoved("s4", [one, two], { leaving }), /no member could be told/);
});

Deno.test("markRemoved(): members that fail are told of in a line each", async () => {
  const { cluster, staying } = threeOfFour();
  cluster.server("s1").lost = true;
  cluster.server("s3").breaks = "servers remove";
  assert.deepEqual(await markRemoved("s4", staying), [
    "s1 could not be told that s4 is removed, the others will tell it: connection lost",
    "s3 could not be told that s4 is removed, the others will tell it: marking it failed on s3 " +
    `(root@203.0.113.13:22: ${REMOVE} --at-ms 1764000000123: exit 100: E: it does not work today)`,
  ]);
  assert.deepEqual(cluster.server("s2").commands, [REMOVE]);
  cluster.server("s2").lost = true;
  await assert.rejects(
    markRemoved("s4", staying),
    /no member could be told that s4 is removed\n {2}s1: connection lost\n {2}s2: connection lost\n {2}s3: marking it failed on s3/,
  );
});
