import assert from "node:assert/strict";
import fc from "fast-check";
import {
  blockHolders,
  type ContainerLabels,
  containerName,
  dnsLabels,
  isLinked,
  LIVENESS_STALE_MS,
  newestPerInstance,
  oldContainerName,
  parseContainerLabels,
  parseLiveness,
  parsePeerSeeds,
  parseServerConfig,
  PROJECT_NAME,
  proxyTargetName,
  renderContainerLabels,
  renderPeerSeeds,
  SERVER_NAME,
  silentServers,
} from "../src/cluster/mod.ts";
import {
  parseContainerRow,
  parseServerDoc,
  parseServerRow,
  renderServerDoc,
} from "../src/corrosion/rows.ts";
import { upsertContainer, upsertServer } from "../src/corrosion/statements.ts";

const KEY = { project: "casa", service: "api" };
const WG_KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

Deno.test("names: of containers, routes and DNS", () => {
  assert.equal(containerName(KEY), "casa-api");
  assert.equal(containerName(KEY, 2), "casa-api-2");
  assert.equal(oldContainerName("casa-api", 7), "casa-api_old_7");
  assert.equal(proxyTargetName(KEY, 3000), "casa-api-3000");
  assert.deepEqual(dnsLabels(KEY, "One"), ["casa-api", "casa-api-one"]);
  assert.deepEqual(dnsLabels(KEY, ""), ["casa-api"]);
});

Deno.test("names: what a shell or a file name could trip over is no name", () => {
  for (const text of ["", "-a", "a-", "A", "a b", "a/b", "a;b", "a..b", "ä", "a".repeat(51)]) {
    assert.ok(!PROJECT_NAME.test(text), text);
  }
  assert.ok(SERVER_NAME.test("s1") && !SERVER_NAME.test("s1-") && !SERVER_NAME.test("s_1"));
});

const LABELS: ContainerLabels = {
  project: "casa",
  service: "api",
  instance: "one",
  version: "7",
  deployment: "d1",
  config: "abc",
  parts: { environment: { A: "12ab" }, options: {} },
  health: { kind: "http", port: 3000, path: "/up", interval_ms: 1_000, timeout_ms: 500 },
  proxy: [{ name: "casa-api-3000", app_port: 3000, flags: ["--host=casa.example"] }],
  ports: ["3000/tcp"],
  address: "10.210.1.4",
};

Deno.test("parseContainerLabels(): round trip", () => {
  assert.deepEqual(parseContainerLabels(renderContainerLabels(LABELS)), LABELS);
});

Deno.test("parseContainerLabels(): hostile parts fall back to the safest meaning", () => {
  const raw = renderContainerLabels(LABELS);
  const hostile = parseContainerLabels({
    ...raw,
    "jiji.health": '{"kind":"http","port":99999,"path":"x"}',
    "jiji.proxy": '[{"name":"a b","app_port":1,"flags":["rm -rf /"]}]',
    "jiji.ports": "nonsense",
    "jiji.instance": "../../etc",
    "jiji.address": "10.1; reboot",
  });
  assert.equal(hostile?.health.kind, "engine");
  assert.deepEqual(hostile?.proxy, []);
  assert.deepEqual(hostile?.ports, []);
  assert.equal(hostile?.instance, "");
  assert.equal(hostile?.address, "");
  assert.equal(parseContainerLabels({ ...raw, "jiji.project": "$(x)" }), undefined);
  assert.equal(parseContainerLabels({}), undefined);
});

Deno.test("newestPerInstance(): one per instance and server, whatever the order", () => {
  const contender = fc.record({
    id: fc.stringMatching(/^[0-9a-f]{12}$/),
    project: fc.constant("casa"),
    service: fc.constantFrom("api", "web"),
    serverId: fc.constantFrom("s1", "s2"),
    instance: fc.constantFrom("a", "b"),
    startedAtMs: fc.nat(3),
  });
  fc.assert(fc.property(fc.uniqueArray(contender, { selector: (one) => one.id }), (all) => {
    const ids = (list: typeof all) => newestPerInstance(list).map((one) => one.id).sort();
    assert.deepEqual(ids(all), ids([...all].reverse()));
    for (const kept of newestPerInstance(all)) {
      const same = all.filter((one) =>
        one.service === kept.service && one.serverId === kept.serverId &&
        one.instance === kept.instance
      );
      assert.ok(same.every((one) => one.startedAtMs <= kept.startedAtMs));
    }
  }));
});

Deno.test("silentServers(): a stale, future or malformed report silences nobody", () => {
  const report = {
    format: 1,
    written_at_ms: 100_000,
    silent: ["s2"],
    rtt_ms: { s3: 1.5 },
  } as const;
  const parsed = parseLiveness(JSON.stringify(report));
  assert.deepEqual([...silentServers(parsed, 100_500)], ["s2"]);
  assert.equal(silentServers(parsed, 100_000 + LIVENESS_STALE_MS + 1).size, 0);
  assert.equal(silentServers(parsed, 100_000 - LIVENESS_STALE_MS - 1).size, 0);
  assert.equal(silentServers(parseLiveness("{"), 0).size, 0);
  assert.equal(parseLiveness(JSON.stringify({ ...report, silent: ["; rm"] })), undefined);
});

Deno.test("parsePeerSeeds(): round trip in a fixed order, malformed peers left out", () => {
  const peer = (id: string) => ({
    server_id: id,
    public_key: WG_KEY,
    block: "10.210.1.0/24",
    management_ip: "fdcc::1",
    endpoints: [],
  });
  const text = renderPeerSeeds([peer("b"), peer("a")]);
  assert.equal(text, renderPeerSeeds([peer("a"), peer("b")]));
  assert.deepEqual(parsePeerSeeds(text), [peer("a"), peer("b")]);
  const mixed = JSON.stringify({
    format: 1,
    peers: [peer("a"), { ...peer("c"), public_key: "x" }, 7],
  });
  assert.deepEqual(parsePeerSeeds(mixed).map((one) => one.server_id), ["a"]);
  for (const bad of ["", "[]", '{"format":2,"peers":[]}']) {
    assert.deepEqual(parsePeerSeeds(bad), []);
  }
});

Deno.test("parseServerConfig(): names the first field that is wrong", () => {
  const config = {
    format: 1,
    server_id: "s1",
    engine: "docker",
    cluster_cidr: "10.210.0.0/16",
    block: "10.210.1.0/24",
    management_ip: "fdcc::1",
    wireguard_public_key: WG_KEY,
    wireguard_port: 31820,
    endpoints: [],
    service_domain: "jiji",
  };
  assert.equal(parseServerConfig(JSON.stringify(config)).server_id, "s1");
  for (
    const [field, value] of [["engine", "lxc"], ["block", "10.210.1.1/24"], ["server_id", "A"]]
  ) {
    const text = JSON.stringify({ ...config, [field as string]: value });
    assert.throws(() => parseServerConfig(text), new RegExp(`server\\.json: ${field}`));
  }
});

const SERVER_CELLS = upsertServer({
  id: "s1",
  hostname: "h",
  subnet: "10.210.1.0/24",
  wireguardIp: "10.210.1.1",
  wireguardPubkey: WG_KEY,
  managementIp: "fdcc:0::1",
  endpoints: ["203.0.113.1:31820"],
  lastSeenMs: 5,
  doc: {},
})[1];
const CONTAINER_CELLS = upsertContainer({
  id: "a".repeat(64),
  project: "casa",
  service: "api",
  serverId: "s1",
  instance: "s1",
  name: "casa-api",
  version: "7",
  ip: "10.210.1.4",
  ports: ["3000/tcp"],
  startedAtMs: 1,
  health: "healthy",
  unhealthySinceMs: null,
})[1];

Deno.test("rows: what a statement writes is what the parser reads", () => {
  const server = parseServerRow([...SERVER_CELLS, null]);
  assert.ok(!("refused" in server));
  assert.equal(server.managementIp, "fdcc::1");
  const container = parseContainerRow(CONTAINER_CELLS);
  assert.ok(!("refused" in container));
  assert.deepEqual(upsertContainer(container)[1], CONTAINER_CELLS);
});

Deno.test("rows: any hostile cell refuses the row and never throws", () => {
  const hostile = fc.oneof(fc.string(), fc.integer(), fc.constant(null), fc.constant("'; DROP"));
  fc.assert(fc.property(fc.nat(9), hostile, (column, value) => {
    const cells = [...SERVER_CELLS, null];
    cells[column] = value;
    const row = parseServerRow(cells);
    if (!("refused" in row)) {
      assert.match(row.id, SERVER_NAME);
      assert.match(row.wireguardPubkey, /^[A-Za-z0-9+/=]{44}$/);
    }
  }));
  fc.assert(fc.property(fc.array(fc.anything(), { maxLength: 14 }), (cells) => {
    parseServerRow(cells);
    parseContainerRow(cells);
  }));
});

Deno.test("isLinked(): few peers must have answered, of many nobody may have complained", () => {
  const report = {
    format: 1,
    written_at_ms: 0,
    silent: ["s3"],
    rtt_ms: { s2: 1.5, s3: 2 },
  } as const;
  const mutable = { ...report, silent: [...report.silent] };
  const linked = (id: string, peers: number) => isLinked(mutable, { id, peers });
  assert.deepEqual(["s2", "s3", "s4"].map((id) => linked(id, 3)), [true, false, false]);
  assert.deepEqual(["s2", "s3", "s4"].map((id) => linked(id, 40)), [true, false, true]);
  assert.equal(isLinked(undefined, { id: "s2", peers: 3 }), false);
});

Deno.test("parseServerDoc(): leaves out what is malformed or unknown, and never the row", () => {
  const doc = { version: "1.2.3", schema: 1, nat: true, psk: "0123456789abcdef", next_key: WG_KEY };
  assert.deepEqual(parseServerDoc(renderServerDoc(doc)), doc);
  const mixed = { ...doc, psk: "; rm -rf /", accepts: ["x"], hobby: "hostile", schema: -1 };
  assert.deepEqual(parseServerDoc(JSON.stringify(mixed)), {
    version: "1.2.3",
    nat: true,
    next_key: WG_KEY,
  });
  for (const text of ["", "{", "null", "[1]", "7", `"${"x".repeat(9_000)}"`]) {
    const row = parseServerRow([...SERVER_CELLS.slice(0, 8), text, null]);
    assert.ok(!("refused" in row), text);
    assert.deepEqual(row.doc, {});
  }
});

Deno.test("blockHolders(): a removed server keeps its block, unless it never was its own", () => {
  const row = (subnet: string, removedAtMs: number | null = null) => ({ subnet, removedAtMs });
  const [one, two] = [row("10.210.0.0/24"), row("10.210.1.0/24", 5)];
  const [all, forged] = [row("10.210.0.0/16", 7), row("10.210.0.128/25", 7)];
  assert.deepEqual(blockHolders([all, one, forged, two, row("nonsense")]), [one, two]);
  assert.deepEqual(blockHolders([all, two]), [all, two], "nobody says that it is not theirs");
});

Deno.test("parseServerRow(): a refusal names the column and quotes what is in it", () => {
  const refused = parseServerRow(["a'; drop table servers\n", "h"]);
  assert.equal(
    "refused" in refused && refused.refused,
    `servers row refused: id can't be "a'; drop table servers?"`,
  );
});
