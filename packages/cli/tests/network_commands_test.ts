import assert from "node:assert/strict";
import type { ServerStatus, StateStats } from "@jiji/core";
import {
  findCandidates,
  inspectContainer,
  type InspectSources,
} from "../src/lib/network/inspect_view.ts";
import { otherVersions } from "../src/lib/network/server_bootstrap.ts";
import { planRemoval, renderRemoval } from "../src/lib/network/removal_plan.ts";
import { BackupDecoder, refuseNoBackup } from "../src/lib/network/state_backup.ts";
import { compareStats, renderCell } from "../src/lib/network/state_view.ts";
import type { ObservedContainer } from "../src/lib/engine/inspect.ts";
import type { ObservedHost } from "../src/types/deployment.ts";

const ID = "0a1b2c3d4e5f".padEnd(64, "0");

function row(
  id: string,
  serverId: string,
  facts: { health?: "healthy" | "unhealthy"; service?: string } = {},
) {
  return {
    id,
    project: "shop",
    service: facts.service ?? "web",
    serverId,
    instance: serverId,
    name: `shop-${facts.service ?? "web"}`,
    version: "v1",
    ip: "10.210.1.3",
    ports: [],
    startedAtMs: 0,
    health: facts.health ?? "healthy" as const,
    unhealthySinceMs: null,
  };
}

function status(containers: ReturnType<typeof row>[] | null): ServerStatus {
  return {
    format: 1,
    version: "1",
    server_id: null,
    generated_at_ms: 0,
    servers: [],
    containers,
    peers: null,
    liveness: null,
    units: null,
    problems: [],
  };
}

function observed(id: string, facts: Partial<ObservedContainer> = {}): ObservedContainer {
  return {
    id,
    name: "shop-web",
    imageId: "sha256:1",
    imageName: "shop-web:v1",
    createdAtMs: 0,
    running: true,
    status: "running",
    exitCode: 0,
    address: "10.210.1.3",
    published: [],
    labels: {
      project: "shop",
      service: "web",
      instance: "s1",
      version: "v1",
      deployment: "",
      config: "",
      parts: { environment: {}, options: {} },
      health: { kind: "engine", interval_ms: 1, timeout_ms: 1 },
      proxy: [{ name: "shop-web-3000", app_port: 3000, flags: [] }],
      ports: [],
      address: "10.210.1.3",
    },
    ...facts,
  };
}

function host(name: string, containers: ObservedContainer[], targets: string[] = []): ObservedHost {
  return {
    name,
    config: {} as ObservedHost["config"],
    containers,
    proxyState: new Map([["shop-web-3000", targets]]),
    images: [],
    releaseImages: [],
  };
}

function sources(facts: Partial<InspectSources> = {}): InspectSources {
  const view = { address: "10.210.1.3", server: "s1", service: "shop-web", version: "v1" };
  return {
    statuses: new Map([["s1", status([row(ID, "s1")])], ["s2", status([row(ID, "s1")])]]),
    names: new Map([["s2", {
      filled: true,
      names: [{
        name: "shop-web.jiji",
        containers: [{ ...view, health: "healthy", answered: true, why: "healthy" }],
      }],
    }]]),
    observed: new Map([["s1", host("s1", [observed(ID)], ["10.210.1.3:3000"])]]),
    ...facts,
  };
}

const BOTH = new Set(["s1", "s2"]);

Deno.test("findCandidates(): a name or the beginning of an id, on the servers that are meant", () => {
  const found = (word: string, servers = BOTH) =>
    findCandidates(word, sources(), servers).map((one) => one.server);
  assert.deepEqual(found("shop-web"), ["s1"]);
  assert.deepEqual(found(ID.slice(0, 6)), ["s1"]);
  assert.deepEqual(found("shop"), []);
  assert.deepEqual(found("0"), [], "one digit is too little to be an id");
  assert.deepEqual(found("shop-web", new Set(["s2"])), []);
});

Deno.test("inspectContainer(): everything agrees, nothing to say", () => {
  const view = inspectContainer({ id: ID, name: "shop-web", server: "s1" }, sources());
  assert.deepEqual(view.problems, []);
  assert.equal(view.routes[0]?.listed, true);
  assert.deepEqual(view.dns["s2"], { name: "shop-web.jiji", answered: true, why: "healthy" });
});

Deno.test("inspectContainer(): says what does not fit together", () => {
  const view = inspectContainer(
    { id: ID, name: "shop-web", server: "s1" },
    sources({
      statuses: new Map([["s1", status([row(ID, "s1")])], ["s2", status([])]]),
      observed: new Map([["s1", host("s1", [observed(ID, { address: "10.210.1.9" })])]]),
    }),
  );
  assert.deepEqual(view.problems, [
    "no row of it on s2: gossip takes a moment, see network db stats",
    "its address differs: 10.210.1.3, 10.210.1.9",
    "the proxy does not list it for shop-web-3000",
  ]);
  const gone = inspectContainer(
    { id: ID, name: "shop-web", server: "s1" },
    sources({ observed: new Map([["s1", host("s1", [])]]) }),
  );
  assert.deepEqual(gone.engine, null);
  assert.match(gone.problems.join(), /no such container any more.*does not run/);
});

Deno.test("planRemoval(): by the server's own word, else by rows; elsewhere means healthy and there", () => {
  const rows = [
    row("a", "s1"),
    row("b", "s2"),
    row("c", "s3", { health: "unhealthy" }),
    row("d", "s1", { service: "api" }),
  ];
  const facts = { server: "s1", rows, own: undefined, staying: new Set(["s2", "s3"]) };
  assert.deepEqual(planRemoval(facts), [
    { service: "shop-api", containers: ["shop-api"], elsewhere: [] },
    { service: "shop-web", containers: ["shop-web"], elsewhere: ["s2"] },
  ]);
  const own = planRemoval({ ...facts, own: [observed(ID)], staying: new Set(["s3"]) });
  assert.deepEqual(renderRemoval(own), [
    "  remove shop-web; shop-web runs nowhere else: it will be gone",
  ]);
  assert.deepEqual(planRemoval({ ...facts, own: [observed(ID, { running: false })] }), []);
});

function stats(facts: Partial<StateStats> = {}): StateStats {
  return {
    format: 1,
    server_id: "s1",
    corrosion: "klukai 0.1.4",
    schema: 1,
    rows: { servers: 3, services: 1, containers: 2 },
    removed_servers: [],
    database_bytes: 3_000_000,
    members: 1,
    missing_versions: 0,
    heads: { A: 10, B: 20 },
    ...facts,
  };
}

Deno.test("compareStats(): in step, within the moment that gossip takes", () => {
  const near = stats({ heads: { A: 9, B: 19 } });
  const view = compareStats(new Map([["s1", stats()], ["s2", near]]));
  assert.deepEqual(view.differences, []);
  assert.deepEqual(view.rows[1], ["s2", "3", "0", "1", "2", "2.9 MB", "1", "0", "2"]);
});

Deno.test("compareStats(): says who is behind, alone or of another build; unknown is no fault", () => {
  const view = compareStats(
    new Map([
      ["s1", stats()],
      ["s2", stats({ heads: { A: 1 }, members: 0, missing_versions: 4 })],
      ["s3", stats({ heads: null, members: null, missing_versions: null, corrosion: "1.0" })],
    ]),
  );
  assert.deepEqual(view.differences.map((text) => text.split(/[;:]/)[0]), [
    "s2 is 29 changes behind the others",
    "s2 knows of 4 changes that it has not got yet",
    "s2 gossips with nobody",
    "builds of Corrosion differ",
  ]);
  assert.deepEqual(view.rows[2]?.slice(-3), ["?", "?", "?"]);
});

Deno.test("renderCell(): one line that no terminal obeys", () => {
  assert.equal(renderCell(null), "NULL");
  assert.equal(renderCell([0, 255]), "x'00ff'");
  assert.equal(renderCell("a\u001b[2J\nb\u009b"), "a [2J b ");
  assert.equal(renderCell("x".repeat(1_000_000)).length, 60);
});

Deno.test("BackupDecoder: base64 in pieces of any size; a cut or foreign text is refused", () => {
  const bytes = Uint8Array.from({ length: 1_000 }, (_, index) => index % 256);
  const text = btoa(String.fromCharCode(...bytes)).replace(/(.{76})/g, "$1\n");
  const decoder = new BackupDecoder();
  for (let at = 0; at < text.length; at += 7) decoder.take(text.slice(at, at + 7));
  assert.deepEqual(decoder.end(), bytes);
  const cut = new BackupDecoder();
  cut.take(text.slice(0, 99));
  assert.throws(() => cut.end(), /cut off/);
  assert.throws(() => new BackupDecoder().take("%%%%"), /no base64/);
});

Deno.test("refuseNoBackup(): a whole database and nothing else", () => {
  const file = new Uint8Array(8_192);
  file.set(new TextEncoder().encode("SQLite format 3\0"));
  file.set([0x10, 0x00], 16);
  assert.throws(() => refuseNoBackup(file, "other.db"), /is no backup/, "of something else");
  file.set(new TextEncoder().encode('sCREATE TABLE "servers__crsql_clock" ('), 5_000);
  refuseNoBackup(file, "a.db");
  assert.throws(() => refuseNoBackup(file.subarray(0, 8_000), "a.db"), /not whole/);
  assert.throws(() => refuseNoBackup(new TextEncoder().encode("project: shop\n"), "a.yml"));
  assert.throws(() => refuseNoBackup(new Uint8Array(0), "a.db"));
});

Deno.test("otherVersions(): members with another version, not those that were removed", () => {
  const server = (id: string, version: string | undefined, removedAtMs: number | null = null) => ({
    id,
    hostname: id,
    subnet: "",
    wireguardIp: "",
    wireguardPubkey: "",
    managementIp: "",
    endpoints: [],
    lastSeenMs: 0,
    removedAtMs,
    doc: { version },
  });
  const servers = [server("s1", "1"), server("s2", undefined), server("s3", "0.9", 5)];
  assert.equal(otherVersions({ ...status([]), servers }), undefined);
  const mixed = otherVersions({ ...status([]), servers: [...servers, server("s4", "0.9")] });
  assert.match(mixed ?? "", /1 here, 0\.9 on s4;/);
});
