import assert from "node:assert/strict";
import { join } from "node:path";
import { init, projectNameOf } from "../src/commands/init.ts";
import { ConfigError } from "../src/lib/configuration/config_issue.ts";
import { configCandidates, ConfigurationLoader } from "../src/lib/configuration/loader.ts";
import { configText } from "./configuration_fixture.ts";

class Folder implements AsyncDisposable {
  readonly path = Deno.makeTempDirSync({ prefix: "jiji-config-" });

  async write(name: string, text: string): Promise<void> {
    const path = join(this.path, name);
    await Deno.mkdir(join(path, ".."), { recursive: true });
    await Deno.writeTextFile(path, text);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Deno.remove(this.path, { recursive: true });
  }
}

Deno.test("ConfigurationLoader.load(): searches upward and finds the project root", async () => {
  await using folder = new Folder();
  await folder.write(".jiji/deploy.yml", configText());
  await folder.write("deep/er/x", "");
  const cwd = join(folder.path, "deep", "er");
  const configuration = await ConfigurationLoader.load({ cwd, hostEnv: false, env: {} });
  assert.equal(configuration.projectRoot, folder.path);
  assert.equal(configuration.file, "../../.jiji/deploy.yml");
});

Deno.test("ConfigurationLoader.load(): an environment has files of its own, never the base file", async () => {
  for (const name of configCandidates("staging")) {
    await using folder = new Folder();
    await folder.write(".jiji/deploy.yml", configText());
    await folder.write(name, configText().replace("shop", "staged"));
    const options = { cwd: folder.path, hostEnv: false, env: {} };
    const staged = await ConfigurationLoader.load({ ...options, environment: "staging" });
    assert.equal(staged.project, "staged", name);
    assert.equal(staged.projectRoot, folder.path);
    assert.equal((await ConfigurationLoader.load(options)).project, "shop");
    await assert.rejects(
      ConfigurationLoader.load({ ...options, environment: "prod" }),
      (error) =>
        error instanceof ConfigError && /jiji init --environment prod/.test(error.hint ?? ""),
    );
  }
});

Deno.test("ConfigurationLoader.load(): says where it looked", async () => {
  await using folder = new Folder();
  await assert.rejects(
    ConfigurationLoader.load({ cwd: folder.path, hostEnv: false, env: {} }),
    (error) => {
      assert(error instanceof ConfigError);
      assert.equal(error.exitCode, 3);
      assert.match(error.message, /looked for \.jiji\/deploy\.yml, \.jiji\/deploy\.yaml in /);
      assert(error.message.includes(folder.path));
      assert.equal(error.hint, "write one with: jiji init");
      return true;
    },
  );
  const options = { cwd: folder.path, configFile: "no.yml", hostEnv: false, env: {} };
  await assert.rejects(
    ConfigurationLoader.load(options),
    /no\.yml can't be read: there is no such/,
  );
  const bad = { cwd: folder.path, environment: "../etc", hostEnv: false, env: {} };
  await assert.rejects(ConfigurationLoader.load(bad), /is not the name of an environment/);
});

Deno.test("ConfigurationLoader.load(): reads the first env file only, for the environment", async () => {
  await using folder = new Folder();
  const services = "  web: {image: a, hosts: [s1], environment: {secrets: [A]}}\n";
  await folder.write(".jiji/deploy.yml", configText(services));
  await folder.write(".jiji/deploy.live.yml", configText(services, "secrets_path: conf/env\n"));
  await folder.write(".env", "A=base\n");
  await folder.write("conf/env.live", "A='live # value'\nexport B=1\n");
  const secret = async (environment?: string) => {
    const configuration = await ConfigurationLoader.load({
      cwd: folder.path,
      environment,
      hostEnv: true,
      env: { A: "host" },
    });
    return configuration.services.get("web")!.environment.resolveSecrets().get("A")!.reveal();
  };
  assert.equal(await secret(), "base");
  assert.equal(await secret("live"), "live # value");
});

Deno.test("init(): writes a file that loads, keeps an existing one unless told", async () => {
  await using folder = new Folder();
  const lines: string[] = [];
  const output = { write: (line: string) => void lines.push(line) };
  const path = await init({ cwd: folder.path }, output);
  const load = () => ConfigurationLoader.load({ cwd: folder.path, hostEnv: false, env: {} });
  (await load()).validate();
  assert.match(lines.join("\n"), /jiji server init[\s\S]*jiji deploy/);
  await Deno.writeTextFile(path, "mine");
  await assert.rejects(init({ cwd: folder.path }, output), /exists already; nothing was written/);
  const no = { ...output, confirm: () => Promise.resolve(false) };
  await assert.rejects(init({ cwd: folder.path }, no), /nothing was written/);
  assert.equal(await Deno.readTextFile(path), "mine");
  await init({ cwd: folder.path }, { ...output, confirm: () => Promise.resolve(true) });
  (await load()).validate();
  await Deno.writeTextFile(path, "mine");
  await init({ cwd: folder.path, force: true }, output);
  const staged = await init({ cwd: folder.path, environment: "staging" }, output);
  assert(staged.endsWith(".jiji/deploy.staging.yml"));
  assert.match(lines.join("\n"), /Untouched beside it: deploy\.yml/);
  assert.deepEqual([...Deno.readDirSync(join(folder.path, ".jiji"))].length, 2);
});

Deno.test("projectNameOf(): makes a valid name of any folder name", () => {
  assert.equal(projectNameOf("My Shop (2)"), "my-shop-2");
  assert.equal(projectNameOf("---"), "app");
  assert.equal(projectNameOf("x".repeat(80)).length, 50);
});
