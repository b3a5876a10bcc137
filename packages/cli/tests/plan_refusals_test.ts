import assert from "node:assert/strict";
import { parseAnswers } from "../src/lib/refusals/image_architectures.ts";
import { parseMachine, parseSockets } from "../src/lib/refusals/host_sockets.ts";
import { parseInspectLines } from "../src/lib/engine/inspect.ts";
import { parseProxyClaims } from "../src/lib/engine/proxy_commands.ts";
import { findRefusals, type RefusalInput } from "../src/lib/refusals/plan_refusals.ts";
import type { ObservedHost } from "../src/types/deployment.ts";
import { desiredOf } from "./deployment_fixture.ts";
import { MockCluster } from "./mock_server_state.ts";

type Container = ObservedHost["containers"][number];

/** A running container: `name project service`, or a name alone for one that is not jiji's. */
function container(text: string, facts: Partial<Container> = {}): Container {
  const [name = "", project, service = ""] = text.split(" ");
  return {
    id: "1",
    name,
    imageId: "1",
    imageName: "nginx:1",
    createdAtMs: 0,
    running: true,
    status: "running",
    exitCode: 0,
    address: "",
    published: [],
    labels: project === undefined ? undefined : {
      project,
      service,
      instance: "s1",
      version: "1",
      deployment: "d",
      config: "",
      parts: { environment: {}, options: {} },
      health: { kind: "engine", interval_ms: 1, timeout_ms: 1 },
      proxy: [{ name: `${name}-80`, app_port: 80, flags: [] }],
      ports: [],
      address: "",
    },
    ...facts,
  };
}

const PROXY = container("kamal-proxy");
const tcp = (hostPort: number, hostIp?: string) => ({ hostIp, hostPort, protocol: "tcp" }) as const;

/** Findings for services of project shop on s1 as it is, as `severity message`. */
async function findings(
  services: string,
  host: Partial<ObservedHost>,
  more: Partial<RefusalInput> = {},
): Promise<string[]> {
  using cluster = new MockCluster(["s1"]);
  const { desired } = await desiredOf(cluster, { services });
  const input: RefusalInput = {
    project: "shop",
    services: desired,
    hosts: new Map([["s1", {
      name: "s1",
      config: cluster.server("s1").config,
      containers: [PROXY],
      proxyState: new Map(),
      claims: [],
      images: [],
      releaseImages: [],
      arch: "amd64",
      sockets: [],
      ...host,
    }]]),
    architectures: new Map([["s1", "amd64"]]),
    images: new Map(),
    ...more,
  };
  return findRefusals(input).map(({ severity, message }) => `${severity}: ${message}`);
}

const DATABASE = `  database:
    image: nginx:1
    hosts: [s1]
    ports: ["127.0.0.1:5432:5432"]
    stop_first: true
`;
const WEB = `  web:
    image: nginx:1
    hosts: [s1]
    ports: [80]
    proxy: {app_port: 80, hosts: [a.com, b.com]}
`;

Deno.test("findRefusals(): nothing on a server where all is well", async () => {
  const own = container("shop-database shop database", { published: [tcp(5432, "127.0.0.1")] });
  const web = container("shop-web shop web");
  const claims = [{ name: "shop-web-80", hosts: ["a.com"], pathPrefixes: ["/"] }];
  const sockets = [{ ...tcp(5432, "127.0.0.1"), program: "docker-proxy" }];
  assert.deepEqual(await findings(DATABASE + WEB, { containers: [PROXY] }), []);
  const containers = [PROXY, own, web];
  assert.deepEqual(await findings(DATABASE + WEB, { containers, claims, sockets }), []);
});

Deno.test("findRefusals(): a port that another container or program has", async () => {
  const other = container("else-db else db", { published: [tcp(5432)] });
  assert.deepEqual(await findings(DATABASE, { containers: [other] }), [
    "refusal: port 5432/tcp of s1 is taken by service db of project else (container else-db)",
  ]);
  const foreign = container("postgres", { published: [tcp(5432, "127.0.0.1")] });
  assert.match((await findings(DATABASE, { containers: [foreign] })).join(), /container postgres/);
  const sockets = [{ ...tcp(5432, "127.0.0.1"), program: "postgres" }];
  assert.deepEqual(await findings(DATABASE, { sockets }), [
    "refusal: port 5432/tcp of s1 is taken by postgres",
  ]);
});

Deno.test("findRefusals(): a port is free on another address, protocol, or when nothing runs", async () => {
  const free: Partial<ObservedHost>[] = [
    { containers: [container("x", { published: [tcp(5432, "10.0.0.1")] })] },
    { containers: [container("x", { published: [tcp(5432)], running: false })] },
    { sockets: [{ hostIp: undefined, hostPort: 5432, protocol: "udp", program: "x" }] },
    { sockets: [{ ...tcp(5432, "10.0.0.1"), program: "x" }] },
    { sockets: undefined },
  ];
  for (const host of free) assert.deepEqual(await findings(DATABASE, host), []);
});

Deno.test("findRefusals(): a port that an earlier service gives up is free, a later one's is not", async () => {
  const moved = `  old: {image: 'nginx:1', hosts: [s1]}\n`;
  const holder = container("shop-old shop old", { published: [tcp(5432)] });
  assert.deepEqual(await findings(moved + DATABASE, { containers: [holder] }), []);
  assert.equal((await findings(DATABASE + moved, { containers: [holder] })).length, 1);
});

Deno.test("findRefusals(): a port open to everyone is told, not refused", async () => {
  const open = DATABASE.replace("127.0.0.1:5432:5432", "5432:5432");
  assert.deepEqual(await findings(open, {}), [
    "notice: port 5432/tcp is open to everyone who reaches the server: engines go past its firewall",
  ]);
});

Deno.test("findRefusals(): a container of that name that is not ours", async () => {
  const containers = [PROXY, container("shop-web"), container("shop-database shop-data base")];
  assert.deepEqual(await findings(DATABASE + WEB, { containers }), [
    "refusal: s1 has a container shop-database already, of service base of project shop-data",
    "refusal: s1 has a container shop-web already, which jiji did not make",
  ]);
});

Deno.test("findRefusals(): a host and path that another route answers", async () => {
  const other = container("blog-site blog site", {});
  const claims = [{ name: "blog-site-80", hosts: ["b.com"], pathPrefixes: ["/"] }];
  const containers = [PROXY, other];
  assert.deepEqual(await findings(WEB, { containers, claims }), [
    "refusal: b.com on s1 leads to service site of project blog already",
  ]);
  const unknown = [{ name: "by-hand", hosts: ["a.com"], pathPrefixes: ["/"] }];
  assert.match((await findings(WEB, { claims: unknown })).join(), /leads to the route by-hand/);
  const elsewhere = [
    { name: "p", hosts: ["b.com"], pathPrefixes: ["/api"] },
    { name: "q", hosts: ["*.com"], pathPrefixes: ["/"] },
    { name: "r", hosts: [""], pathPrefixes: ["/"] },
  ];
  assert.deepEqual(await findings(WEB, { claims: elsewhere }), []);
  const any = WEB.replace(", hosts: [a.com, b.com]", "");
  assert.match((await findings(any, { claims: elsewhere })).join(), /any host on s1 leads to/);
});

Deno.test("findRefusals(): a host that moves from one service to another must be free by then", async () => {
  const old = WEB.replace("web:", "old:").replace("a.com, b.com", "c.com");
  const containers = [PROXY, container("shop-old shop old")];
  const claims = [{ name: "shop-old-80", hosts: ["b.com"], pathPrefixes: ["/"] }];
  assert.deepEqual(await findings(old + WEB, { containers, claims }), []);
  assert.match(
    (await findings(WEB + old, { containers, claims })).join(),
    /b\.com on s1 leads to service old of project shop already/,
  );
});

Deno.test("findRefusals(): the proxy's own ports, unless it runs", async () => {
  const sockets = [{ ...tcp(80), program: "nginx" }, { ...tcp(443, "1.2.3.4"), program: "" }];
  assert.deepEqual(await findings(WEB, { sockets, containers: [] }), [
    "refusal: port 80 of s1, which the proxy needs, is taken by nginx",
    "refusal: port 443 of s1, which the proxy needs, is taken by a program",
  ]);
  assert.deepEqual(await findings(WEB, { sockets }), []);
});

Deno.test("findRefusals(): processors", async () => {
  const images = new Map([["s1", new Map([["nginx:1", ["amd64", "riscv64"]]])]]);
  assert.deepEqual(await findings(WEB, {}, { images }), []);
  assert.deepEqual(await findings(WEB, { arch: "arm64" }, { images }), [
    "notice: s1 has an arm64 processor, not amd64",
    "refusal: nginx:1 is made for amd64, riscv64, but s1 is arm64",
  ]);
  assert.deepEqual(await findings(WEB, { arch: undefined }, { images }), []);
  const built = WEB.replace("image: nginx:1", "build: .");
  assert.deepEqual(await findings(built, { arch: "arm64" }), [
    "refusal: s1 has an arm64 processor, not amd64",
  ]);
});

Deno.test("parseSockets(): what ss prints of both families", () => {
  const lines = [
    'tcp   LISTEN 0 4096 0.0.0.0:80 0.0.0.0:* users:(("nginx",pid=12,fd=6),("nginx",pid=13,fd=6))',
    'udp   UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:* users:(("systemd-resolve",pid=1,fd=13))',
    "tcp   LISTEN 0 128 [::1]:6010 [::]:*",
    "tcp   LISTEN 0 128 *:22 *:*",
    "nonsense",
    "",
    "raw UNCONN 0 0 *:1 *:*",
  ];
  assert.deepEqual(parseSockets(lines), [
    { hostIp: undefined, hostPort: 80, protocol: "tcp", program: "nginx" },
    { hostIp: "127.0.0.53", hostPort: 53, protocol: "udp", program: "systemd-resolve" },
    { hostIp: "::1", hostPort: 6010, protocol: "tcp", program: "" },
    { hostIp: undefined, hostPort: 22, protocol: "tcp", program: "" },
  ]);
  assert.deepEqual(["x86_64", "aarch64", "mips", undefined].map(parseMachine), [
    "amd64",
    "arm64",
    undefined,
    undefined,
  ]);
});

Deno.test("parseInspectLines(): ports of the server, in both engines' words", () => {
  const line = (ports: unknown) =>
    JSON.stringify({
      id: "0".repeat(64),
      name: "a",
      image: "1",
      imageName: "n",
      created: "",
      state: { status: "running", running: true, exitCode: 0, startedAt: "" },
      labels: null,
      networks: null,
      ports,
    });
  const ports = {
    "80/tcp": [{ HostIp: "", HostPort: "8080" }, { HostIp: "127.0.0.1", HostPort: "81" }],
    "53/udp": [{ HostIp: "0.0.0.0", HostPort: "53" }],
    "9/tcp": null,
    "10/tcp": [{ HostIp: "", HostPort: "" }],
  };
  const { containers } = parseInspectLines([line(ports), line(null), line({})].join("\n"));
  assert.deepEqual(containers.map((one) => one.published), [
    [tcp(8080), tcp(81, "127.0.0.1"), { hostIp: undefined, hostPort: 53, protocol: "udp" }],
    [],
    [],
  ]);
});

Deno.test("parseProxyClaims(): hosts and paths; half a file is unknown", () => {
  const state = JSON.stringify([
    { name: "a", options: { hosts: ["a.com"], path_prefixes: ["/api", "/v2"] } },
    { name: "b", options: { hosts: [""], path_prefixes: null } },
  ]);
  assert.deepEqual(parseProxyClaims(state), [
    { name: "a", hosts: ["a.com"], pathPrefixes: ["/api", "/v2"] },
    { name: "b", hosts: [""], pathPrefixes: ["/"] },
  ]);
  assert.deepEqual(parseProxyClaims(""), []);
  for (const text of ["[", "{}", '[{"name":1}]']) assert.equal(parseProxyClaims(text), undefined);
});

Deno.test("parseAnswers(): what servers and registries say of an image", () => {
  const index = {
    manifests: [
      { platform: { architecture: "arm64", os: "linux" } },
      { platform: { architecture: "amd64", os: "linux" } },
      { platform: { architecture: "unknown", os: "unknown" } },
    ],
  };
  const verbose = [{ Descriptor: { platform: { architecture: "amd64" } } }];
  const single = { Descriptor: { platform: { architecture: "arm64" } } };
  const base64 = (value: unknown) => btoa(JSON.stringify(value));
  const text = [
    "@has amd64 nginx:1",
    `@manifest ${base64(index)} ghcr.io/a/b:2`,
    `@manifest ${base64(verbose)} c`,
    `@manifest ${base64(single)} d`,
    `@manifest ${base64({ schemaVersion: 2 })} single-without-platform`,
    "@manifest !! odd",
    "Error",
  ].join("\n");
  assert.deepEqual([...parseAnswers(text)], [
    ["nginx:1", ["amd64"]],
    ["ghcr.io/a/b:2", ["amd64", "arm64"]],
    ["c", ["amd64"]],
    ["d", ["arm64"]],
  ]);
});
