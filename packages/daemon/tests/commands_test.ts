import assert from "node:assert/strict";
import { parseServerStatus } from "@jiji/core/cluster";
import { corrosionHttpApi } from "@jiji/core/corrosion";
import { systemClock } from "@jiji/core/runtime";
import { FakeCorrosion, FakeProcess, SimClock } from "@jiji/core/testing";
import {
  addServer,
  listServers,
  newcomerConflict,
  parseNewcomer,
  removeServer,
} from "../src/commands/servers.ts";
import { collectStatus, renderStatus } from "../src/commands/status.ts";
import { FakeFiles, key, NO_API, peerSeed, serverConfig, serverRow } from "./builders.ts";

function statusProcess(): FakeProcess {
  return new FakeProcess()
    .on("systemctl is-active", "active\nfailed\nactive\ninactive\n")
    .on(
      "wg show jiji0 dump",
      `secret\t${key(1)}\t31820\toff\n` +
        `${key(2)}\t(none)\t203.0.113.12:31820\t10.210.2.0/24\t1700000000\t1\t2\t25\n`,
    );
}

Deno.test("collectStatus(): with everything down it still shows the peers and says what is wrong", async () => {
  const files = new FakeFiles();
  files.texts.set("/etc/jiji/peers.json", JSON.stringify({ format: 1, peers: [peerSeed(2)] }));
  const found = await collectStatus({
    config: serverConfig(1),
    process: statusProcess(),
    files,
    api: NO_API,
    clock: new SimClock(12_000),
    askDaemon: () => Promise.reject(new Error("no daemon")),
  });
  assert.equal(found.servers, null);
  assert.equal(found.peers?.[0]?.server_id, "s2");
  assert.equal(found.peers?.[0]?.handshake_age_s, 12);
  assert.equal(found.problems.length, 5);
  assert.deepEqual(parseServerStatus(JSON.stringify(found)), found);
  assert.ok(!JSON.stringify(found).includes("secret"));
  assert.match(renderStatus(found), /peer s2.*\n(.|\n)*unit jiji-corrosion.service is failed/);
});

Deno.test("collectStatus(): shows rows, removed servers included", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  await addServer(serverRow(2), { api, clock: systemClock });
  await api.execute([["UPDATE servers SET removed_at = 5 WHERE id = 's2'", []]]);
  const ports = {
    config: serverConfig(1),
    process: statusProcess(),
    files: new FakeFiles(),
    api,
    clock: systemClock,
    askDaemon: () => Promise.reject(new Error("no daemon")),
  };
  const found = await collectStatus(ports);
  assert.equal(found.servers?.[0]?.removedAtMs, 5);
  assert.deepEqual(found.containers, []);
});

const NEWCOMER = JSON.stringify({ ...peerSeed(3), hostname: "three" });

Deno.test("removeServer(): once, by its name, and adding it again takes it back", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  const ports = { api, clock: systemClock };
  await addServer(serverRow(2), ports);
  assert.equal(await removeServer("s2", ports), true);
  const [removed] = await listServers(api);
  assert.notEqual(removed?.removedAtMs, null);
  assert.equal(await removeServer("s2", ports), false, "the first moment stays");
  assert.equal((await listServers(api))[0]?.removedAtMs, removed?.removedAtMs);
  await addServer(serverRow(2), ports);
  assert.equal((await listServers(api))[0]?.removedAtMs, null);
  await assert.rejects(removeServer("s9", ports), /no server s9/);
});

Deno.test("addServer(): writes the row, also again after a removal", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  const newcomer = parseNewcomer(NEWCOMER, 1);
  await addServer(newcomer, { api, clock: systemClock });
  await api.execute([["UPDATE servers SET removed_at = 5", []]]);
  await addServer(newcomer, { api, clock: systemClock });
  const [row] = await listServers(api);
  assert.equal(row?.hostname, "three");
  assert.equal(row?.removedAtMs, null);
});

Deno.test("addServer(): refuses addresses and keys of others, tombstones included", async () => {
  const newcomer = parseNewcomer(NEWCOMER, 1);
  const removed = serverRow(9, { subnet: "10.210.3.0/25", removedAtMs: 5 });
  assert.match(newcomerConflict(newcomer, [removed]) ?? "", /overlaps/);
  assert.match(
    newcomerConflict(newcomer, [serverRow(9, { wireguardPubkey: key(3) })]) ?? "",
    /key/,
  );
  assert.equal(newcomerConflict(newcomer, [serverRow(3), serverRow(2)]), undefined);
  const stranger = serverRow(9, { subnet: "10.210.0.0/16", removedAtMs: 5 });
  assert.equal(newcomerConflict(newcomer, [serverRow(2), stranger]), undefined);
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  await addServer({ ...serverRow(9), subnet: "10.210.3.0/25" }, { api, clock: systemClock });
  await assert.rejects(addServer(newcomer, { api, clock: systemClock }), /cannot join/);
});

Deno.test("parseNewcomer(): refuses anything that is not a server", () => {
  for (const text of ["", "{}", "[]", NEWCOMER.replace("10.210.3.0/24", "10.210.3.1/24")]) {
    assert.throws(() => parseNewcomer(text, 0), /standard input/);
  }
});
