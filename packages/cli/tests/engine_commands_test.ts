import assert from "node:assert/strict";
import { CONTAINER_NETWORK, LABELS, parseContainerLabels } from "@jiji/core";
import {
  argvRun,
  type ContainerPlace,
  type ContainerSpec,
  renderPublished,
} from "../src/lib/engine/container_run.ts";
import * as engine from "../src/lib/engine/engine_commands.ts";
import { parseInspectLines } from "../src/lib/engine/inspect.ts";
import {
  argvDeployRoute,
  argvRemoveRoute,
  argvRunProxy,
} from "../src/lib/engine/proxy_commands.ts";

const PLAIN: ContainerSpec = {
  image: "nginx:1.29",
  command: [],
  published: [],
  volumes: [],
  networkMode: "bridge",
  restart: "unless-stopped",
  devices: [],
  privileged: false,
  capAdd: [],
  labels: {},
  stopGraceSeconds: 10,
};

const FULL: ContainerSpec = {
  ...PLAIN,
  command: ["serve", "--motto", "it's; $(reboot)"],
  published: [
    { hostPort: 8080, containerPort: 80, protocol: "tcp" },
    { hostIp: "127.0.0.1", hostPort: 53, containerPort: 5353, protocol: "udp" },
  ],
  volumes: ["/data:/data:ro", "cache:/cache"],
  cpus: "1.5",
  memory: "512m",
  gpus: "all",
  devices: ["/dev/fuse", "/dev/snd:/dev/snd"],
  privileged: true,
  capAdd: ["NET_ADMIN", "SYS_TIME"],
  labels: { team: "shop", "jiji.service": "stolen", alpha: "1" },
};

const place = (name: "docker" | "podman"): ContainerPlace => ({
  engine: name,
  name: "shop-web",
  dnsServer: "10.210.1.1",
  serviceDomain: "jiji",
  envFile: "/run/jiji/env/shop-web",
  jijiLabels: {
    project: "shop",
    service: "web",
    instance: "s1",
    version: "1",
    deployment: "d1",
    config: "cafe",
    parts: { environment: { A: "1f2e" }, options: { memory: "03c4" } },
    health: { kind: "tcp", port: 80, interval_ms: 5_000, timeout_ms: 1_000 },
    proxy: [{ name: "shop-web-80", app_port: 80, flags: ["--host=a.example.com"] }],
    ports: ["80/tcp"],
    address: "10.210.1.3",
  },
});

for (const name of ["docker", "podman"] as const) {
  Deno.test(`argvRun(): plain and with every option, for ${name}`, async (t) => {
    await t.assertSnapshot(argvRun(PLAIN, place(name)));
    await t.assertSnapshot(argvRun(FULL, place(name)));
  });

  Deno.test(`argv of ${name}: every other command`, async (t) => {
    const route = place(name).jijiLabels.proxy[0]!;
    const times = {
      targets: ["10.210.1.3:80", "10.210.1.4:80"],
      drainTimeoutMs: 30_000,
      deployTimeoutMs: 5_000,
    };
    await t.assertSnapshot(
      [
        engine.argvPull(name, "nginx:1.29"),
        engine.argvPull(name, "localhost:31270/shop-web:1"),
        engine.argvPush(name, "localhost:31270/shop-web:1"),
        engine.argvPush(name, "ghcr.io/a/b:1"),
        engine.argvRename(name, "a", "b"),
        engine.argvStop(name, "a", 30),
        engine.argvStart(name, "a"),
        engine.argvRemove(name, "a"),
        engine.argvExec(name, "a", ["ls", "-l"]),
        engine.argvListImages(name, ["localhost:31270/shop-web"]),
        engine.argvRemoveImage(name, "localhost:31270/shop-web:1"),
        argvRunProxy({ engine: name, address: "10.210.1.2", dnsServer: "10.210.1.1" }),
        argvDeployRoute(name, route, times),
        argvRemoveRoute(name, "shop-web-80"),
      ].map((argv) => JSON.stringify(argv)).join("\n"),
    );
  });
}

Deno.test("argvRun(): jiji's labels win over the user's, and read back as they went in", () => {
  const argv = argvRun(FULL, place("docker"));
  const labels = argv.flatMap((word, index) => argv[index - 1] === "--label" ? [word] : []);
  assert.deepEqual(labels, [...labels].sort());
  const raw = Object.fromEntries(labels.map((label) => {
    const equals = label.indexOf("=");
    return [label.slice(0, equals), label.slice(equals + 1)];
  }));
  assert.equal(raw[LABELS.service], "web");
  assert.equal(raw["team"], "shop");
  assert.deepEqual(parseContainerLabels(raw), place("docker").jijiLabels);
});

Deno.test("argvRun(): a container of another network mode gets no address and no resolver", () => {
  const argv = argvRun({ ...PLAIN, networkMode: "host" }, place("docker"));
  assert.equal(argv[argv.indexOf("--network") + 1], "host");
  for (const flag of ["--ip", "--dns", "--dns-search"]) assert(!argv.includes(flag), flag);
});

Deno.test("argvRun(): what is logged has a limit on Docker, and goes where the user says", () => {
  const logging = (spec: ContainerSpec, engine: "docker" | "podman") =>
    argvRun(spec, place(engine)).filter((word, index, argv) =>
      /^--log-/.test(word) || /^--log-/.test(argv[index - 1] ?? "")
    ).join(" ");
  const limited = "--log-driver json-file --log-opt max-file=3 --log-opt max-size=10m";
  assert.equal(logging(PLAIN, "docker"), limited);
  assert.equal(logging(PLAIN, "podman"), "");
  const spec = { ...PLAIN, logging: { driver: "journald", options: { tag: "x", labels: "a" } } };
  for (const engine of ["docker", "podman"] as const) {
    const wanted = "--log-driver journald --log-opt labels=a --log-opt tag=x";
    assert.equal(logging(spec, engine), wanted);
  }
});

Deno.test("argvRun(): GPUs in each engine's own words", () => {
  const words = (gpus: string, engine: "docker" | "podman") => {
    const argv = argvRun({ ...PLAIN, gpus }, place(engine));
    return argv.filter((_, index) => ["--gpus", "--device"].includes(argv[index - 1] ?? ""));
  };
  assert.deepEqual(words("all", "docker"), ["all"]);
  assert.deepEqual(words("2", "docker"), ["2"]);
  assert.deepEqual(words("device=GPU-1,GPU-2", "docker"), ['"device=GPU-1,GPU-2"']);
  assert.deepEqual(words("all", "podman"), ["nvidia.com/gpu=all"]);
  assert.deepEqual(words("2", "podman"), ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
  assert.deepEqual(words("device=GPU-1,3", "podman"), ["nvidia.com/gpu=GPU-1", "nvidia.com/gpu=3"]);
});

Deno.test("argvRun(): the command follows the image, as the user wrote it", () => {
  const argv = argvRun(FULL, place("podman"));
  assert.deepEqual(argv.slice(argv.indexOf("nginx:1.29")), ["nginx:1.29", ...FULL.command]);
});

Deno.test("renderPublished(): with and without an address of the server", () => {
  const port = { hostPort: 80, containerPort: 3000, protocol: "tcp" } as const;
  assert.equal(renderPublished(port), "80:3000/tcp");
  assert.equal(renderPublished({ ...port, hostIp: "127.0.0.1" }), "127.0.0.1:80:3000/tcp");
});

const inspected = (changes: object = {}) => ({
  id: "0".repeat(64),
  name: "/shop-web",
  image: `sha256:${"1".repeat(64)}`,
  imageName: "nginx:1.29",
  created: "2026-11-23T01:02:03.5Z",
  state: { status: "running", running: true, exitCode: 0, startedAt: "2026-11-23T01:02:04Z" },
  labels: null,
  networks: { [CONTAINER_NETWORK]: { IPAddress: "10.210.1.3" } },
  ports: null,
  ...changes,
});

Deno.test("parseInspectLines(): docker's and podman's way of writing the same", () => {
  const lines = [inspected(), inspected({ name: "shop-web", image: "1".repeat(64) })];
  const { containers, refused } = parseInspectLines(
    lines.map((one) => JSON.stringify(one)).join("\n"),
  );
  assert.deepEqual(refused, []);
  assert.deepEqual(containers[0], containers[1]);
  assert.deepEqual(containers[0], {
    id: "0".repeat(64),
    name: "shop-web",
    imageId: "1".repeat(64),
    imageName: "nginx:1.29",
    createdAtMs: Date.parse("2026-11-23T01:02:03.5Z"),
    running: true,
    status: "running",
    exitCode: 0,
    address: "10.210.1.3",
    published: [],
    labels: undefined,
  });
});

Deno.test("parseInspectLines(): a container without address, network or date is still seen", () => {
  const changes = [
    { networks: null },
    { networks: {} },
    { networks: { [CONTAINER_NETWORK]: null } },
    { networks: { [CONTAINER_NETWORK]: { IPAddress: "" } } },
    { networks: { [CONTAINER_NETWORK]: { IPAddress: "$(reboot)" } } },
    { created: "0001-01-01" },
    { created: "never" },
  ];
  const text = changes.map((change) => JSON.stringify(inspected(change))).join("\n");
  const { containers, refused } = parseInspectLines(text);
  assert.deepEqual(refused, []);
  assert.deepEqual(containers.slice(0, 5).map((one) => one.address), ["", "", "", "", ""]);
  assert.equal(containers[6]!.createdAtMs, 0);
});

Deno.test("parseInspectLines(): lines that are no containers are told by number, never guessed", () => {
  const good = JSON.stringify(inspected());
  const text = [
    good,
    "",
    "Error: no such",
    "null",
    JSON.stringify(inspected({ id: "../x" })),
    good,
    "{",
  ];
  const { containers, refused } = parseInspectLines(text.join("\n"));
  assert.equal(containers.length, 2);
  assert.deepEqual(refused, [3, 4, 5, 7]);
});

Deno.test("INSPECT_FORMAT: a template that makes JSON and never touches the environment", () => {
  const json = engine.INSPECT_FORMAT.replace(/\{\{json [A-Za-z.]+\}\}/g, "null");
  assert.deepEqual(Object.keys(JSON.parse(json)).sort(), Object.keys(inspected()).sort());
  assert(!/Env/i.test(engine.INSPECT_FORMAT));
});
