import assert from "node:assert/strict";
import { JijiError } from "@jiji/core";
import { FakeProcess } from "@jiji/core/testing";
import type { ProgressEvent } from "../src/lib/output/events.ts";
import { argvBuild, BuildService, imageName } from "../src/lib/services/build_service.ts";
import { parseImages, planPrune } from "../src/lib/services/image_prune_service.ts";
import { tagOf } from "../src/lib/images/image_shipping.ts";
import { configText, configurationOf } from "./configuration_fixture.ts";

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

const SHOP_WEB = "localhost:31270/shop-web";

const listed = (id: string, tag: string, repository = SHOP_WEB) =>
  JSON.stringify({ id: `sha256:${id}`, repository, tag });

Deno.test("parseImages(): what the engine lists, without noise", () => {
  const lines = [listed("c", "3"), listed("b", "<none>"), "", "WARNING", "null", "{}", '{"id":1}'];
  assert.deepEqual(parseImages(lines.join("\n")), [
    { id: "c", repository: SHOP_WEB, tag: "3" },
    { id: "b", repository: SHOP_WEB, tag: undefined },
  ]);
});

Deno.test("parseImages(): Podman knows an untagged image's repository from its history", () => {
  const line = (history: string) =>
    JSON.stringify({ id: "sha256:a", repository: "<none>", tag: "<none>", history });
  const repositories = [`${SHOP_WEB}:3`, `${SHOP_WEB}:3, ${SHOP_WEB}:2`, ""].map((history) =>
    parseImages(line(history))[0]?.repository
  );
  assert.deepEqual(repositories, [SHOP_WEB, SHOP_WEB, ""]);
});

/** Images `5` (newest) to `1` of a repository, each with its tag as id. */
const five = (repository = SHOP_WEB) =>
  ["5", "4", "3", "2", "1"].map((tag) => ({ id: `${repository}${tag}`, repository, tag }));

const using = (...tags: readonly string[]) =>
  tags.map((tag) => ({ imageId: `${SHOP_WEB}${tag}`, imageName: `${SHOP_WEB}:${tag}` }));

Deno.test("planPrune(): keeps as many as the service retains, those in use among them", () => {
  const plan = (retain: number, ...used: readonly string[]) =>
    planPrune(five(), [{ service: "web", repository: SHOP_WEB, retain }], {
      containers: using(...used),
      releaseImages: [],
    })
      .map(({ reference }) => reference.slice(SHOP_WEB.length + 1));
  assert.deepEqual(plan(3, "5"), ["2", "1"]);
  assert.deepEqual(plan(3, "1"), ["3", "2"], "after a rollback the old one is in use");
  assert.deepEqual(plan(1, "5", "2"), ["4", "3", "1"], "what is in use never goes");
  assert.deepEqual(plan(9, "5"), []);
  assert.deepEqual(plan(2), ["3", "2", "1"], "nothing runs: the newest stay");
});

Deno.test("planPrune(): what releases were made of stays before what never got healthy", () => {
  const use = {
    containers: using("5"),
    releaseImages: ["5", "2", "1"].map((tag) => `${SHOP_WEB}:${tag}`),
  };
  const gone = planPrune(five(), [{ service: "web", repository: SHOP_WEB, retain: 3 }], use);
  assert.deepEqual(
    gone.map(({ reference }) => reference),
    ["4", "3"].map((tag) => `${SHOP_WEB}:${tag}`),
  );
});

Deno.test("planPrune(): each service has its own count, and names that only look alike are left", () => {
  const admin = "localhost:31270/shop-admin-web";
  const images = [...five(), ...five(admin), ...five("localhost:31270/shop-two-web")];
  const gone = planPrune(images, [
    { service: "web", repository: SHOP_WEB, retain: 4 },
    { service: "admin-web", repository: admin, retain: 2 },
  ], { containers: using("5"), releaseImages: [] });
  assert.deepEqual(gone, [
    { service: "web", reference: `${SHOP_WEB}:1` },
    ...["3", "2", "1"].map((tag) => ({ service: "admin-web", reference: `${admin}:${tag}` })),
  ]);
});

Deno.test("planPrune(): images that lost their tag go by id, unless a container uses them", () => {
  const untagged = (id: string) => ({ id, repository: SHOP_WEB, tag: undefined });
  const images = [untagged("aa"), untagged("bb"), { id: "cc", repository: SHOP_WEB, tag: "1" }];
  const used = [{ imageId: "aa", imageName: `${SHOP_WEB}:1` }];
  assert.deepEqual(
    planPrune(images, [{ service: "web", repository: SHOP_WEB, retain: 1 }], {
      containers: used,
      releaseImages: [],
    }),
    [{ service: "web", reference: "bb" }],
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
