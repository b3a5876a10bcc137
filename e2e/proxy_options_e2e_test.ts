import assert from "node:assert/strict";
import { join } from "node:path";
import { type EngineKind, eventually } from "./lab.ts";
import { chapter, edit, secondsSince, Shop, tell } from "./shop.ts";

const configOf = (engine: string) =>
  `project: shop
builder: {engine: ${engine}}
servers:
  s1: {host: 203.0.113.11}
deploy: {drain_timeout: 2s}
services:
  web:
    image: busybox:1
    hosts: [s1]
    ports: [3000]
    directories: [{local: www, remote: /www, mode: "0755"}]
    command: httpd -f -p 3000 -h /www
    stop_grace: 1s
    retain: 2
    scale: 2
    proxy:
      app_port: 3000
      hosts: [shop.example.com, www.shop.example.com]
      canonical_host: shop.example.com
      ssl: {certificate_pem: CERTIFICATE, private_key_pem: PRIVATE_KEY}
      buffering: {requests: true, max_request_body: 10k}
      log_headers: {request: [X-Told]}
      healthcheck: {tcp: true}
  api:
    image: busybox:1
    hosts: [s1]
    ports: [3000]
    directories: [{local: www, remote: /www, mode: "0755"}]
    command: httpd -f -p 3000 -h /www
    stop_grace: 1s
    scale: 2
    proxy:
      app_port: 3000
      host: shop.example.com
      path_prefix: /api
      healthcheck: {cmd: "test ! -e /tmp/sick", interval: 1s}
  plain:
    image: busybox:1
    hosts: [s1]
    ports: [3000]
    directories: [{local: www, remote: /www/kept, mode: "0755"}]
    command: httpd -f -p 3000 -h /www
    stop_grace: 1s
    proxy:
      app_port: 3000
      host: plain.example.com
      path_prefix: /kept
      strip_path_prefix: false
      healthcheck: {path: /kept/index.html}
`;

/** Prints what reached the service. */
const ECHO = `#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\nuri %s\\nhost %s\\nfor %s\\n' \\
  "$REQUEST_URI" "$HTTP_HOST" "$HTTP_X_FORWARDED_FOR"
`;

/** A self-signed certificate for the shop, put into the env file; gives the certificate's path. */
async function newCertificate(shop: Shop, name: string): Promise<string> {
  const path = join(shop.folder, `${name}.pem`);
  const key = join(shop.folder, `${name}.key`);
  await shop.lab.run([
    ...["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    ...["-nodes", "-days", "90", "-keyout", key, "-out", path, "-subj", "/CN=shop"],
    ...["-addext", "subjectAltName=DNS:shop.example.com,DNS:www.shop.example.com"],
  ]);
  const oneLine = async (file: string) => (await Deno.readTextFile(file)).replaceAll("\n", "\\n");
  const text = `CERTIFICATE='${await oneLine(path)}'\nPRIVATE_KEY='${await oneLine(key)}'\n`;
  await Deno.writeTextFile(join(shop.folder, ".env"), text);
  return path;
}

/** What curl gets for an URL of the shop: status line, headers, body. */
async function ask(shop: Shop, url: string, more: readonly string[] = []): Promise<string> {
  const { hostname, protocol } = new URL(url);
  const port = protocol === "https:" ? 443 : 80;
  const resolve = `${hostname}:${port}:${shop.lab.address("s1")}`;
  const argv = ["curl", "-sS", "-i", "-m", "10", "--resolve", resolve, ...more, url];
  const { stdout, stderr } = await shop.lab.tryRun(argv);
  return stdout + stderr;
}

for (const engine of ["docker", "podman"] as const satisfies EngineKind[]) {
  Deno.test(`proxy options: each does what it says on ${engine}`, async (t) => {
    await using shop = await Shop.open({
      name: `e2e-proxy-${engine}`,
      servers: 1,
      engine,
      configure: () => configOf(engine),
    });
    const { lab } = shop;
    await Deno.mkdir(join(shop.folder, "www/cgi-bin"), { recursive: true });
    await Deno.writeTextFile(join(shop.folder, "www/index.html"), "hello\n");
    await Deno.writeTextFile(join(shop.folder, "www/cgi-bin/echo"), ECHO);
    let certificate = await newCertificate(shop, "first");
    const trusted = () => ["--cacert", certificate];
    const home = "https://shop.example.com/";

    await chapter(t, "a certificate of the user, with checks that are not HTTP", async () => {
      await shop.must("server", "init");
      await shop.must("deploy");
      assert.match(await ask(shop, home, trusted()), /^HTTP\/\S+ 200[\s\S]*hello/);
      assert.match(await shop.must("deploy"), /Nothing to do/);
      const argv = ["sh", "-c", "ps -ef; cat /proc/*/cmdline"];
      assert.doesNotMatch(await lab.on("s1", argv), /PRIVATE KEY/);
    });

    await chapter(t, "redirects to HTTPS and to the canonical host", async () => {
      assert.match(
        await ask(shop, "http://shop.example.com/x?y=1"),
        /^HTTP\/1\.1 301[\s\S]*location: https:\/\/shop\.example\.com\/x\?y=1/i,
      );
      const www = await ask(shop, "https://www.shop.example.com/x", trusted());
      assert.match(www, / 301[\s\S]*location: https:\/\/shop\.example\.com\/x/i);
    });

    await chapter(
      t,
      "bodies have a limit, headers are logged, prefixes stripped or not",
      async () => {
        const post = (
          size: number,
        ) => ["-X", "POST", "--data-binary", "x".repeat(size), ...trusted()];
        assert.match(await ask(shop, `${home}cgi-bin/echo`, post(20_000)), / 413/);
        assert.match(await ask(shop, `${home}cgi-bin/echo`, post(1_000)), / 200/);
        await ask(shop, home, ["-H", "X-Told: me-and-you", ...trusted()]);
        await eventually("the header is in the log", async () => {
          const log = await lab.tryOn("s1", [engine, "logs", "kamal-proxy"]);
          return (log.stdout + log.stderr).includes("me-and-you") ? true : undefined;
        }, { timeoutMs: 10_000 });
        const forged = ["-H", "X-Forwarded-For: 6.6.6.6", ...trusted()];
        const api = await ask(shop, `${home}api/cgi-bin/echo`, forged);
        assert.match(api, /^uri \/cgi-bin\/echo$/m);
        assert.doesNotMatch(
          api,
          /6\.6\.6\.6/,
          "TLS ends here: what the client says is not believed",
        );
        const kept = await ask(shop, "http://plain.example.com/kept/index.html");
        assert.match(kept, / 200[\s\S]*hello/);
      },
    );

    /** First lines of what both services whose check is not HTTP answer. */
    const answers = async () => {
      const urls = [home, `${home}api/cgi-bin/echo`];
      const texts = await Promise.all(urls.map((url) => ask(shop, url, trusted())));
      return texts.map((text) => text.split("\n")[0] ?? "");
    };
    const servesAgain = async (what: string, timeoutMs: number) => {
      const atMs = performance.now();
      await eventually(`both serve after ${what}`, async () => {
        return (await answers()).every((line) => / 200/.test(line)) || undefined;
      }, { timeoutMs });
      tell(`both serve ${secondsSince(atMs)} s after ${what}`);
    };

    await chapter(t, "routes that are lost come back, also where checks are not HTTP", async () => {
      for (const route of ["shop-web-3000", "shop-api-3000"]) {
        await lab.on("s1", [engine, "exec", "kamal-proxy", "kamal-proxy", "remove", route]);
      }
      await servesAgain("their routes were removed by hand", 60_000);
      await lab.on("s1", [engine, "restart", "kamal-proxy"]);
      await servesAgain("the proxy was restarted", 30_000);
      await lab.on("s1", ["systemctl", "stop", "jiji-daemon"]);
      await lab.on("s1", [engine, "restart", "kamal-proxy"]);
      await lab.on("s1", ["systemctl", "start", "jiji-daemon"]);
      await servesAgain("the daemon, which was off while the proxy was restarted, is back", 30_000);
      const half =
        `${engine} kill kamal-proxy && truncate -s 200 "$1" && ${engine} start kamal-proxy`;
      const volume = [
        engine,
        "volume",
        "inspect",
        "--format",
        "{{.Mountpoint}}",
        "jiji-kamal-proxy",
      ];
      const state = `${(await lab.on("s1", volume)).trim()}/kamal-proxy.state`;
      await lab.on("s1", ["sh", "-c", half, "sh", state]);
      await servesAgain("the proxy lost power while it wrote its state", 60_000);
    });

    await chapter(
      t,
      "who fails a check that is not HTTP leaves the route until it is well",
      async () => {
        const exec = (...argv: string[]) => lab.on("s1", [engine, "exec", ...argv]);
        const targets = async () => {
          const listing = await exec("kamal-proxy", "kamal-proxy", "list");
          return /shop-api-3000.*/.exec(listing)?.[0].match(/10(\.\d+){3}:3000/g)?.length ?? 0;
        };
        const names = await lab.on("s1", [engine, "ps", "--format", "{{.Names}}"]);
        const sick = names.split("\n").find((name) => name.startsWith("shop-api"))!;
        assert.equal(await targets(), 2);
        await exec(sick, "touch", "/tmp/sick");
        const left = async () => await targets() === 1 || undefined;
        await eventually(`${sick} has left the route`, left, { timeoutMs: 30_000 });
        await exec(sick, "rm", "/tmp/sick");
        const back = async () => await targets() === 2 || undefined;
        await eventually(`${sick} is back in the route`, back, { timeoutMs: 60_000 });
      },
    );

    await chapter(t, "proxy reboot drops nothing, also where checks are not HTTP", async () => {
      const told = new Map<string, number>();
      let isOver = false;
      const visitor = (async () => {
        while (!isOver) {
          for (const line of await answers()) told.set(line, (told.get(line) ?? 0) + 1);
        }
      })();
      await shop.must("proxy", "reboot");
      isOver = true;
      await visitor;
      tell([...told].map(([line, count]) => `${count} × ${line.trim()}`).join(", "));
      assert.deepEqual([...told.keys()].filter((line) => !/ 200/.test(line)), []);
    });

    await chapter(
      t,
      "a new certificate goes out, the old one comes back with its release",
      async () => {
        const old = certificate;
        certificate = await newCertificate(shop, "second");
        await shop.configure((text) => text.replace("busybox:1", "busybox:1.35"));
        assert.match(await shop.must("deploy", "--plan"), /shop-web-3000-[0-9a-f]{16}\.pem/);
        await shop.must("deploy");
        assert.match(await ask(shop, home, trusted()), / 200/);
        assert.doesNotMatch(await ask(shop, home, ["--cacert", old]), / 200/);
        await shop.must("services", "rollback", "-S", "web");
        assert.match(await ask(shop, home, ["--cacert", old]), / 200/);
        await shop.must("deploy");
        await shop.must("deploy", "--force", "-S", "web");
        await shop.must("deploy", "--force", "-S", "web");
        const mount = await lab.on("s1", [
          ...[engine, "volume", "inspect", "--format", "{{.Mountpoint}}", "jiji-kamal-proxy"],
        ]);
        const folder = `${mount.trim()}/jiji-certificates`;
        const left = await lab.on("s1", ["sh", "-c", `stat -c '%a %n' ${folder}/*`]);
        assert.match(
          left.trim(),
          /^600 \S+-[0-9a-f]{16}\.pem$/,
          "one is left, for the proxy alone",
        );
        assert.match(await ask(shop, home, trusted()), / 200/);
      },
    );

    await chapter(t, "a key of another certificate is refused where it is named", async () => {
      await edit(join(shop.folder, ".env"), (text) => text.replace(/^CERTIFICATE=.*\n/, ""));
      const missing = await shop.jiji("deploy");
      assert.equal(missing.code, 3);
      assert.match(missing.stderr, /CERTIFICATE is not set/);
      const first = await Deno.readTextFile(join(shop.folder, "first.pem"));
      await edit(join(shop.folder, ".env"), (text) => `CERTIFICATE="${first}"\n${text}`);
      const wrong = await shop.jiji("deploy");
      assert.equal(wrong.code, 3, wrong.stderr);
      assert.match(wrong.stderr, /ssl\.private_key_pem: the key belongs to another certificate/);
      assert.match(await ask(shop, home, trusted()), / 200/);
    });
  });
}
