// deno-lint-ignore-file no-console -- a command line tool prints.
/**
 * What a redeploy costs: jiji and Kamal deploy the same service to two servers each, in turns, in
 * one run, on one lab. Both take images that were built and pushed before, through a registry on the
 * laptop's loopback that servers reach over SSH. Wall time is that of the whole command; round trips
 * are the sessions that each server's sshd was asked for.
 *
 * A second part counts what it costs to find that 30 services on three servers need nothing.
 *
 * Usage: deno task bench:deploy [--rounds 5] [--part redeploy|noop]
 * Kamal is taken from `JIJI_BENCH_KAMAL` or PATH; without it jiji alone is measured.
 */
import { parseArgs } from "node:util";
import { CHECKOUT, eventually, Lab } from "../../e2e/lab.ts";

import { prepare } from "../../tools/prepare/prepare.ts";
import { KAMAL_REGISTRY, manyServices, setVersion, writeJiji, writeKamal } from "./projects.ts";

/** Servers of either contender. */
const JIJI_SERVERS = ["s1", "s2"] as const;
const KAMAL_SERVERS = ["s3", "s4"] as const;
const SERVICES = 30;
const COMMAND_TIMEOUT_MS = 300_000;

interface Contender {
  readonly name: string;
  readonly servers: readonly string[];
  deploy(version: string): Promise<void>;
}

interface Figures {
  readonly seconds: number[];
  /** Sessions on the server that was asked for most. */
  readonly sessions: number[];
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}

/** Makes sshd write a line for every session, the one place where both contenders are counted. */
async function countSessions(lab: Lab, servers: readonly string[]): Promise<void> {
  const script = "echo LogLevel VERBOSE >/etc/ssh/sshd_config.d/60-bench.conf && " +
    "systemctl reload ssh";
  await Promise.all(servers.map((server) => lab.on(server, ["sh", "-c", script])));
}

async function sessions(lab: Lab, server: string): Promise<number> {
  const script = "journalctl --sync; journalctl -t sshd -o cat | grep -c '^Starting session'";
  const { stdout } = await lab.tryOn(server, ["sh", "-c", script]);
  return Number(stdout.trim());
}

async function measure(lab: Lab, contender: Contender, version: string): Promise<[number, number]> {
  const { servers } = contender;
  const count = () => Promise.all(servers.map((server) => sessions(lab, server)));
  const before = await count();
  const startedMs = performance.now();
  await contender.deploy(version);
  const seconds = (performance.now() - startedMs) / 1000;
  const after = await count();
  return [seconds, Math.max(...after.map((value, index) => value - (before[index] ?? 0)))];
}

async function jijiContender(lab: Lab, folder: string): Promise<Contender> {
  await writeJiji(folder, JIJI_SERVERS.map((server) => lab.address(server)));
  const options = { cwd: folder, timeoutMs: COMMAND_TIMEOUT_MS };
  await lab.run(["jiji", "server", "init"], options);
  for (const version of ["a", "b"]) {
    await setVersion(folder, version);
    await lab.run(["jiji", "deploy", "--version", version], options);
  }
  return {
    name: "jiji",
    servers: JIJI_SERVERS,
    deploy: async (version) => {
      await lab.run(["jiji", "deploy", "--no-build", "--version", version], options);
    },
  };
}

async function kamalContender(lab: Lab, folder: string, kamal: string): Promise<Contender> {
  await writeKamal(folder, KAMAL_SERVERS.map((server) => lab.address(server)));
  const options = { cwd: folder, timeoutMs: COMMAND_TIMEOUT_MS, env: { VERSION: "a" } };
  for (const version of ["a", "b"]) {
    await setVersion(folder, version);
    const image = `${KAMAL_REGISTRY}/bench:${version}`;
    const args = ["--label", "service=bench", "-t", image];
    await lab.run(["docker", "build", ...args, "app"], options);
    await lab.run(["docker", "push", image], options);
  }
  await lab.run([kamal, "setup", "--skip-push", "--version", "a"], options);
  return {
    name: "Kamal",
    servers: KAMAL_SERVERS,
    deploy: async (version) => {
      await lab.run([kamal, "deploy", "--skip-push", "--version", version], options);
    },
  };
}

/** A registry on the laptop's loopback, in place of the container that Kamal would start there. */
async function startRegistry(lab: Lab, folder: string): Promise<Deno.ChildProcess> {
  const slots = await prepare(["hub"]);
  const config = `${folder}/registry.yml`;
  await Deno.writeTextFile(
    config,
    `version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: ${folder}/images}}\n` +
      `http: {addr: "${KAMAL_REGISTRY.replace("localhost", "127.0.0.1")}"}\n`,
  );
  const child = lab.spawn([`${slots("hub")}/usr/bin/docker-registry`, "serve", config]);
  // Read to their end, else the registry is stopped by a full pipe.
  for (const stream of [child.stdout, child.stderr]) void new Response(stream).text();
  await eventually("the registry answers", async () => {
    const { code } = await lab.tryRun(["curl", "-sf", `http://${KAMAL_REGISTRY}/v2/`]);
    return code === 0 ? true : undefined;
  }, { timeoutMs: 20_000 });
  return child;
}

async function findKamal(): Promise<string | undefined> {
  const program = Deno.env.get("JIJI_BENCH_KAMAL") ?? "kamal";
  try {
    const { stdout } = await new Deno.Command(program, { args: ["version"] }).output();
    console.log(`Kamal ${new TextDecoder().decode(stdout).trim()}`);
    return program;
  } catch {
    console.log("Kamal: not found on PATH and JIJI_BENCH_KAMAL is not set; jiji alone is measured");
    return undefined;
  }
}

async function redeploy(rounds: number): Promise<void> {
  const kamal = await findKamal();
  const base = await Deno.makeTempDir({ prefix: "jiji-bench-" });
  await using lab = await Lab.up({ name: "bench-deploy", servers: 4, engine: "docker" });
  const registry = kamal === undefined ? undefined : await startRegistry(lab, base);
  try {
    const contenders = [await jijiContender(lab, `${base}/jiji`)];
    if (kamal !== undefined) contenders.push(await kamalContender(lab, `${base}/kamal`, kamal));
    await countSessions(lab, contenders.flatMap(({ servers }) => servers));
    const figures = new Map(contenders.map(({ name }): [string, Figures] => [
      name,
      { seconds: [], sessions: [] },
    ]));
    for (let round = 0; round < rounds; round++) {
      const version = round % 2 === 0 ? "a" : "b";
      for (const contender of contenders) {
        const [seconds, count] = await measure(lab, contender, version);
        const own = figures.get(contender.name)!;
        own.seconds.push(seconds);
        own.sessions.push(count);
        const trips = `${count} round trips a server`;
        console.log(
          `round ${round + 1}  ${contender.name.padEnd(5)}  ${seconds.toFixed(2)} s  ${trips}`,
        );
      }
    }
    report(figures);
  } finally {
    registry?.kill();
    await registry?.status;
    await Deno.remove(base, { recursive: true });
  }
}

function report(figures: ReadonlyMap<string, Figures>): void {
  console.log("");
  for (const [name, { seconds, sessions }] of figures) {
    const spread = `${Math.min(...seconds).toFixed(2)}–${Math.max(...seconds).toFixed(2)}`;
    console.log(
      `${name.padEnd(5)}  median ${median(seconds).toFixed(2)} s (${spread}), ` +
        `${median(sessions)} round trips a server`,
    );
  }
  const [jiji, kamal] = [figures.get("jiji"), figures.get("Kamal")];
  if (!jiji || !kamal) return;
  const ratio = median(jiji.seconds) / median(kamal.seconds);
  console.log(`ratio  ${ratio.toFixed(2)} of Kamal's wall time (wanted: at most 0.40)`);
}

/** How long it takes to see that nothing is to be done. */
async function noop(rounds: number): Promise<void> {
  const base = await Deno.makeTempDir({ prefix: "jiji-bench-" });
  await using lab = await Lab.up({ name: "bench-noop", servers: 3, engine: "docker" });
  try {
    const servers = ["s1", "s2", "s3"].map((server) => lab.address(server));
    await writeJiji(base, servers, manyServices(SERVICES));
    const options = { cwd: base, timeoutMs: COMMAND_TIMEOUT_MS };
    await lab.run(["jiji", "server", "init"], options);
    const first = performance.now();
    await lab.run(["jiji", "deploy"], { ...options, timeoutMs: 2 * COMMAND_TIMEOUT_MS });
    console.log(`first deploy of ${SERVICES} services on 3 servers: ${secondsSince(first)} s`);
    const seconds: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const startedMs = performance.now();
      const { stderr, stdout } = await lab.tryRun(["jiji", "deploy"], options);
      if (!`${stdout}${stderr}`.includes("Nothing to do")) throw new Error(stderr);
      seconds.push((performance.now() - startedMs) / 1000);
      console.log(`round ${round + 1}  nothing to do  ${seconds.at(-1)!.toFixed(2)} s`);
    }
    console.log(`median ${median(seconds).toFixed(2)} s (wanted: under 3 s)`);
  } finally {
    await Deno.remove(base, { recursive: true });
  }
}

function secondsSince(startedMs: number): string {
  return ((performance.now() - startedMs) / 1000).toFixed(1);
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { rounds: { type: "string", default: "5" }, part: { type: "string" } },
  });
  const rounds = Math.max(1, Number(values.rounds) || 5);
  console.log(`build of ${CHECKOUT.split("/").at(-1)}, load ${Deno.loadavg()[0]?.toFixed(1)}`);
  if (values.part !== "noop") await redeploy(rounds);
  if (values.part !== "redeploy") await noop(rounds);
}
