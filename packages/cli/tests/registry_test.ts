import assert from "node:assert/strict";
import type { Argv, CommandResult } from "@jiji/core";
import { FakeProcess } from "@jiji/core/testing";
import { ConfigError } from "../src/lib/configuration/config_issue.ts";
import { argvPull } from "../src/lib/engine/engine_commands.ts";
import {
  argvLogin,
  argvLogout,
  classifyRegistryFailure,
  registryAuthFolder,
  RegistryError,
  registryHostOf,
} from "../src/lib/registry/registry_commands.ts";
import { loginHere, loginOn, logoutOn } from "../src/lib/registry/registry_login.ts";
import { configText, configurationOf, problemsOf } from "./configuration_fixture.ts";
import { inFolder, LocalHost } from "./local_host.ts";

const withRegistry = (registry: string, services?: string) =>
  configText(services).replace("docker\n", `docker\n  registry: ${registry}\n`);

const REMOTE = "{server: 'registry.example.com:5000', username: ana, password: REG_PASSWORD}";

const loginOf = (text: string, fileValues: Record<string, string> = {}) =>
  configurationOf(text, { fileValues }).builder.registry.login();

Deno.test("RegistryConfiguration: a server makes it remote, and image names begin with it", () => {
  const prefix = (registry: string) => configurationOf(withRegistry(registry)).builder.registry;
  assert.equal(prefix(REMOTE).type, "remote");
  assert.equal(prefix(REMOTE).imagePrefix, "registry.example.com:5000");
  const shared = prefix("{type: remote, server: ghcr.io, username: Ana, password: p}");
  assert.equal(shared.imagePrefix, "ghcr.io/ana");
  assert.equal(prefix("{port: 5001}").imagePrefix, "localhost:5001");
});

Deno.test("RegistryConfiguration: says what a login lacks, and what does not belong to it", () => {
  const problems = (registry: string) => problemsOf(withRegistry(registry)).join("\n");
  assert.match(problems("{type: remote}"), /server is missing[^]*username[^]*password is missing/);
  assert.match(problems("{type: local, server: ghcr.io}"), /server belongs to a remote registry/);
  assert.match(problems(`{port: 5, ${REMOTE.slice(1)}`), /port belongs to the local registry/);
  assert.match(problems("{server: 'https://ghcr.io'}"), /not the name of a registry/);
});

Deno.test("RegistryConfiguration.login(): the password is written out or a secret's name, and hidden", () => {
  const login = loginOf(withRegistry(REMOTE), { REG_PASSWORD: "hunter22" });
  assert.equal(login?.password.reveal(), "hunter22");
  assert.equal(login.position, ".jiji/deploy.yml:4:76");
  assert.throws(() => loginOf(withRegistry(REMOTE)), (error: ConfigError) => {
    return error instanceof ConfigError && /REG_PASSWORD is not set/.test(error.message);
  });
  const configuration = configurationOf(
    withRegistry("{server: ghcr.io, username: ana, password: literal-pw}"),
  );
  assert.equal(configuration.builder.registry.login()?.password.reveal(), "literal-pw");
  assert.deepEqual(configuration.secretsGiven().map((secret) => secret.reveal()), ["literal-pw"]);
});

Deno.test("buildIssues(): an arg that names a secret is refused, with the way to pass it", () => {
  const services = (build: string) =>
    configText(
      `  web:\n    build: ${build}\n    hosts: [s1]\n    environment: {secrets: [API_KEY]}\n`,
    );
  const problems = (build: string) =>
    problemsOf(services(build), { fileValues: { NPM_TOKEN: "x" } }).join("\n");
  assert.match(problems("{args: {TOKEN: NPM_TOKEN}}"), /args\.TOKEN: NPM_TOKEN is a secret/);
  assert.match(problems("{args: {TOKEN: API_KEY}}"), /list API_KEY under build\.secrets/);
  assert.equal(problems("{args: {MODE: PRODUCTION}}"), "");
  assert.equal(problems("{args: {ID: NPM_TOKEN}, secrets: [NPM_TOKEN]}"), "");
});

Deno.test("registryHostOf(): by Docker's rule", () => {
  const hosts = ["nginx", "ana/app:1", "ghcr.io/a/b", "localhost/x", "r:5000/x@sha256:ab", "a.b"]
    .map(registryHostOf);
  const hub = "docker.io";
  assert.deepEqual(hosts, [hub, hub, "ghcr.io", "localhost", "r:5000", hub]);
});

Deno.test("argvLogin(), argvLogout(), argvPull(): the user's own files stay out of it", () => {
  const login = { server: "r.example.com", username: "ana" };
  const folder = registryAuthFolder("shop");
  const words = (engine: "docker" | "podman", authFolder?: string) =>
    [
      argvLogin(engine, login, { authFolder }),
      argvLogout(engine, login.server, { authFolder }),
      argvPull(engine, "r.example.com/x:1", { authFolder }),
    ].map((argv) => argv.join(" "));
  assert.deepEqual(words("docker", folder), [
    "docker --config /run/jiji/registry/shop login --username ana --password-stdin r.example.com",
    "docker --config /run/jiji/registry/shop logout r.example.com",
    "docker --config /run/jiji/registry/shop pull --quiet r.example.com/x:1",
  ]);
  const file = "--authfile /run/jiji/registry/shop/config.json";
  assert.deepEqual(words("podman", folder), [
    `podman login ${file} --username ana --password-stdin r.example.com`,
    `podman logout ${file} r.example.com`,
    `podman pull --quiet ${file} r.example.com/x:1`,
  ]);
  assert.equal(
    words("docker")[0],
    "docker login --username ana --password-stdin r.example.com",
  );
});

Deno.test("classifyRegistryFailure(): words of both engines", () => {
  const said: readonly (readonly [string, string])[] = [
    [
      "Error response from daemon: login attempt to https://r/v2/ failed with status: 401",
      "refused",
    ],
    ['Error: logging into "r": invalid username/password', "refused"],
    ["denied: requested access to the resource is denied", "refused"],
    ["x509: certificate signed by unknown authority", "not trusted"],
    ["http: server gave HTTP response to HTTPS client", "plain http"],
    ["dial tcp: lookup r on 10.0.0.2:53: no such host", "unreachable"],
    ["dial tcp 203.0.113.9:5000: connect: connection refused", "unreachable"],
    ["pinging container registry r: net/http: TLS handshake timeout", "unreachable"],
    ["blob upload invalid", "other"],
  ];
  for (const [text, wanted] of said) assert.equal(classifyRegistryFailure(text), wanted, text);
});

Deno.test("loginHere(): the password goes over standard input; a refusal says the way on", async () => {
  const login = loginOf(withRegistry(REMOTE), { REG_PASSWORD: "hunter22" })!;
  const given: unknown[] = [];
  const process = new FakeProcess().on("docker login", (_, { stdin }) => {
    given.push(stdin);
    return "Login Succeeded";
  });
  const signal = new AbortController().signal;
  await loginHere(login, { process, engine: "docker", signal });
  assert.deepEqual(given, ["hunter22"]);
  assert(!process.ran.flat().join(" ").includes("hunter22"));
  process.on("docker login", () => ({ exitCode: 1, stderr: "unauthorized: incorrect" }));
  const error = await loginHere(login, { process, engine: "docker", signal })
    .then(() => undefined, (reason) => reason);
  assert(error instanceof RegistryError);
  assert.equal(error.exitCode, 6);
  assert.match(error.message, /logging in to registry\.example\.com:5000 failed on this machine/);
  assert.match(error.hint ?? "", /\.jiji\/deploy\.yml:4:76/);
});

/** A server whose engine is a script that stores what it is given, as `docker login` does. */
class LoginHost extends LocalHost {
  override run(argv: Argv, options: Parameters<LocalHost["run"]>[1]): Promise<CommandResult> {
    const words = argv.map((word) => word.replace("/run/jiji", `${this.folder}/run`));
    const at = words.indexOf("docker");
    const folder = words[at + 2];
    const engine = ["sh", "-c", 'cat >"$1/config.json"; echo "$@" >&2', "sh", folder!];
    const [program, ...args] = at < 0 ? words : [...words.slice(0, at), ...engine];
    return super.run([program!, ...args], options);
  }
}

Deno.test("loginOn(), logoutOn(): a file for root alone, that stays only when asked for", () =>
  inFolder(async (folder) => {
    const host = new LoginHost("s1", folder);
    const login = loginOf(withRegistry(REMOTE), { REG_PASSWORD: "hunter22" })!;
    const signal = new AbortController().signal;
    const remote = { engine: "docker", project: "shop", signal } as const;
    assert.equal(await loginOn(host, login, { ...remote, keep: false }), false);
    const path = `${folder}/run/registry/shop/config.json`;
    assert.equal((await Deno.stat(path)).mode! & 0o777, 0o600);
    assert.equal((await Deno.stat(`${folder}/run/registry/shop`)).mode! & 0o777, 0o700);
    assert.equal(await loginOn(host, login, { ...remote, keep: false }), false);
    assert.equal(await loginOn(host, login, { ...remote, keep: true }), true);
    assert.equal(await loginOn(host, login, { ...remote, keep: false }), true, "it is to stay");
    await logoutOn(host, "shop");
    await assert.rejects(Deno.stat(path), Deno.errors.NotFound);
    const argvs = host.commands.map(({ argv }) => argv.join(" ")).join("\n");
    assert(!argvs.includes("hunter22"));
  }));
