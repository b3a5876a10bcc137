import assert from "node:assert/strict";
import { Secret } from "@jiji/core";
import {
  desiredService,
  serviceEnvironment,
  type ServiceImage,
} from "../src/lib/deployment/desired_services.ts";
import type { DesiredService } from "../src/types/deployment.ts";
import { configText, configurationOf } from "./configuration_fixture.ts";
import { inFolder } from "./local_host.ts";

const IMAGE: ServiceImage = { name: "nginx:1.29", identity: "nginx:1.29", version: "1.29" };

const BASE: Readonly<Record<string, string>> = {
  image: "nginx:1.29",
  hosts: "[s1, s2]",
  ports: "[80]",
  proxy: "{app_port: 80, host: shop.example.com}",
};

interface Wish {
  readonly changes?: Readonly<Record<string, string>>;
  readonly image?: ServiceImage;
  readonly values?: Readonly<Record<string, string>>;
  readonly engine?: string;
  readonly root?: string;
}

/** The service `web` of a configuration with these keys. */
async function desired(wish: Wish = {}): Promise<DesiredService> {
  const keys = Object.entries({ ...BASE, ...wish.changes });
  const services = `  web:\n${keys.map(([key, text]) => `    ${key}: ${text}\n`).join("")}`;
  const text = configText(services).replace("engine: docker", `engine: ${wish.engine ?? "docker"}`);
  const configuration = configurationOf(text, {
    fileValues: wish.values ?? {},
    ...(wish.root === undefined ? {} : { projectRoot: wish.root }),
  });
  configuration.validate();
  const service = configuration.services.get("web")!;
  const environment = serviceEnvironment(service, service.environment.resolveSecrets());
  return await desiredService(configuration, service, { image: wish.image ?? IMAGE, environment });
}

Deno.test("desiredService(): folders exist on the server even when they are empty here", () =>
  inFolder(async (root) => {
    const directories = '["missing:/a", {local: static, remote: /b, mode: "0640", owner: "7:8"}]';
    await Deno.mkdir(`${root}/static`);
    await Deno.writeTextFile(`${root}/static/x`, "x");
    const { folders, files, spec } = await desired({ changes: { directories }, root });
    const short = (path: string) => path.replace(/[0-9a-f]{16}/, "HASH");
    const base = "/var/lib/jiji/projects/shop/files/web/HASH/tree";
    assert.deepEqual(folders?.map((folder) => ({ ...folder, remote: short(folder.remote) })), [
      { remote: base, mode: 0o755, owner: undefined },
      { remote: base, mode: 0o750, owner: "7:8" },
    ]);
    assert.deepEqual(files.map(({ mode, owner }) => [mode, owner]), [[0o640, "7:8"]]);
    assert.deepEqual(spec.volumes.map(short), [`${base}:/a`, `${base}:/b`]);
  }));

Deno.test("desiredService(): a service's own drain time wins", async () => {
  assert.equal((await desired()).drainTimeoutMs, 30_000);
  assert.equal((await desired({ changes: { drain_timeout: "5s" } })).drainTimeoutMs, 5_000);
});

/** Which hashes differ from those of the plain service. */
async function altered(wish: Wish): Promise<string[]> {
  const before = (await desired()).fingerprint;
  const after = (await desired(wish)).fingerprint;
  return (["image", "environment", "options"] as const).filter((key) => before[key] !== after[key]);
}

Deno.test("desiredService(): the same wish gives the same fingerprint", async () => {
  const one = await desired();
  assert.deepEqual(one, await desired());
  const { image, environment, options } = one.fingerprint;
  for (const hash of [image, environment, options]) assert.match(hash, /^[0-9a-f]{16}$/);
});

Deno.test("desiredService(): each change alters the one hash that names it", async () => {
  const other = { ...IMAGE, identity: `sha256:${"1".repeat(64)}` };
  assert.deepEqual(await altered({ image: other }), ["image"]);
  assert.deepEqual(await altered({ changes: { environment: "{clear: {A: b}}" } }), ["environment"]);
  const options: readonly [string, string][] = [
    ["command", "[nginx, -g, x]"],
    ["ports", "[80, 81]"],
    ["volumes", '["/data:/data"]'],
    ["memory", "64m"],
    ["cpus", "0.5"],
    ["cap_add", "[NET_ADMIN]"],
    ["privileged", "true"],
    ["devices", '["/dev/fuse"]'],
    ["labels", "{team: shop}"],
    ["logging", "{driver: local}"],
    ["restart", "always"],
    ["proxy", "{app_port: 80, host: other.example.com}"],
    ["proxy", "{app_port: 80, host: shop.example.com, healthcheck: {path: /health}}"],
  ];
  for (const [key, text] of options) {
    assert.deepEqual(await altered({ changes: { [key]: text } }), ["options"], `${key}: ${text}`);
  }
});

Deno.test("desiredService(): what does not make the container changes no hash", async () => {
  const none: readonly [string, string][] = [
    ["hosts", "[s1]"],
    ["retain", "7"],
    ["stop_first", "true"],
    ["drain_timeout", "5s"],
  ];
  for (const [key, text] of none) {
    assert.deepEqual(await altered({ changes: { [key]: text } }), [], `${key}: ${text}`);
  }
  assert.deepEqual(await altered({ image: { ...IMAGE, name: "mirror/nginx:1.29" } }), [], "name");
});

Deno.test("desiredService(): a secret's value alters the hash and is nowhere in the result", async () => {
  const changes = { environment: "{clear: {MODE: open}, secrets: [PASSWORD]}" };
  const one = await desired({ changes, values: { PASSWORD: "correct horse" } });
  const two = await desired({ changes, values: { PASSWORD: "battery staple" } });
  assert.notEqual(one.fingerprint.environment, two.fingerprint.environment);
  assert.deepEqual({ ...one, fingerprint: null }, { ...two, fingerprint: null });
  assert(!JSON.stringify([one, two]).includes("correct horse"));
});

Deno.test("serviceEnvironment(): clear values and the service's own secrets, no others", () => {
  const text = configText(`  web:
    image: nginx
    hosts: [s1]
    environment: {clear: {A: "1"}, secrets: [B]}
`);
  const service = configurationOf(text, { fileValues: { B: "2" } }).services.get("web")!;
  const secrets = new Map([["B", new Secret("2")], ["C", new Secret("3")]]);
  assert.deepEqual([...serviceEnvironment(service, secrets)], [["A", "1"], ["B", "2"]]);
});

Deno.test("desiredService(): the old container stops first where the user says so", async () => {
  assert.equal((await desired()).stopFirst, false);
  const changes = { ports: '["127.0.0.1:8080:80"]', stop_first: "true" };
  const { stopFirst, spec } = await desired({ changes });
  assert.equal(stopFirst, true);
  assert.deepEqual(spec.published, [
    { hostIp: "127.0.0.1", hostPort: 8080, containerPort: 80, protocol: "tcp" },
  ]);
});

Deno.test("desiredService(): podman restarts always, since only that survives a reboot", async () => {
  assert.equal((await desired({ engine: "podman" })).spec.restart, "always");
  assert.equal((await desired()).spec.restart, "unless-stopped");
});

Deno.test("desiredService(): health and routes as labels carry them", async (t) => {
  const checks = [
    "{app_port: 80, host: shop.example.com, healthcheck: {path: /up, interval: 2s, timeout: 1500ms}}",
    "{app_port: 80, hosts: [a.example.com, '*.b.example.com'], path_prefix: /api, response_timeout: 90s}",
    "{app_port: 80, host: shop.example.com, ssl: true}",
    "{app_port: 80, host: shop.example.com, healthcheck: {cmd: 'true'}}",
  ];
  for (const proxy of checks) {
    const { health, routes, ports } = await desired({ changes: { proxy } });
    await t.assertSnapshot({ health, routes, ports });
  }
});

const FILES = {
  files: '["conf/app.conf:/etc/app.conf:ro"]',
  directories: '["static:/srv/static"]',
};

async function project(folder: string, name: string, content: string): Promise<string> {
  const root = `${folder}/${name}`;
  await Deno.mkdir(`${root}/conf`, { recursive: true });
  await Deno.mkdir(`${root}/static/deep`, { recursive: true });
  await Deno.writeTextFile(`${root}/conf/app.conf`, content);
  await Deno.writeTextFile(`${root}/static/b`, "b");
  await Deno.writeTextFile(`${root}/static/deep/a`, "a");
  return root;
}

Deno.test("desiredService(): files are named by their content, the same from every laptop", () =>
  inFolder(async (folder) => {
    const here = await desired({ changes: FILES, root: await project(folder, "here", "one") });
    const there = await desired({ changes: FILES, root: await project(folder, "there", "one") });
    const changed = await desired({
      changes: FILES,
      root: await project(folder, "changed", "two"),
    });
    const remote = (service: DesiredService) =>
      service.files.map((file) => file.remote.replace(/[0-9a-f]{16}/, "HASH"));
    assert.deepEqual(remote(here), [
      "/var/lib/jiji/projects/shop/files/web/HASH/file",
      "/var/lib/jiji/projects/shop/files/web/HASH/tree/b",
      "/var/lib/jiji/projects/shop/files/web/HASH/tree/deep/a",
    ]);
    assert.deepEqual(here.spec, there.spec);
    assert.deepEqual(here.fingerprint, there.fingerprint);
    assert.notEqual(here.fingerprint.options, changed.fingerprint.options);
    assert.notEqual(
      here.files[0]!.remote,
      changed.files[0]!.remote,
      "never under a running container",
    );
    assert.equal(here.files[1]!.remote, changed.files[1]!.remote);
    assert.match(here.spec.volumes[0]!, /\/file:\/etc\/app\.conf:ro$/);
    assert.match(here.spec.volumes[1]!, /\/tree:\/srv\/static$/);
  }));
