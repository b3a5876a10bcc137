import assert from "node:assert/strict";
import { parseServerStatus, renderPeerSeeds, SERVER_PATHS } from "@jiji/core/cluster";
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
import { isShuttingDown } from "../src/commands/run.ts";
import { collectStatus, renderStatus } from "../src/commands/status.ts";
import { PEER_CACHE_FILE } from "../src/duties/topology.ts";
import { REMOVED_FILE, renderRemovedServers, rowOfSeed } from "../src/state/removed_servers.ts";
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
  const ports = { api, clock: systemClock, files: new FakeFiles() };
  await addServer(serverRow(2), ports);
  const atMs = 1_700_000_000_000;
  const first = { removedAtMs: atMs, wasMember: true };
  assert.deepEqual(await removeServer({ id: "s2", atMs }, ports), first);
  assert.equal((await listServers(api))[0]?.removedAtMs, atMs);
  const again = { removedAtMs: atMs, wasMember: false };
  assert.deepEqual(await removeServer({ id: "s2" }, ports), again, "the first moment stays");
  assert.equal((await listServers(api))[0]?.removedAtMs, atMs);
  await addServer(serverRow(2), ports);
  assert.equal((await listServers(api))[0]?.removedAtMs, null);
  await assert.rejects(removeServer({ id: "s9" }, ports), /no server s9/);
});

Deno.test("removeServer(): also one of which only the peer files tell", async () => {
  await using fake = new FakeCorrosion();
  const api = corrosionHttpApi(fake.address);
  const files = new FakeFiles();
  const ports = { api, clock: systemClock, files };
  files.texts.set(
    SERVER_PATHS.peerSeed,
    renderPeerSeeds([{ ...peerSeed(3), block: "10.210.9.0/24" }]),
  );
  files.texts.set(PEER_CACHE_FILE, renderPeerSeeds([peerSeed(3), peerSeed(4)]));
  assert.equal((await removeServer({ id: "s3", atMs: 7 }, ports)).wasMember, true);
  const [row] = await listServers(api);
  const seed = peerSeed(3);
  assert.deepEqual(
    [row?.id, row?.removedAtMs, row?.subnet, row?.wireguardPubkey, row?.managementIp],
    ["s3", 7, seed.block, seed.public_key, seed.management_ip],
    "as it was heard of last",
  );
  files.texts.set(REMOVED_FILE, renderRemovedServers([rowOfSeed(peerSeed(4), 5)]));
  const removed = { removedAtMs: 5, wasMember: false };
  assert.deepEqual(await removeServer({ id: "s4" }, ports), removed, "it was removed before");
  assert.equal((await listServers(api)).length, 1);
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

Deno.test("isShuttingDown(): who asks may be ended together with the daemon, and asks again", async () => {
  const ask = (answers: { signal?: Deno.Signal; stdout?: string; exitCode?: number }[]) => {
    const left = [...answers];
    const process = new FakeProcess()
      .on("systemctl is-system-running", () => left.length > 1 ? left.shift()! : left[0]!);
    return isShuttingDown({ process });
  };
  assert.equal(await ask([{ stdout: "stopping\n", exitCode: 1 }]), true);
  assert.equal(await ask([{ signal: "SIGTERM" }, { stdout: "stopping\n", exitCode: 1 }]), true);
  assert.equal(await ask([{ stdout: "running\n" }, { stdout: "stopping\n" }]), false);
  assert.equal(await ask([{ stdout: "degraded\n", exitCode: 1 }]), false);
  assert.equal(await ask([{ signal: "SIGTERM" }]), false, "it ends all the same");
});
