import assert from "node:assert/strict";
import { join } from "node:path";
import { type EngineKind } from "./lab.ts";
import { chapter, Shop, spoken } from "./shop.ts";

const configOf = (engine: string, command: string) =>
  `project: shop
builder: {engine: ${engine}}
servers:
  s1: {host: 203.0.113.11}
deploy: {health_timeout: 4s, drain_timeout: 1s}
services:
  web:
    image: busybox:1
    hosts: [s1]
    ports: [3000]
    memory: 32m
    stop_grace: 1s
    environment: {secrets: [TOKEN]}
    command: [sh, -c, ${JSON.stringify(command)}]
    proxy:
      app_port: 3000
      host: shop.example.com
`;

const GOOD = "mkdir /w; echo ok >/w/up; exec httpd -f -p 3000 -h /w";
/** Answers every connection with these lines. */
const answering = (...lines: string[]) =>
  `printf '%s\\r\\n' ${lines.map((line) => `'${line}'`).join(" ")} '' >/a; ` +
  "exec nc -ll -p 3000 -e sh -c 'cat /a; sleep 0.1'";

/** What a new version does wrong, and the answer it gets. */
const CASES: readonly [name: string, command: string, kind: string, text: RegExp][] = [
  ["another port", "exec httpd -f -p 8080", "wrong_port", /listens on 8080, not on 3000/],
  [
    "loopback only",
    "exec httpd -f -p 127.0.0.1:3000",
    "loopback_only",
    /127\.0\.0\.1:3000 only[\s\S]*0\.0\.0\.0:3000/,
  ],
  [
    "another path",
    "mkdir /w; echo ok >/w/health; exec httpd -f -p 3000 -h /w",
    "wrong_path",
    /nothing at \/up \(404\)[\s\S]*2xx: \/health/,
  ],
  [
    "to HTTPS",
    answering("HTTP/1.1 301 Moved", "Location: https://shop.example.com/up"),
    "redirect_https",
    /redirects plain HTTP to HTTPS \(301/,
  ],
  [
    "a host name refused",
    answering("HTTP/1.1 403 Forbidden", "", "Blocked host: shop.example.com"),
    "host_refused",
    /refuses Host:\s+shop\.example\.com/,
  ],
  ["nothing in time", "sleep 1000", "slow_start", /listens on no port yet/],
  [
    "a variable that is missing",
    "echo \"starting with $TOKEN\"; echo 'DATABASE_URL is not set'; exit 1",
    "missing_variable",
    /misses the variable DATABASE_URL/,
  ],
  ["no such command", "exec no-such-program", "command_missing", /not found in the image/],
  ["too much memory", "x=a; while :; do x=$x$x; done", "out_of_memory", /limit of 32m/],
];

for (const engine of ["docker", "podman"] as const satisfies EngineKind[]) {
  Deno.test(`failure answers: a new version that fails says why, on ${engine}`, async (t) => {
    await using shop = await Shop.open({
      name: `e2e-answers-${engine}`,
      servers: 1,
      engine,
      configure: () => configOf(engine, GOOD),
    });
    const path = join(shop.folder, ".jiji/deploy.yml");
    const secret = "open-sesame-0123456789";
    await Deno.writeTextFile(join(shop.folder, ".env"), `TOKEN=${secret}\n`);
    const serves = async () => {
      const argv = ["curl", "-sS", "-m", "5", "-H", "Host: shop.example.com"];
      const url = `http://${shop.lab.address("s1")}/up`;
      assert.match((await shop.lab.tryRun([...argv, url])).stdout, /^ok$/m);
    };

    await chapter(t, "a good version first", async () => {
      await shop.must("server", "init");
      await shop.must("deploy");
      await serves();
    });

    // One engine shows every answer, the other that it gives the same facts.
    const cases = engine === "docker" ? CASES : [CASES[0]!, CASES[6]!];
    for (const [name, command, kind, text] of cases) {
      await t.step(name, async () => {
        await Deno.writeTextFile(path, configOf(engine, command));
        const said = await shop.jiji("deploy", "--json");
        assert.equal(said.code, 7, spoken(said));
        assert.ok(!spoken(said).includes(secret), "the secret is not shown");
        const { instances: [instance] } = JSON.parse(said.stdout);
        assert.equal(instance.diagnosis?.kind, kind, instance.error);
        assert.match(`${instance.diagnosis.cause}\n${instance.diagnosis.advice}`, text);
        assert.equal(instance.serving, "1");
        for (const line of String(instance.error).split("\n")) {
          assert.ok([...line].length <= 80, line);
        }
        await serves();
      });
    }

    await t.step("for people: evidence, cause, what serves, the way on", async () => {
      await Deno.writeTextFile(path, configOf(engine, CASES[6]![1]));
      const { code, stderr } = await shop.jiji("deploy");
      assert.equal(code, 7);
      assert.match(stderr, /Probably {6}it misses the variable DATABASE_URL\n {2}Try/);
      assert.match(stderr, /Last lines {4}starting with \[secret\]\n {16}DATABASE_URL is not set/);
      assert.match(stderr, /Now serving {3}web 1 on s1/);
      assert.match(stderr, /Way on/);
      await serves();
    });
  });
}
