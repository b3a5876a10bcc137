import assert from "node:assert/strict";
import { ConnectionError, parseContainerLabels, SERVER_PATHS } from "@jiji/core";
import { argvAwait, awaitConvergence } from "../src/lib/deployment/convergence_barrier.ts";
import {
  renderPlanSteps,
  renderPlanSummary,
  renderStep,
} from "../src/lib/output/deployment_plan_text.ts";
import { listServices } from "../src/lib/services/service_listing.ts";
import type { DeployStep, InstancePlan, ObservedHost } from "../src/types/deployment.ts";
import { configText, configurationOf } from "./configuration_fixture.ts";
import { desiredOf } from "./deployment_fixture.ts";
import { MockCluster } from "./mock_server_state.ts";
import { MockSSHManager } from "./mocks.ts";

const ROUTE = { name: "shop-web-80", app_port: 80, flags: [] };

const EVERY_STEP: readonly DeployStep[] = [
  { kind: "installProxy", address: "10.210.1.2" },
  { kind: "pullImage", image: "nginx:1", always: false },
  {
    kind: "shipFiles",
    files: [{ local: "/p/a", remote: "/var/a", mode: 0o644, owner: undefined }],
  },
  { kind: "renameContainer", from: "shop-web", to: "shop-web_old_1" },
  { kind: "startContainer", name: "shop-web", argv: ["docker"], envFile: "/run/jiji/env/x" },
  { kind: "resumeContainer", name: "shop-web" },
  { kind: "healthGate", name: "shop-web", timeoutMs: 30_000 },
  { kind: "routeProxy", route: ROUTE, targets: ["10.210.1.3:80"], drainTimeoutMs: 1 },
  {
    kind: "runRelease",
    name: "shop-web_release",
    argv: ["docker"],
    envFile: "/x",
    timeoutMs: 9_000,
  },
  { kind: "removeRoute", route: "shop-web-80", drainTimeoutMs: 1 },
  { kind: "stopContainer", name: "shop-web_old_1", graceSeconds: 10 },
  { kind: "removeContainer", name: "shop-web_old_1" },
  { kind: "removeImages", images: ["shop-web:1"], bestEffort: true },
  { kind: "keepRelease", file: "000000000000001.json", bestEffort: true },
  { kind: "writeAudit", message: "web: done", bestEffort: true },
];

function instance(host: string, changes: Partial<InstancePlan> = {}): InstancePlan {
  return {
    service: "web",
    host,
    action: "replace",
    causes: ["image changed"],
    recover: [],
    prepare: [],
    release: [],
    start: [],
    switch: [],
    expect: [],
    retire: [],
    undo: [],
    before: "1",
    ...changes,
  };
}

async function planOf(instances: readonly InstancePlan[]) {
  using cluster = new MockCluster(["s1"]);
  const services = "  web: {image: 'nginx:1', hosts: [s1]}\n";
  const [service] = (await desiredOf(cluster, { services })).desired;
  return { deployment: "d1", services: [{ service: service!, instances }] };
}

Deno.test("renderStep(): has words for every step, while it runs and once it is done", async (t) => {
  const words = EVERY_STEP.map(renderStep);
  await t.assertSnapshot(words.map(({ doing, done }) => `${doing} | ${done}`).join("\n"));
});

Deno.test("renderPlanSteps(): every step in the order in which it is done, with its cause", async (t) => {
  const plan = await planOf([
    instance("s1", {
      recover: EVERY_STEP.slice(0, 1),
      prepare: EVERY_STEP.slice(1, 3),
      start: EVERY_STEP.slice(3, 7),
      switch: EVERY_STEP.slice(7, 9),
      expect: [
        { name: "shop-web.jiji", has: "10.210.1.3", lacks: "10.210.1.9" },
        { name: "shop-web-s1.jiji", has: "10.210.1.3", lacks: undefined },
      ],
      retire: EVERY_STEP.slice(9),
    }),
  ]);
  await t.assertSnapshot(renderPlanSteps(plan).join("\n"));
});

Deno.test("renderPlanSummary(): servers with the same fate share a line", async () => {
  const plan = await planOf([
    instance("s1"),
    instance("s2"),
    instance("s3", { action: "as is", causes: [] }),
  ]);
  assert.deepEqual(renderPlanSummary(plan), [
    "  web  s1 s2  replace  image changed",
    "  web  s3     as is",
  ]);
  assert.deepEqual(renderPlanSummary({ deployment: "d", services: [] }), []);
});

const WISHES = [
  { name: "shop-web.jiji", has: "10.210.1.3", lacks: "10.210.1.9" },
  { name: "shop-web.jiji", has: "10.210.2.3", lacks: undefined },
  { name: "shop-api.jiji", has: "10.210.1.4", lacks: undefined },
];

Deno.test("argvAwait(): one word a name, several expectations joined", () => {
  assert.deepEqual(argvAwait(WISHES), [
    `${SERVER_PATHS.bin}/jiji-dns`,
    "await",
    "--timeout-ms",
    "5000",
    "shop-web.jiji=+10.210.1.3,-10.210.1.9,+10.210.2.3",
    "shop-api.jiji=+10.210.1.4",
  ]);
});

const barrier = (hosts: readonly MockSSHManager[], signal = new AbortController().signal) =>
  awaitConvergence(hosts, WISHES, signal);

Deno.test("awaitConvergence(): nothing to wait for asks nobody", async () => {
  using cluster = new MockCluster(["s1"]);
  const host = new MockSSHManager(cluster.server("s1"));
  assert.deepEqual(await awaitConvergence([host], [], new AbortController().signal), []);
  assert.deepEqual(host.commands, []);
});

Deno.test("awaitConvergence(): names each server that did not follow, and why", async () => {
  using cluster = new MockCluster(["s1", "s2", "s3", "s4"]);
  const [s1, s2, s3, s4] = [...cluster.servers.values()].map((state) => new MockSSHManager(state));
  s1!.addMockResponse("jiji-dns await", {
    stdout: '{"converged":true,"waited_ms":1,"pending":[]}',
  });
  const pending = (answers: string[], error: string | null) => ({
    name: "shop-web.jiji",
    answers,
    missing: [],
    unwanted: [],
    error,
  });
  s2!.addMockResponse("jiji-dns await", {
    exitCode: 1,
    stdout: JSON.stringify({
      converged: false,
      waited_ms: 5_000,
      pending: [pending(["10.210.1.9"], null), pending([], null), pending([], "refused")],
    }),
  });
  s3!.addMockResponse("jiji-dns await", { exitCode: 127, stderr: "sh: 1:\njiji-dns: not found\n" });
  s4!.run = () => Promise.reject(new ConnectionError("gone", { host: "s4", phase: "lost" }));
  assert.deepEqual(await barrier([s1!, s2!, s3!, s4!]), [
    {
      host: "s2",
      reason: "shop-web.jiji answers 10.210.1.9; shop-web.jiji answers nothing; " +
        "shop-web.jiji answers refused",
    },
    { host: "s3", reason: "jiji-dns does not answer: jiji-dns: not found" },
    { host: "s4", reason: "gone" },
  ]);
});

Deno.test("awaitConvergence(): an interruption is no straggler", async () => {
  using cluster = new MockCluster(["s1"]);
  const host = new MockSSHManager(cluster.server("s1"));
  await assert.rejects(barrier([host], AbortSignal.abort(new Error("interrupted"))), /interrupted/);
});

function observed(name: string, containers: readonly string[]): ObservedHost {
  const labels = (service: string, project = "shop") =>
    parseContainerLabels({
      "jiji.project": project,
      "jiji.service": service,
      "jiji.version": "7",
    });
  return {
    name,
    config: new MockCluster([name]).server(name).config,
    proxyState: new Map(),
    images: [],
    releaseImages: [],
    containers: containers.map((text, index) => {
      const [container = "", service = "", project] = text.split(" ");
      return {
        id: String(index).repeat(12),
        name: container,
        imageId: "1",
        imageName: "nginx",
        createdAtMs: index,
        running: true,
        status: "running",
        exitCode: 0,
        published: [],
        address: `10.210.1.${index + 3}`,
        labels: service ? labels(service, project) : undefined,
      };
    }),
  };
}

Deno.test("listServices(): what runs where, what is missing, what a deploy left behind", () => {
  const configuration = configurationOf(configText(`  web:
    image: nginx
    hosts: [s1, s2]
    ports: [80]
    proxy: {app_port: 80, host: shop.example.com, ssl: true}
  api:
    image: nginx
    hosts: [s2]
`));
  const listed = listServices("shop", [...configuration.services.values()], [
    observed("s2", [
      "shop-web web",
      "shop-web_old_1764000000000 web",
      "other-web web other",
      "mine",
    ]),
    observed("s1", ["shop-api api"]),
  ]);
  assert.deepEqual(
    listed.map((
      row,
    ) => [row.service, row.instance, row.state, row.version, row.address, row.dnsName]),
    [
      ["web", "", "missing", "", "", ""],
      ["web", "s2", "running", "7", "10.210.1.3", "shop-web.jiji"],
      ["web", "s2", "replacing", "7", "10.210.1.4", "shop-web.jiji"],
      // Not configured there any more, and ours all the same.
      ["api", "s1", "running", "7", "10.210.1.3", "shop-api.jiji"],
      ["api", "", "missing", "", "", ""],
    ],
  );
  assert.deepEqual(listed[1]!.urls, ["https://shop.example.com"]);
});
