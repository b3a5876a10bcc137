import assert from "node:assert/strict";
import fc from "fast-check";
import { cidrsOverlap, parseCidr, renderCidr, type ServerRow } from "@jiji/core";
import {
  type ClusterSettings,
  planCluster,
  type PreparedServer,
} from "../src/lib/network/cluster_plan.ts";
import { parseServerFacts, type ServerFacts } from "../src/lib/network/server_facts.ts";

const SETTINGS: ClusterSettings = {
  engine: "docker",
  clusterCidr: parseCidr("10.210.0.0/16")!,
  blockPrefix: 24,
  wireguardPort: 31820,
  serviceDomain: "jiji",
};

const NONE = parseServerFacts("@machine x86_64\n", 0);

function server(name: string, changes: Partial<ServerFacts> = {}): PreparedServer {
  return {
    name,
    host: `${name}.example.com`,
    facts: { ...NONE, addresses: ["203.0.113.7", "2001:db8::7"], ...changes },
    publicKey: `key-${name}`,
    managementIp: `fdcc::${name.replace(/\D/g, "") || "1"}`,
  };
}

/** Units of a server whose Corrosion was started once. */
const STARTED: ServerFacts["units"] = new Map([
  ["jiji-corrosion.service", { enabled: true, active: true, startedAtSeconds: 1 }],
]);

function member(name: string, block: string): PreparedServer {
  return server(name, {
    units: STARTED,
    config: {
      format: 1,
      server_id: name,
      engine: "docker",
      cluster_cidr: "10.210.0.0/16",
      block,
      management_ip: "fdcc::9",
      wireguard_public_key: `key-${name}`,
      wireguard_port: 31820,
      endpoints: [],
      service_domain: "jiji",
    },
  });
}

function row(id: string, subnet: string, removedAtMs: number | null = null): ServerRow {
  return {
    id,
    hostname: id,
    subnet,
    wireguardIp: "",
    wireguardPubkey: `key-${id}`,
    managementIp: "fdcc::5",
    endpoints: ["203.0.113.5:31820"],
    lastSeenMs: 0,
    doc: {},
    removedAtMs,
  };
}

const blocksOf = (servers: readonly PreparedServer[], rows: readonly ServerRow[] = []) =>
  new Map(
    [...planCluster(servers, rows, SETTINGS)].map(([name, place]) => [name, place.config.block]),
  );

Deno.test("planCluster(): new servers get blocks, endpoints and each other as peers", () => {
  const places = planCluster([server("s1"), server("s2")], [], SETTINGS);
  const place = places.get("s1")!;
  assert.equal(place.joins, true);
  assert.equal(place.config.block, "10.210.0.0/24");
  assert.deepEqual(place.config.endpoints, [
    "s1.example.com:31820",
    "203.0.113.7:31820",
    "[2001:db8::7]:31820",
  ]);
  assert.deepEqual(place.peers.map((peer) => [peer.server_id, peer.block]), [
    ["s2", "10.210.1.0/24"],
  ]);
  assert.deepEqual(place.bootstrap, ["[fdcc::2]:31280"]);
});

Deno.test("planCluster(): split zones reach every server, also those that joined before", () => {
  const settings = { ...SETTINGS, dnsForward: { "corp.example": ["10.0.0.53"] } };
  const places = planCluster([server("s1"), member("s2", "10.210.7.0/24")], [], settings);
  for (const name of ["s1", "s2"]) {
    assert.deepEqual(places.get(name)?.config.dns_forward, { "corp.example": ["10.0.0.53"] });
  }
  assert.equal(planCluster([server("s1")], [], SETTINGS).get("s1")?.config.dns_forward, undefined);
});

Deno.test("planCluster(): a newcomer asks members first, and never more than five", () => {
  const servers = [
    ...["s1", "s2", "s3", "s4", "s5"].map((name) => server(name)),
    member("s6", "10.210.40.0/24"),
    member("s7", "10.210.41.0/24"),
  ];
  const { bootstrap } = planCluster(servers, [], SETTINGS).get("s1")!;
  assert.equal(bootstrap.length, 5);
  assert.deepEqual(bootstrap.slice(0, 2), ["[fdcc::6]:31280", "[fdcc::7]:31280"]);
});

Deno.test("planCluster(): a server whose first run was cut off joins, with the block it was given", () => {
  const settled = member("s1", "10.210.3.0/24");
  const cutOff = { ...settled, facts: { ...settled.facts, units: new Map() } };
  const place = planCluster([cutOff, server("s2")], [], SETTINGS).get("s1")!;
  assert.equal(place.joins, true);
  assert.equal(place.config.block, "10.210.3.0/24");
});

Deno.test("planCluster(): a member keeps its bootstrap list, so that nothing restarts", () => {
  const kept = ["[fdcc::77]:31280"];
  const one = member("s1", "10.210.0.0/24");
  const known = { ...one, facts: { ...one.facts, bootstrap: kept } };
  assert.deepEqual(planCluster([known, server("s2")], [], SETTINGS).get("s1")!.bootstrap, kept);
});

Deno.test("planCluster(): a server whose first run was cut off gets the block of its row", () => {
  const blocks = blocksOf([server("s9")], [row("s1", "10.210.0.0/24"), row("s9", "10.210.5.0/24")]);
  assert.equal(blocks.get("s9"), "10.210.5.0/24");
});

Deno.test("planCluster(): a removed server that is bare comes back with its block and a new key", () => {
  const rows = [{ ...row("s1", "10.210.4.0/24", 5), wireguardPubkey: "its-former-key" }];
  const place = planCluster([server("s1"), server("s2")], rows, SETTINGS).get("s1")!;
  assert.deepEqual([place.joins, place.config.block], [true, "10.210.4.0/24"]);
  assert.equal(place.config.wireguard_public_key, "key-s1");
});

Deno.test("planCluster(): removed servers are no peers", () => {
  const rows = [row("s1", "10.210.0.0/24", 5), row("s2", "10.210.1.0/24")];
  const place = planCluster([server("s3")], rows, SETTINGS).get("s3")!;
  assert.deepEqual(place.peers.map((peer) => peer.server_id), ["s2"]);
});

Deno.test("planCluster(): what contradicts the configuration is refused with the way on", () => {
  const refuse = (servers: PreparedServer[], rows: ServerRow[], pattern: RegExp, settings = {}) =>
    assert.throws(() => planCluster(servers, rows, { ...SETTINGS, ...settings }), pattern);
  const joined = member("s1", "10.210.0.0/24");
  refuse([{ ...joined, name: "web" }], [], /joined as "s1", the configuration calls it "web"/);
  refuse([joined], [], /belongs to 10\.210\.0\.0\/16, network\.cluster_cidr says 10\.0\.0\.0\/8/, {
    clusterCidr: parseCidr("10.0.0.0/8"),
  });
  refuse([joined], [], /runs on docker, builder\.engine says podman/, { engine: "podman" });
  refuse([joined], [], /s1 answers \*\.jiji, network\.service_domain says internal/, {
    serviceDomain: "internal",
  });
  refuse([joined], [row("s1", "10.210.0.0/24", 9)], /s1 was removed from this cluster/);
  const other = { ...row("s1", "10.210.0.0/24"), wireguardPubkey: "another" };
  refuse([server("s1")], [other], /another server of this cluster is already called "s1"/);
  refuse([server("s1"), { ...server("s2"), publicKey: "key-s1" }], [], /s1 and s2 have the same/);
  refuse([server("s1"), server("s2"), server("s3")], [], /full: all 2 blocks/, {
    clusterCidr: parseCidr("10.210.0.0/23"),
  });
});

/** A cluster that ran for a while: members, tombstones, rows of servers that are not connected. */
const history = fc.uniqueArray(fc.integer({ min: 0, max: 60 }), { maxLength: 25 }).chain((blocks) =>
  fc.tuple(
    fc.tuple(...blocks.map((block) =>
      fc.record({
        block: fc.constant(`10.210.${block}.0/24`),
        kind: fc.constantFrom("member", "tombstone", "unconnected", "cut off"),
      })
    )),
    fc.integer({ min: 0, max: 10 }),
  )
);

type History = [{ block: string; kind: string }[], number];

function played([past, newcomers]: History) {
  const named = past.map((one, index) => ({ ...one, name: `old${index}` }));
  return {
    named,
    servers: [
      ...named.filter((one) => one.kind === "member").map((one) => member(one.name, one.block)),
      ...named.filter((one) => one.kind === "cut off").map((one) => server(one.name)),
      ...Array.from({ length: newcomers }, (_, index) => server(`new${index}`)),
    ],
    rows: named.map((one) => row(one.name, one.block, one.kind === "tombstone" ? 1 : null)),
  };
}

Deno.test("planCluster(): no two servers ever share an address, members keep theirs", () => {
  fc.assert(fc.property(history, (past) => {
    const { named, servers, rows } = played(past as History);
    const blocks = blocksOf(servers, rows);
    for (const one of named.filter((each) => each.kind === "member" || each.kind === "cut off")) {
      assert.equal(blocks.get(one.name), one.block);
    }
    const everyone = new Map([...named.map((one) => [one.name, one.block] as const), ...blocks]);
    const cidrs = [...everyone.values()].map((text) => parseCidr(text)!);
    cidrs.forEach((cidr, index) => {
      for (const other of cidrs.slice(index + 1)) {
        assert(!cidrsOverlap(cidr, other), `${renderCidr(cidr)} twice, or a tombstone's reused`);
      }
    });
  }));
});

Deno.test("planCluster(): members' places do not depend on the order of servers and rows", () => {
  fc.assert(fc.property(
    history.chain((past) => {
      const { servers, rows } = played(past as History);
      return fc.tuple(
        fc.constant({ servers, rows }),
        fc.shuffledSubarray(servers, { minLength: servers.length }),
        fc.shuffledSubarray(rows, { minLength: rows.length }),
      );
    }),
    ([{ servers, rows }, otherServers, otherRows]) => {
      const one = planCluster(servers, rows, SETTINGS);
      const other = planCluster(otherServers, otherRows, SETTINGS);
      const blocks = (places: typeof one) =>
        [...places.values()].map((place) => place.config.block).sort();
      assert.deepEqual(blocks(one), blocks(other), "the same blocks are given out");
      for (const [name, place] of one) {
        if (name.startsWith("old")) {
          assert.deepEqual(place.config, other.get(name)!.config);
        }
      }
    },
  ));
});

Deno.test("planCluster(): what a run decided is what the next one finds", () => {
  fc.assert(fc.property(history, (past) => {
    const { servers, rows } = played(past as History);
    const first = planCluster(servers, rows, SETTINGS);
    const joined = servers.map((one): PreparedServer => {
      const place = first.get(one.name)!;
      const { config, bootstrap } = place;
      return { ...one, facts: { ...one.facts, units: STARTED, config, bootstrap } };
    });
    const second = planCluster(joined, rows, SETTINGS);
    for (const [name, place] of second) {
      assert.equal(place.joins, false);
      assert.deepEqual(place.config, first.get(name)!.config);
      assert.deepEqual(place.bootstrap, first.get(name)!.bootstrap);
    }
  }));
});

Deno.test("planCluster(): the row of a stranger that claimed all and was removed keeps nobody out", () => {
  const rows = [row("s1", "10.210.0.0/24"), row("stranger", "10.210.0.0/16", 5)];
  const blocks = blocksOf([member("s1", "10.210.0.0/24"), server("s2")], rows);
  assert.equal(blocks.get("s2"), "10.210.1.0/24");
});
