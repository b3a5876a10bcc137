import assert from "node:assert/strict";
import { JijiError } from "@jiji/core";
import { FakeProcess } from "@jiji/core/testing";
import type { ProgressEvent } from "../src/lib/output/events.ts";
import { argvBuild, BuildService, imageName } from "../src/lib/services/build_service.ts";
import { parseImages, planPrune, PruneService } from "../src/lib/services/image_prune_service.ts";
import { tagOf } from "../src/lib/images/image_shipping.ts";
import { configText, configurationOf } from "./configuration_fixture.ts";
import { MockCluster } from "./mock_server_state.ts";
import { MockSSHManager } from "./mocks.ts";

Deno.test("argvBuild(): plain and with every option", async (t) => {
  const wish = {
    engine: "docker",
    image: "localhost:31270/shop-web:1",
    build: { context: "/project/web", args: {}, secrets: [] },
    architectures: [],
    cache: true,
  } as const;
  await t.assertSnapshot(argvBuild(wish).join(" "));
  const full = {
    ...wish,
    engine: "podman" as const,
    build: {
      context: "/project/web",
      dockerfile: "/project/web/Dockerfile.prod",
      args: { VERSION: "1 2", ALPHA: "$(id)" },
      secrets: ["NPM_TOKEN"],
      target: "final",
    },
    architectures: ["amd64", "arm64"],
    cache: false,
  };
  const argv = argvBuild(full);
  await t.assertSnapshot(argv);
  assert.equal(argv.at(-1), "/project/web", "the context is last");
});

function building(process: FakeProcess) {
  const configuration = configurationOf(configText(`  web:
    build: {context: ./web}
    hosts: [s1]
`));
  const events: ProgressEvent[] = [];
  const service = new BuildService({
    process,
    configuration,
    version: "v1",
    cache: true,
    signal: new AbortController().signal,
    emit: (event) => events.push(event),
    now: () => 0,
  });
  return {
    run: () => service.build(configuration.services.get("web")!),
    events,
    configuration,
  };
}

Deno.test("BuildService: builds, then pushes, under one name", async () => {
  const process = new FakeProcess().on("docker build", "").on("docker push", "");
  const { run, events, configuration } = building(process);
  const image = await run();
  assert.equal(image, "localhost:31270/shop-web:v1");
  assert.equal(imageName(configuration, configuration.services.get("web")!, "v1"), image);
  assert.deepEqual(process.ran.map((argv) => argv[1]), ["build", "push"]);
  assert.deepEqual(events.map((event) => `${event.kind} ${event.lane}`), [
    "started build web",
    "done build web",
    "started push web",
    "done push web",
  ]);
});

Deno.test("BuildService: a build that fails says where, shows the end, and pushes nothing", async () => {
  const stderr = Array.from({ length: 50 }, (_, line) => `step ${line}`).join("\n");
  const process = new FakeProcess().on("docker build", () => ({ exitCode: 1, stderr }));
  const { run, events } = building(process);
  const error = await run().then(() => undefined, (reason) => reason);
  assert(error instanceof JijiError);
  assert.match(error.message, /^build of web failed \(\.jiji\/deploy\.yml:\d+:\d+\)/);
  assert.match(error.message, /step 49$/);
  assert(!error.message.includes("step 29\n"));
  assert.equal(error.serving, "nothing was changed on the servers");
  assert.deepEqual(process.commands("docker push"), []);
  assert.equal(events.at(-1)!.kind, "failed");
});

Deno.test("BuildService: a missing engine is told as such", async () => {
  const process = new FakeProcess().on(
    "docker build",
    () => ({ exitCode: 127, stderr: "not found" }),
  );
  await assert.rejects(building(process).run(), {
    hint: "docker must run on this machine, as builder.engine says",
  });
});

Deno.test("BuildService: build secrets travel in the engine's environment, never in its words", async () => {
  const configuration = configurationOf(
    configText(`  web:
    build: {context: ./web, secrets: [NPM_TOKEN], args: {SECRET_ID: NPM_TOKEN}}
    hosts: [s1]
`),
    { fileValues: { NPM_TOKEN: "t0ken-value" } },
  );
  configuration.validate();
  const seen: (Readonly<Record<string, string>> | undefined)[] = [];
  const process = new FakeProcess().on("docker build", (_, { env }) => {
    seen.push(env);
    return "";
  });
  await new BuildService({
    ...{ process, configuration, version: "v1", cache: true, push: false },
    ...{ signal: new AbortController().signal, emit: () => undefined, now: () => 0 },
  }).build(configuration.services.get("web")!);
  assert.deepEqual(seen, [{ NPM_TOKEN: "t0ken-value", DOCKER_BUILDKIT: "1" }]);
  assert.equal(process.ran.length, 1, "not pushed");
  assert.match(process.ran[0]!.join(" "), /--secret id=NPM_TOKEN,env=NPM_TOKEN/);
  assert(!process.ran[0]!.join(" ").includes("t0ken-value"));
});

const listed = (tag: string, repository = "localhost:31270/shop-web") =>
  JSON.stringify({
    id: `sha256:${tag}`,
    repository,
    tag,
    created: "2026-11-23 01:02:03 +0000 UTC",
  });

Deno.test("parseImages(): what the engine lists, without untagged ones and noise", () => {
  const text = [
    listed("3"),
    listed("<none>"),
    "",
    "WARNING",
    "null",
    "{}",
    '{"id":1}',
    listed("2"),
  ];
  assert.deepEqual(parseImages(text.join("\n")).map((image) => image.name), [
    "localhost:31270/shop-web:3",
    "localhost:31270/shop-web:2",
  ]);
});

Deno.test("planPrune(): keeps the newest, and always the one in use", () => {
  const images = ["5", "4", "3", "2", "1"].map((name) => ({ id: name, name, created: "" }));
  const plan = (keep: string, retain: number) => planPrune(images, { keep, retain });
  assert.deepEqual(plan("5", 3), ["2", "1"]);
  assert.deepEqual(plan("1", 3), ["3", "2"], "after a rollback the old one is in use");
  assert.deepEqual(plan("5", 1), ["4", "3", "2", "1"]);
  assert.deepEqual(plan("5", 0), ["4", "3", "2", "1"], "never the one in use");
  assert.deepEqual(plan("5", 9), []);
  assert.deepEqual(planPrune([], { keep: "5", retain: 1 }), []);
});

Deno.test("PruneService: an image that is still used stays, the others go", async () => {
  using cluster = new MockCluster(["s1"]);
  const host = new MockSSHManager(cluster.server("s1"));
  const repository = "localhost:31270/shop-web";
  for (const tag of ["1", "2", "3", "4"]) cluster.server("s1").images.add(`${repository}:${tag}`);
  host.addMockResponse(`rmi ${repository}:2`, { exitCode: 1, stderr: "image is being used" });
  await new PruneService(host, "docker").prune({
    repository,
    keep: `${repository}:4`,
    retain: 2,
  });
  assert.deepEqual(
    [...cluster.server("s1").images].sort(),
    ["2", "3", "4"].map((tag) => `${repository}:${tag}`),
  );
});

Deno.test("tagOf(): tag, digest, or latest; a registry's port is no tag", () => {
  const digest = "0123456789abcdef".repeat(4);
  assert.equal(tagOf("nginx"), "latest");
  assert.equal(tagOf("nginx:1.29"), "1.29");
  assert.equal(tagOf("ghcr.io/a/b"), "latest");
  assert.equal(tagOf("localhost:5000/a"), "latest");
  assert.equal(tagOf("localhost:5000/a/b:2"), "2");
  assert.equal(tagOf(`nginx:1.29@sha256:${digest}`), "0123456789ab");
});
