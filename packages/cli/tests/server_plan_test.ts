import assert from "node:assert/strict";
import { parseCidr, Secret, SERVER_PATHS, SERVER_UNITS } from "@jiji/core";
import { sha256OfText } from "../src/lib/network/artifacts.ts";
import {
  type ManagedFile,
  managedFiles,
  renderDaemonUnit,
  UNIT_PATHS,
} from "../src/lib/network/server_files.ts";
import {
  type FileFact,
  parseServerFacts,
  type ServerFacts,
} from "../src/lib/network/server_facts.ts";
import {
  findServerProblem,
  planConfiguration,
  planPreparation,
  renderServerStep,
} from "../src/lib/network/server_plan.ts";
import { stepDetail } from "../src/lib/network/server_steps.ts";

const CLUSTER = parseCidr("10.210.0.0/16")!;
const BINARIES = new Map([["corrosion", "a"], ["jiji-dns", "b"], ["jiji-daemon", "c"]] as const);

function facts(changes: Partial<ServerFacts> = {}): ServerFacts {
  return {
    ...parseServerFacts("@machine x86_64\n@systemd yes\n@package_manager apt-get\n", 0),
    ...changes,
  };
}

const wish = (engine: "docker" | "podman") => ({
  engine,
  binaries: BINARIES,
  wireguardPort: 31820,
});

const lines = (steps: ReturnType<typeof planPreparation>) => steps.map(renderServerStep);

/** A server on which everything is as planned. */
function settled(files: readonly ManagedFile[]): ServerFacts {
  const there = new Map<string, FileFact>(files.map((file) => [file.path, {
    sha256: sha256OfText(file.content),
    mode: `${file.mode.toString(8)} ${file.owner.replace(":", " ")}`,
    modifiedAtSeconds: 100,
  }]));
  there.set(SERVER_PATHS.peerSeed, { sha256: "", mode: "", modifiedAtSeconds: 100 });
  for (const [name, sha256] of BINARIES) {
    there.set(`${SERVER_PATHS.bin}/${name}`, {
      sha256,
      mode: "755 root root",
      modifiedAtSeconds: 99,
    });
  }
  const unit = { enabled: true, active: true, startedAtSeconds: 200 };
  return facts({
    engines: new Map([["docker", "28.1.0"]]),
    tools: new Set(["wg", "wg-quick", "wireguard-go", "iptables"]),
    units: new Map([...Object.values(SERVER_UNITS), "docker.service"].map((name) => [name, unit])),
    userExists: true,
    publicKey: "key",
    files: there,
  });
}

const FILES = managedFiles({
  format: 1,
  server_id: "s1",
  engine: "docker",
  cluster_cidr: "10.210.0.0/16",
  block: "10.210.3.0/24",
  management_ip: "fdcc::1",
  wireguard_public_key: "k",
  wireguard_port: 31820,
  endpoints: [],
  service_domain: "jiji",
}, {
  bootstrap: ["[fdcc::2]:31280"],
  token: new Secret("0f".repeat(32)),
  meshSecret: new Secret("s3cr3t"),
  schema: "-- schema\n",
});

const configure = (there: ServerFacts) =>
  lines(planConfiguration(there, {
    files: FILES,
    peerSeed: { path: SERVER_PATHS.peerSeed, mode: 0o644, owner: "root:root", content: "{}\n" },
    hashOf: sha256OfText,
  }));

Deno.test("planPreparation(): everything a bare server needs, per engine and package manager", async (t) => {
  const texts = (["docker", "podman"] as const).flatMap((engine) =>
    (["apt-get", "dnf"] as const).map((packageManager) =>
      [
        `${engine} ${packageManager}`,
        ...lines(planPreparation(facts({ packageManager }), wish(engine))),
      ]
        .join("\n")
    )
  );
  await t.assertSnapshot(texts.join("\n\n"));
});

Deno.test("planPreparation(): nothing where everything is there", () => {
  assert.deepEqual(lines(planPreparation(settled(FILES), wish("docker"))), []);
});

Deno.test("planPreparation(): the kernel's WireGuard makes wireguard-go needless", () => {
  const steps = planPreparation(facts({ kernelWireguard: true }), wish("docker"));
  assert(!lines(steps)[0]!.includes("wireguard-go"));
});

Deno.test("planPreparation(): a firewall lets through what is needed, and only that", () => {
  const open = (name: "ufw" | "firewalld", rules: readonly string[]) => {
    const firewall = { name, zone: name === "ufw" ? "" : "public", rules: new Set(rules) };
    const steps = planPreparation(facts({ firewall }), wish("docker"))
      .filter((step) => step.kind === "openFirewall");
    return [
      ...lines(steps),
      ...steps.flatMap((step) => step.changes.map((argv) => argv.join(" "))),
    ];
  };
  const ufw = ["31820/udp", "80/tcp", "443/tcp", "in on jiji0", "53 on jiji-br0"];
  assert.deepEqual(open("ufw", ufw), []);
  assert.deepEqual(open("ufw", ufw.slice(0, 4)), [
    "openFirewall ufw — 53 on jiji-br0 is not let through",
    "ufw allow in on jiji-br0 to any port 53",
  ]);
  const firewalld = ["31820/udp", "http", "https", "trusted jiji0"];
  assert.deepEqual(open("firewalld", firewalld), []);
  assert.deepEqual(open("firewalld", ["ssh", "http", "trusted jiji0", "trusted jiji-br0"]), [
    "openFirewall firewalld — 31820/udp is not let through, https is not let through, " +
    "jiji-br0 belongs into docker's zone",
    "firewall-cmd --permanent --zone=public --add-port=31820/udp",
    "firewall-cmd --permanent --zone=public --add-service=https",
    "firewall-cmd --permanent --zone=trusted --remove-interface=jiji-br0",
    "firewall-cmd --reload",
  ]);
});

Deno.test("planPreparation(): an engine that would not come back after a reboot is enabled", () => {
  const there = settled(FILES);
  const off = { enabled: false, active: true, startedAtSeconds: 1 };
  const units = new Map(there.units).set("docker.service", off);
  assert.deepEqual(lines(planPreparation({ ...there, units }, wish("docker"))), [
    "enableEngine docker.service — must run, and come back after a reboot",
  ]);
});

Deno.test("planConfiguration(): writes all on a new server, nothing on a settled one", async (t) => {
  await t.assertSnapshot(configure(facts()).join("\n"));
  assert.deepEqual(configure(settled(FILES)), []);
});

Deno.test("planConfiguration(): a changed file is written and its unit alone restarted", () => {
  const there = settled(FILES);
  const path = "/etc/systemd/system/jiji-dns.service";
  const files = new Map(there.files).set(path, { ...there.files.get(path)!, sha256: "other" });
  assert.deepEqual(configure({ ...there, files }), [
    `writeFile ${path} — content differs`,
    "restartUnits jiji-dns.service — older than its files",
  ]);
});

Deno.test("planConfiguration(): what is added to wg-quick's unit does not restart a mesh that runs", () => {
  const there = settled(FILES);
  const path = "/etc/systemd/system/wg-quick@jiji0.service.d/jiji.conf";
  assert(UNIT_PATHS.includes(path), "teardown and observation know it");
  const files = new Map(there.files);
  files.delete(path);
  assert.deepEqual(configure({ ...there, files }), [
    `writeFile ${path} — missing`,
    "reloadUnits systemd — holds from the next start on",
  ]);
  files.set(path, { ...there.files.get(path)!, modifiedAtSeconds: 300 });
  assert.deepEqual(configure({ ...there, files }), [], "it holds from the next start on");
});

Deno.test("planConfiguration(): a readable secret is mended", () => {
  const there = settled(FILES);
  const fact = { ...there.files.get(SERVER_PATHS.corrosionToken)!, mode: "644 root root" };
  const files = new Map(there.files).set(SERVER_PATHS.corrosionToken, fact);
  assert.deepEqual(configure({ ...there, files }), [
    `writeFile ${SERVER_PATHS.corrosionToken} — is 644 root root, must be 640 root jiji`,
  ]);
});

Deno.test("planConfiguration(): finishes what a cut-off run left: written, not restarted", () => {
  const there = settled(FILES);
  const path = `${SERVER_PATHS.bin}/jiji-daemon`;
  const files = new Map(there.files).set(path, {
    ...there.files.get(path)!,
    modifiedAtSeconds: 300,
  });
  assert.deepEqual(configure({ ...there, files }), [
    "restartUnits jiji-daemon.service — older than its files",
  ]);
});

Deno.test("planConfiguration(): the peer seed is written once and then left alone", () => {
  const there = settled(FILES);
  const files = new Map(there.files);
  files.delete(SERVER_PATHS.peerSeed);
  assert.deepEqual(configure({ ...there, files }), [
    `writeFile ${SERVER_PATHS.peerSeed} — missing`,
  ]);
});

Deno.test("findServerProblem(): a network that the server uses already is not the cluster's", () => {
  const route = (network: string, device = "eth1") => ({ routes: [{ network, device }] });
  const problem = (changes: Partial<ServerFacts>) =>
    findServerProblem(facts(changes), { engine: "docker", clusterCidr: CLUSTER })?.message;
  const used = "it uses part of 10.210.0.0/16 already: ";
  assert.equal(problem(route("10.210.0.0/16")), `${used}10.210.0.0/16 on eth1`);
  assert.equal(problem(route("10.210.7.0/24", "docker0")), `${used}10.210.7.0/24 on docker0`);
  assert.equal(problem(route("10.210.7.9/32", "")), `${used}10.210.7.9/32`);
  assert.equal(problem({ addresses: ["2001:db8::7", "10.210.0.5"] }), `${used}10.210.0.5`);
  assert.equal(problem(route("10.0.0.0/8")), undefined, "a wider one is no clash");
  assert.equal(problem(route("10.211.0.0/24")), undefined);
});

Deno.test("findServerProblem(): says what stops a server before anything is changed", () => {
  const problem = (changes: Partial<ServerFacts>, engine: "docker" | "podman" = "docker") =>
    findServerProblem(facts(changes), { engine, clusterCidr: CLUSTER })?.message;
  assert.equal(problem({}), undefined);
  assert.equal(problem({ systemd: false }), "systemd does not run there");
  assert.equal(problem({ machine: "riscv64" }), "its processor is riscv64");
  assert.match(problem({ packageManager: undefined })!, /no package manager that jiji knows/);
  assert.equal(problem({ engines: new Map([["docker", "19.03.8"]]) }), "docker 19.03.8 is too old");
  assert.equal(problem({ engines: new Map([["docker", "20.10.0"]]) }), undefined);
  assert.equal(problem({ engines: new Map([["docker", "28.0.0-rc.1"]]) }), undefined);
  assert.equal(
    problem({ engines: new Map([["podman", "4.2.9"]]) }, "podman"),
    "podman 4.2.9 is too old",
  );
  const complete = {
    packageManager: undefined,
    engines: new Map([["docker", "28.1.0"]]),
    tools: new Set(["wg", "wg-quick", "iptables"]),
    kernelWireguard: true,
  };
  assert.equal(problem(complete), undefined, "a server with everything needs no package manager");
});

Deno.test("stepDetail(): has a word for every step", () => {
  const steps = [
    ...planPreparation(
      facts({ firewall: { name: "firewalld", zone: "", rules: new Set() } }),
      wish("podman"),
    ),
    ...planConfiguration(facts(), { files: FILES, peerSeed: FILES[0]!, hashOf: sha256OfText }),
  ];
  const words = steps.map((step) => stepDetail(step, "podman"));
  assert.equal(words[0], "podman installed");
  assert(words.every((word) => word !== "" && word.length < 30), words.join());
});

Deno.test("managedFiles(): what each file holds", async (t) => {
  for (const file of FILES) {
    const head = `${file.path} ${file.mode.toString(8)} ${file.owner} ${file.unit ?? "-"}`;
    await t.assertSnapshot(`${head}\n${file.content.replaceAll("0f".repeat(32), "[token]")}`);
  }
});

Deno.test("renderDaemonUnit(): beside Podman, checks in containers keep their rights", () => {
  const unit = renderDaemonUnit("podman");
  // Each of these makes a mount namespace, drops capabilities or forbids set-user-ID programs.
  assert.doesNotMatch(unit, /^(Protect|Private|ReadWritePaths|NoNewPriv|Capability|CacheDir)/m);
  assert.match(unit, /^SystemCallFilter=~/m);
});

Deno.test("managedFiles(): the token is only in files that others may not read", () => {
  for (const file of FILES) {
    if (!file.content.includes("0f".repeat(32))) continue;
    assert.equal(file.mode & 0o007, 0, file.path);
    assert.equal(file.owner, "root:jiji");
  }
  const wireguard = FILES.find((file) => file.path === "/etc/wireguard/jiji0.conf")!;
  assert(!/PrivateKey/.test(wireguard.content), "the key stays in its own file");
  assert(parseCidr("10.210.3.0/24") && wireguard.content.includes("10.210.3.1/32"));
});
