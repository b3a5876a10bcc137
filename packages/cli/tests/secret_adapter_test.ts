import assert from "node:assert/strict";
import { systemProcess } from "@jiji/core";
import { FakeProcess } from "@jiji/core/testing";
import { ConfigError } from "../src/lib/configuration/config_issue.ts";
import { ConfigurationLoader } from "../src/lib/configuration/loader.ts";
import { argvDownload, dopplerAdapter, parseDopplerSecrets } from "../src/lib/secrets/doppler.ts";
import { secretReferences } from "../src/lib/secrets/secret_references.ts";
import { ConfigDocument } from "../src/lib/configuration/format/document.ts";
import { configText } from "./configuration_fixture.ts";
import { inFolder } from "./local_host.ts";

const SETTINGS = { project: "shop", config: "prd" };

/**
 * A `doppler` as strict as the real one: knows two commands, wants a token or a login, and refuses
 * words it does not know. It notes how often it was asked.
 */
const FAKE_DOPPLER = `#!/bin/sh
echo "$@" >>"$FAKE_LOG"
case "$1" in
  --version) echo v3.75.0; exit 0 ;;
  me) [ -n "$FAKE_LOGIN" ] && exit 0; echo "Doppler Error: you must provide a token" >&2; exit 1 ;;
esac
[ "$1 $2" = "secrets download" ] || { echo "Doppler Error: unknown command" >&2; exit 1; }
shift 2
file=yes format=json project= config=
while [ $# -gt 0 ]; do
  case "$1" in
    --no-file) file=no; shift ;;
    --format) format=$2; shift 2 ;;
    --project) project=$2; shift 2 ;;
    --config) config=$2; shift 2 ;;
    *) echo "Doppler Error: unknown flag: $1" >&2; exit 1 ;;
  esac
done
[ "$file $format" = "no json" ] || { echo "would write a file" >&2; exit 1; }
[ -n "$DOPPLER_TOKEN$FAKE_LOGIN" ] || { echo "Doppler Error: you must provide a token" >&2; exit 1; }
[ "$project" = shop ] || { echo "Doppler Error: Could not find requested project" >&2; exit 1; }
printf '{"API_KEY":"from-doppler","DB":"from-doppler-too","DOPPLER_PROJECT":"%s"}' "$project"
`;

/** A project with a fake doppler on PATH; `env` is what the command sees. */
async function project(
  folder: string,
  more: { readonly env?: Record<string, string>; readonly envFile?: string },
) {
  const bin = `${folder}/bin`;
  await Deno.mkdir(bin);
  await Deno.mkdir(`${folder}/.jiji`);
  await Deno.writeTextFile(`${bin}/doppler`, FAKE_DOPPLER, { mode: 0o755 });
  await Deno.writeTextFile(
    `${folder}/.jiji/deploy.yml`,
    configText(undefined, "secrets: {adapter: doppler, project: shop}\n").replace(
      "services:",
      "environment: {secrets: [API_KEY, DB]}\nservices:",
    ),
  );
  if (more.envFile !== undefined) await Deno.writeTextFile(`${folder}/.env`, more.envFile);
  const env = { ...more.env, FAKE_LOG: `${folder}/asked` };
  const process = {
    ...systemProcess,
    run: (...[argv, options]: Parameters<typeof systemProcess.run>) => {
      const path = `${bin}:${Deno.env.get("PATH")}`;
      return systemProcess.run(argv, { ...options, env: { ...env, PATH: path } });
    },
  };
  const load = () => ConfigurationLoader.load({ cwd: folder, hostEnv: false, env, process });
  const asked = async () =>
    (await Deno.readTextFile(`${folder}/asked`).catch(() => "")).split("\n").filter(Boolean);
  return { load, asked };
}

Deno.test("adapter: fills what the env file lacks, which wins; asked once", () =>
  inFolder(async (folder) => {
    const { load, asked } = await project(folder, {
      env: { DOPPLER_TOKEN: "t" },
      envFile: "API_KEY=from-file\n",
    });
    const configuration = await load();
    configuration.validate();
    const values = configuration.resolveSecrets(["API_KEY", "DB"]);
    assert.equal(values.get("API_KEY")?.reveal(), "from-file");
    assert.equal(values.get("DB")?.reveal(), "from-doppler-too");
    assert.deepEqual(await asked(), [
      "--version",
      "secrets download --no-file --format json --project shop",
    ]);
    const origins = configuration.secretReferences().map(({ name, origin }) => [name, origin]);
    assert.deepEqual(origins, [["API_KEY", "env file"], ["DB", "doppler"]]);
  }));

Deno.test("adapter: is not asked when the env file has everything", () =>
  inFolder(async (folder) => {
    const { load, asked } = await project(folder, { envFile: "API_KEY=a\nDB=b\n" });
    await load();
    assert.deepEqual(await asked(), []);
  }));

Deno.test("adapter: nobody logged in, a wrong project, no command: told with the way on", () =>
  inFolder(async (folder) => {
    const { load } = await project(folder, {});
    await assert.rejects(
      load(),
      (error: unknown) =>
        error instanceof ConfigError && error.exitCode === 3 &&
        /doppler does not answer: .*must provide a token/.test(error.message) &&
        /doppler login/.test(error.hint ?? ""),
    );
    const ports = (process: FakeProcess) => ({ process, env: { DOPPLER_TOKEN: "t" } });
    const missing = new FakeProcess().on("doppler", () => ({ exitCode: 127, stderr: "not found" }));
    await assert.rejects(dopplerAdapter.read(SETTINGS, ports(missing)), /no doppler command here/);
    const refusing = new FakeProcess().on("doppler --version", "v3")
      .on("doppler secrets", () => ({ exitCode: 1, stderr: "Could not find requested project" }));
    await assert.rejects(dopplerAdapter.read(SETTINGS, ports(refusing)), /Could not find/);
  }));

Deno.test("parseDopplerSecrets(): a map of texts; anything else is refused without showing it", () => {
  assert.deepEqual(parseDopplerSecrets('{"A":"1","DOPPLER_CONFIG":"prd"}'), { A: "1" });
  for (const text of ["", "hunter22", '["hunter22"]', '{"A":{"hunter22":1}}']) {
    assert.throws(() => parseDopplerSecrets(text), (error: ConfigError) => {
      return error instanceof ConfigError && !error.message.includes("hunter22");
    });
  }
  assert.deepEqual(argvDownload(SETTINGS).slice(-4), ["--project", "shop", "--config", "prd"]);
});

Deno.test("secretReferences(): every place of a configuration that names a secret", () => {
  const text = `
ssh: {key_passphrase: PASS, key_data: [KEY]}
servers: {s1: {host: S1_HOST}, s2: {host: 203.0.113.2}}
builder: {registry: {password: REG}}
environment: {secrets: [A]}
services:
  web:
    build: {secrets: [NPM]}
    environment: {secrets: [A, B]}
    proxy: {targets: [{ssl: {certificate_pem: PEM, private_key_pem: PRIVATE}}]}
  odd: 5
`;
  const found = secretReferences(ConfigDocument.parse("deploy.yml", text).value);
  assert.deepEqual(found.map(({ name, group }) => `${group} ${name}`), [
    "ssh PASS",
    "ssh KEY",
    "servers.s1 S1_HOST",
    "builder.registry REG",
    "environment A",
    "services.web A",
    "services.web B",
    "services.web NPM",
    "services.web PEM",
    "services.web PRIVATE",
  ]);
  for (const odd of [undefined, null, 5, [], { services: [] }]) {
    assert.deepEqual(secretReferences(odd), []);
  }
});
