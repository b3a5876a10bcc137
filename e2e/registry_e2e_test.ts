import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { type EngineKind, eventually, Lab } from "./lab.ts";
import { chapter, secondsSince, Shop, spoken, tell } from "./shop.ts";
import { tryCommand } from "../tools/prepare/command.ts";

/** The registry's place: the laptop, by address, since its engine asks the machine's name server. */
const REGISTRY = "203.0.113.1:5443";
const PASSWORD = "pa$$ word-12";
/** bcrypt of the password. Source: `htpasswd -B`; distribution 2.8, auth/htpasswd takes no other. */
const HTPASSWD = "ana:$2b$05$abcdefghijklmnopqrstuujDLRbIQLsqwJ4eto8S8vzuNoAJTihKi\n";

/** A registry with TLS and a login on the laptop, as a company has one. */
class PrivateRegistry implements AsyncDisposable {
  readonly certificate: string;
  readonly #child: Deno.ChildProcess;

  private constructor(certificate: string, child: Deno.ChildProcess) {
    this.certificate = certificate;
    this.#child = child;
  }

  /** Starts it and waits until it answers. */
  static async start(lab: Lab, folder: string): Promise<PrivateRegistry> {
    const file = (name: string) => join(folder, name);
    const san = "subjectAltName=IP:203.0.113.1";
    const made = await tryCommand([
      ...["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
      ...["-nodes", "-keyout", file("key.pem"), "-out", file("ca.crt"), "-days", "2"],
      ...["-subj", "/CN=registry", "-addext", san],
    ]);
    assert.equal(made.code, 0, made.stderr);
    await Deno.writeTextFile(file("htpasswd"), HTPASSWD);
    await Deno.writeTextFile(
      file("config.yml"),
      `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: ${file("data")}}}
auth: {htpasswd: {realm: test, path: ${file("htpasswd")}}}
http: {addr: "${REGISTRY}", tls: {certificate: ${file("ca.crt")}, key: ${file("key.pem")}}}
`,
    );
    const find = 'ls -t "$JIJI_CACHE"/hub/*/usr/bin/docker-registry | head -n 1';
    const program = (await lab.run(["sh", "-c", find])).trim();
    const child = lab.spawn([program, "serve", file("config.yml")]);
    const url = ["curl", "-s", "-o", file("answer"), "--cacert", file("ca.crt")];
    await eventually("the registry answers", async () => {
      return (await lab.tryRun([...url, `https://${REGISTRY}/v2/`])).code === 0 ? true : undefined;
    }, { timeoutMs: 20_000 });
    return new PrivateRegistry(await Deno.readTextFile(file("ca.crt")), child);
  }

  /** Ends it. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGTERM");
    } catch {
      // It had ended already.
    }
    await Promise.all([this.#child.stdout.cancel(), this.#child.stderr.cancel()]);
    await this.#child.status;
  }
}

/** Makes the server and the laptop trust the registry, as each engine wants to be told. */
async function trust(lab: Lab, engine: EngineKind, certificate: string): Promise<void> {
  const write = 'mkdir -p "$1" && printf %s "$2" >"$1/ca.crt"';
  const etc = engine === "docker" ? "/etc/docker" : "/etc/containers";
  await lab.on("s1", ["sh", "-c", write, "sh", `${etc}/certs.d/${REGISTRY}`, certificate]);
  if (engine === "podman") {
    const script =
      'd="$HOME/.config/containers/certs.d/$1"; mkdir -p "$d"; printf %s "$2" >"$d/ca.crt"';
    await lab.run(["sh", "-c", script, "sh", REGISTRY, certificate]);
    return;
  }
  // The laptop's dockerd reads /etc of its own mount namespace, which ends with it.
  const find = 'cat "$(dirname "${DOCKER_HOST#unix://}")/docker.pid"';
  const pid = (await lab.run(["sh", "-c", find])).trim();
  const place = `mount -t tmpfs tmpfs /etc/docker && ${write}`;
  const enter = ["nsenter", "-t", pid, "-m", "sh", "-c", place, "sh"];
  const outcome = await tryCommand([...enter, `/etc/docker/certs.d/${REGISTRY}`, certificate]);
  assert.equal(outcome.code, 0, outcome.stderr);
}

const DOCKERFILE = `FROM busybox:1
RUN --mount=type=secret,id=BUILD_TOKEN sh -c 'wc -c </run/secrets/BUILD_TOKEN >/token-length'
COPY run.sh /run.sh
COPY www /www
CMD ["/run.sh"]
`;

/** One server, the registry's login in the configuration, a build secret. */
function configure(engine: EngineKind): (text: string) => string {
  const login = `{server: "${REGISTRY}", username: ana, password: REG_PASSWORD}`;
  return (text) =>
    text.replace(/ {2}engine: .*\n/, `  engine: ${engine}\n  registry: ${login}\n`)
      .replace(/ {2}s2:\n.*\n {2}s3:\n.*\n/, "")
      .replace(/hosts: \[.*\]/g, "hosts: [s1]")
      .replace("build: ./web", "build: {context: ./web, secrets: [BUILD_TOKEN]}");
}

async function setEnv(shop: Shop, password: string): Promise<void> {
  const text = `REG_PASSWORD='${password}'\nBUILD_TOKEN=s3cret-t0ken\n`;
  await Deno.writeTextFile(join(shop.folder, ".env"), text);
}

const LOGINS = "/run/jiji/registry/shop";

for (const engine of ["docker", "podman"] as const) {
  Deno.test(`registry: a remote one with TLS and a login, ${engine}`, async (t) => {
    await using shop = await Shop.open({
      ...{ name: `e2e-registry-${engine}`, servers: 1, engine },
      configure: configure(engine),
    });
    const { lab } = shop;
    // Podman would keep the laptop's login in the machine's own /run.
    const env = { REGISTRY_AUTH_FILE: join(dirname(shop.folder), "auth.json") };
    const jiji = (...args: readonly string[]) => shop.jijiIn(shop.folder, args, env);
    await Deno.writeTextFile(join(shop.folder, "web/Dockerfile"), DOCKERFILE);
    await setEnv(shop, PASSWORD);
    const atMs = performance.now();
    await using registry = await PrivateRegistry.start(lab, dirname(shop.folder));
    await shop.must("server", "init");
    tell(`registry and server: ${secondsSince(atMs)} s`);

    await chapter(t, "what keeps the login from working is told, with the way on", async () => {
      const untrusted = await jiji("registry", "login", "-L");
      assert.equal(untrusted.code, 6, spoken(untrusted));
      assert.match(untrusted.stderr, /certificate of 203\.0\.113\.1:5443 is not trusted there/);
      assert.match(untrusted.stderr, /certs\.d\/203\.0\.113\.1:5443\/ca\.crt on s1/);
      await trust(lab, engine, registry.certificate);
      await setEnv(shop, "wrong-password");
      const refused = await jiji("registry", "login");
      assert.equal(refused.code, 6, spoken(refused));
      assert.match(refused.stderr, /refused ana[^]*deploy\.yml:\d+:\d+/);
      assert.doesNotMatch(spoken(refused), /wrong-password/);
      await setEnv(shop, PASSWORD);
    });

    await chapter(t, "deploy builds, pushes and pulls through it; no login stays", async () => {
      const deployed = await jiji("deploy", "--version", "v1");
      assert.equal(deployed.code, 0, spoken(deployed));
      await shop.assertServes("1", ["s1"]);
      const left = await lab.on("s1", ["sh", "-c", `ls -A ${LOGINS} /root/.docker 2>/dev/null; :`]);
      assert.equal(left.trim(), "", left);
      const inside = [engine, "exec", "shop-web", "cat", "/token-length"];
      assert.equal((await lab.on("s1", inside)).trim(), String("s3cret-t0ken".length));
      const history = await lab.on("s1", [
        engine,
        "history",
        "--no-trunc",
        `${REGISTRY}/shop-web:v1`,
      ]);
      assert.doesNotMatch(history, /s3cret/);
      assert.match((await jiji("deploy", "--version", "v1")).stdout, /Nothing to do/);
    });

    await chapter(t, "build alone, then deploy what was built", async () => {
      await shop.setVersion("2");
      const built = await jiji("build", "--version", "v2");
      assert.equal(built.code, 0, spoken(built));
      assert.match(built.stdout, /203\.0\.113\.1:5443\/shop-web:v2/);
      await shop.assertServes("1", ["s1"]);
      const deployed = await jiji("deploy", "--no-build", "--version", "v2");
      assert.equal(deployed.code, 0, spoken(deployed));
      await shop.assertServes("2", ["s1"]);
    });

    await chapter(t, "registry login stays until logout, in a file for root alone", async () => {
      const login = await jiji("registry", "login", "--json");
      assert.deepEqual(JSON.parse(login.stdout).done, ["this machine", "s1"], spoken(login));
      const mode = await lab.on("s1", ["stat", "-c", "%a %U", `${LOGINS}/config.json`]);
      assert.equal(mode.trim(), "600 root");
      assert.equal((await jiji("deploy", "--version", "v2", "--force")).code, 0);
      await lab.on("s1", ["test", "-s", `${LOGINS}/config.json`]);
      assert.equal((await jiji("registry", "logout")).code, 0);
      assert.notEqual((await lab.tryOn("s1", ["test", "-e", LOGINS])).code, 0);
      const audit = JSON.parse(await shop.must("audit", "--json", "-n", "50"));
      const actions = audit.entries.map(({ action, status }: Record<string, string>) =>
        `${action} ${status}`
      );
      assert.ok(actions.includes("registry login failed"), actions.join());
      assert.ok(actions.includes("registry logout success"), actions.join());
    });

    await chapter(t, "a registry that is gone is told as such", async () => {
      await registry[Symbol.asyncDispose]();
      const gone = await jiji("registry", "login");
      assert.equal(gone.code, 6, spoken(gone));
      assert.match(gone.stderr, /can't be reached from there/);
      await shop.assertServes("2", ["s1"]);
    });
  });
}
