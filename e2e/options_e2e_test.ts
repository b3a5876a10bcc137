import assert from "node:assert/strict";
import { join } from "node:path";
import { type EngineKind, eventually } from "./lab.ts";
import { chapter, Shop, spoken, tell } from "./shop.ts";

/**
 * Every option of a service that a machine without special hardware can show. Docker of the lab can't
 * give all rights, since its servers do not have them all; Podman gives those that there are.
 */
const configOf = (engine: string) =>
  `project: shop
builder: {engine: ${engine}}
servers:
  s1: {host: 203.0.113.11}
environment:
  clear: {TZ: UTC}
services:
  every:
    image: busybox:1
    hosts: [s1]
    ports: [3000, "127.0.0.1:8081:3000", "8053:5353/udp"]
    stop_first: true
    volumes: ["data:/data", "/srv/share:/share:ro"]
    files:
      - {local: notes.txt, remote: /etc/notes.txt, mode: "0640", owner: "1000:1001", options: ro}
    directories:
      - {local: pages, remote: /pages, mode: "0440", owner: "1000:1001"}
      - missing:/empty
    environment:
      clear: {A: b c, PORT: 3000}
      secrets: [TOKEN]
    command: [sh, -c, "echo up; exec httpd -f -p \${PORT} -h /pages"]
    cpus: 0.5
    memory: 64m
    devices: ["/dev/null:/dev/nothing:rw"]
    cap_add: [NET_ADMIN]
    restart: on-failure
    stop_grace: 3s
    drain_timeout: 2s
    labels: {team: mugs}
    logging:
      driver: ${engine === "docker" ? "json-file" : "k8s-file"}
      options: {max-size: 1m}
    healthcheck: {tcp: true, port: 3000}
  strong:
    image: busybox:1
    hosts: [s1]
    privileged: ${engine === "podman"}
    network_mode: none
    command: sleep 1000000
    stop_grace: 1s
  outside:
    image: busybox:1
    hosts: [s1]
    network_mode: host
    command: sleep 1000000
    stop_grace: 1s
    healthcheck: {cmd: "true"}
  beside:
    image: busybox:1
    hosts: [s1]
    network_mode: container:shop-every
    command: sleep 1000000
    stop_grace: 1s
`;

/** The parts of \`inspect\` that both engines have. */
interface Inspected {
  readonly Config: {
    readonly Labels: Record<string, string>;
    readonly StopTimeout: number;
    readonly Cmd: string[];
    readonly Env: string[];
  };
  readonly HostConfig: {
    readonly NanoCpus: number;
    readonly Memory: number;
    readonly CapAdd: string[];
    readonly Privileged: boolean;
    readonly NetworkMode: string;
    readonly RestartPolicy: { readonly Name: string };
    readonly PortBindings: Record<string, { HostIp?: string; HostPort: string }[]>;
    readonly LogConfig: { readonly Type: string; readonly Config?: Record<string, string> };
  };
  readonly Mounts: { Destination: string; RW: boolean; Name?: string; Source: string }[];
  readonly NetworkSettings: { readonly Networks: Record<string, { IPAddress: string }> };
}

async function inspect(shop: Shop, engine: string, name: string): Promise<Inspected> {
  const argv = [engine, "inspect", "--type", "container", name];
  const [found]: Inspected[] = JSON.parse(await shop.lab.on("s1", argv));
  assert.ok(found, name);
  return found;
}

for (const engine of ["docker", "podman"] as const satisfies EngineKind[]) {
  Deno.test(`options: every option of a service on ${engine}, as the engine has it`, async (t) => {
    await using shop = await Shop.open({
      name: `e2e-options-${engine}`,
      servers: 1,
      engine,
      configure: () => configOf(engine),
    });
    const { lab } = shop;
    await Deno.writeTextFile(join(shop.folder, "notes.txt"), "a note\n");
    await Deno.mkdir(join(shop.folder, "pages/deep"), { recursive: true });
    await Deno.writeTextFile(join(shop.folder, "pages/deep/index.html"), "deep\n");
    await Deno.writeTextFile(join(shop.folder, ".env"), "TOKEN=sesame-0123456789\n");
    await lab.on("s1", ["mkdir", "-p", "/srv/share"]);

    await chapter(t, "deploys, tells of the open port, and has nothing to do again", async () => {
      await shop.must("server", "init");
      const first = await shop.jiji("deploy");
      assert.equal(first.code, 0, spoken(first));
      assert.match(first.stderr, /deploy\.yml:\d+:\d+ services\.every\.ports\[2\]: port 8053\/udp/);
      assert.match(await shop.must("deploy"), /Nothing to do/);
    });

    await chapter(t, "limits, rights, labels, ports and mounts are as written", async () => {
      const { Config, HostConfig, Mounts, NetworkSettings } = await inspect(
        shop,
        engine,
        "shop-every",
      );
      assert.equal(HostConfig.NanoCpus, 500_000_000);
      assert.equal(HostConfig.Memory, 64 * 1024 * 1024);
      assert.ok(HostConfig.CapAdd.some((name) => name.endsWith("NET_ADMIN")));
      assert.equal(HostConfig.Privileged, false);
      assert.equal(HostConfig.RestartPolicy.Name, "on-failure");
      assert.equal(HostConfig.LogConfig.Type, engine === "docker" ? "json-file" : "k8s-file");
      assert.equal(Config.StopTimeout, 3);
      assert.equal(Config.Labels["team"], "mugs");
      assert.deepEqual(Config.Cmd, ["sh", "-c", "echo up; exec httpd -f -p 3000 -h /pages"]);
      assert.ok(["TZ=UTC", "A=b c", "PORT=3000"].every((line) => Config.Env.includes(line)));
      const ports = HostConfig.PortBindings;
      assert.deepEqual(ports["3000/tcp"], [{ HostIp: "127.0.0.1", HostPort: "8081" }]);
      assert.equal(ports["5353/udp"]?.[0]?.HostPort, "8053");
      assert.match(NetworkSettings.Networks["jiji-net"]?.IPAddress ?? "", /^10\.210\./);
      const mounts = new Map(Mounts.map((mount) => [mount.Destination, mount]));
      assert.equal(mounts.get("/data")?.Name, "shop-every-data");
      assert.equal(mounts.get("/share")?.RW, false);
      assert.equal(mounts.get("/etc/notes.txt")?.RW, false);
      assert.equal(mounts.get("/empty")?.RW, true);
    });

    await chapter(
      t,
      "inside, files have their modes and owners, and the device is there",
      async () => {
        const script = "stat -c '%a %u:%g %n' /etc/notes.txt /pages /pages/deep " +
          "/pages/deep/index.html /empty; test -c /dev/nothing && echo device; echo $TOKEN; " +
          "touch /empty/x && echo written";
        const said = await lab.on("s1", [engine, "exec", "shop-every", "sh", "-c", script]);
        assert.deepEqual(said.trim().split("\n"), [
          "640 1000:1001 /etc/notes.txt",
          "550 1000:1001 /pages",
          "550 1000:1001 /pages/deep",
          "440 1000:1001 /pages/deep/index.html",
          "755 0:0 /empty",
          "device",
          "sesame-0123456789",
          "written",
        ]);
        const outside = [engine, "exec", "shop-outside", "wget", "-qO-"];
        assert.equal(await lab.on("s1", [...outside, "http://127.0.0.1:8081/deep/"]), "deep\n");
        assert.match(await lab.on("s1", [engine, "logs", "shop-every"]), /^up$/m);
      },
    );

    await chapter(t, "other networks, and rights of root", async () => {
      const strong = await inspect(shop, engine, "shop-strong");
      assert.equal(strong.HostConfig.Privileged, engine === "podman");
      assert.equal(strong.HostConfig.NetworkMode, "none");
      assert.equal((await inspect(shop, engine, "shop-outside")).HostConfig.NetworkMode, "host");
      const beside = (await inspect(shop, engine, "shop-beside")).HostConfig.NetworkMode;
      assert.match(beside, /^container:/);
      const argv = [engine, "exec", "shop-beside", "wget", "-qO-", "http://127.0.0.1:3000/deep/"];
      assert.equal(await lab.on("s1", argv), "deep\n");
    });

    await chapter(t, "what would hurt is refused at once, with its places", async () => {
      const holder = ["run", "-d", "--name", "shop-taken", "-p", "127.0.0.1:9000:1", "busybox:1"];
      await lab.on("s1", [engine, ...holder, "sleep", "100000"]);
      const listen = [engine, "exec", "-d", "shop-outside", "nc", "-l", "-p", "9001"];
      await lab.on("s1", listen);
      await eventually("nc listens", async () => {
        return (await lab.on("s1", ["ss", "-Hltn"])).includes(":9001") ? true : undefined;
      }, { timeoutMs: 10_000 });
      await shop.configure((text) =>
        `${text}  taken:
    image: busybox:1
    hosts: [s1]
    command: sleep 1000000
    stop_first: true
    ports: ["9000:1", "127.0.0.1:9001:2"]
`
      );
      for (const args of [["deploy", "--plan"], ["deploy"]]) {
        const refused = await shop.jiji(...args);
        assert.equal(refused.code, 9, spoken(refused));
        assert.match(refused.stderr, /container shop-taken already, which jiji did not make/);
        assert.match(
          refused.stderr,
          /taken\.ports\[0\]: port 9000\/tcp of s1 is taken by container/,
        );
        assert.match(refused.stderr, /taken\.ports\[1\]: port 9001\/tcp of s1 is taken by/);
        assert.match(refused.stderr, /3 problems in/);
        assert.match(refused.stderr, /nothing was changed/);
      }
      tell("refused three things in one answer");
    });
  });
}
