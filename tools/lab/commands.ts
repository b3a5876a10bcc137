/** The commands of bin/lab. */
import { cacheRoot } from "../prepare/cache.ts";
import { exists } from "../prepare/command.ts";
import { LAB_THINGS, prepare, type Slots } from "../prepare/prepare.ts";
import { renderDuration, writeError, writeOut } from "../prepare/progress.ts";
import type { ThingName } from "../prepare/thing.ts";
import {
  type CgroupLayout,
  ensureGroup,
  observeCgroups,
  serverInit,
  shellJoinGroup,
  shellJoinServer,
} from "./cgroups.ts";
import { endLab, findLeftovers, listLabs } from "./cleanup.ts";
import { startHub } from "./hub.ts";
import {
  createLaptop,
  operatorEnvironment,
  operatorGroup,
  renderOperatorScript,
  shellEnvironment,
  startKeeper,
  startLaptopEngine,
  waitForLaptopEngine,
} from "./laptop.ts";
import {
  type Cut,
  type EngineKind,
  findServer,
  type Lab,
  type LabServer,
  planNewServers,
  readLab,
  writeLab,
} from "./model.ts";
import { type LabPaths, labPaths, namespaceFile, namespaceName, STATE_ROOT } from "./names.ts";
import { applyCuts, createSwitch } from "./network.ts";
import { isOn, type LabContext, powerOff, powerOn, serverGroup, waitUntilReady } from "./server.ts";
import { observeStatus, renderStatus } from "./status.ts";
import { LabUsageError, parseCommandLine, type UpRequest } from "./usage.ts";

/** Prepared things a lab's file points to. */
const ENGINE_THINGS: Readonly<Record<EngineKind, readonly ThingName[]>> = {
  "none": [],
  "docker": ["root-docker"],
  "docker-current": ["root-docker", "root-docker-current"],
  "podman": ["root-podman"],
};

/** Longest wait for another command that changes the same lab, in milliseconds. */
const LOCK_TIMEOUT_MS = 10 * 60_000;

async function withLock<T>(paths: LabPaths, work: () => Promise<T>): Promise<T> {
  await Deno.mkdir(STATE_ROOT, { recursive: true });
  using file = await Deno.open(paths.lock, { create: true, write: true });
  if (!await file.tryLock(true)) {
    writeError(`waiting for another command on lab ${paths.name}\n`);
    const late = setTimeout(() => {
      writeError(`lab ${paths.name} is busy for too long; give up\n`);
      Deno.exit(1);
    }, LOCK_TIMEOUT_MS);
    await file.lock(true);
    clearTimeout(late);
  }
  return await work();
}

async function openLab(paths: LabPaths): Promise<LabContext> {
  const lab = await readLab(paths);
  if (!lab) {
    throw new Error(`there is no lab "${paths.name}"; start it with bin/lab up`);
  }
  if (lab.phase !== "up") {
    throw new Error(`lab "${paths.name}" was not started whole; run bin/lab up again`);
  }
  return { paths, lab, layout: await observeCgroups() };
}

function say(startedAtMs: number, text: string): void {
  writeError(`${text}  ${renderDuration(performance.now() - startedAtMs)}\n`);
}

/** `up`: boots what is missing. */
export async function up(paths: LabPaths, request: UpRequest): Promise<void> {
  if (Deno.uid() !== 0) throw new Error("a lab needs root: namespaces, mounts, control groups");
  const wanted = [...LAB_THINGS, ...ENGINE_THINGS[request.engine]];
  const slots = await prepare([...wanted, "packages"]);
  const startedAtMs = performance.now();
  const layout = await observeCgroups();
  await withLock(paths, async () => {
    const before = await readLab(paths);
    const running = before?.phase === "up" && await exists(
      namespaceFile(namespaceName(paths.name, "switch")),
    );
    if (!running) {
      if (await exists(paths.state) || (await listLabs(layout)).includes(paths.name)) {
        await endLab(paths, layout);
        say(startedAtMs, "cleaned what a crash had left");
      }
      await startLab(paths, layout, { slots, request, startedAtMs });
    } else {
      await growLab({ paths, layout, lab: before }, { slots, request, startedAtMs });
    }
  });
}

interface UpWork {
  readonly slots: Slots;
  readonly request: UpRequest;
  readonly startedAtMs: number;
}

function slotTable(slots: Slots, engine: EngineKind): Readonly<Record<string, string>> {
  const names: readonly ThingName[] = [...LAB_THINGS, "packages", ...ENGINE_THINGS[engine]];
  return Object.fromEntries(names.map((name) => [name, slots(name)]));
}

async function startLab(paths: LabPaths, layout: CgroupLayout, work: UpWork): Promise<void> {
  const { request, startedAtMs } = work;
  const slots = slotTable(work.slots, request.engine);
  const servers = planNewServers([], { ...request, slots });
  const lab: Lab = { phase: "starting", servers, cuts: [], slots };
  await writeLab(paths, lab);
  const context = { paths, layout, lab };
  await raiseInotifyLimit();
  await createSwitch(paths.name);
  await applyCuts(paths.name, []);
  await createLaptop(context);
  say(startedAtMs, "network and laptop are there");
  await Promise.all([startKeeper(context), startHub(context), startLaptopEngine(context)]);
  await bootAll(context, servers, startedAtMs);
  await waitForLaptopEngine(context);
  say(startedAtMs, "the laptop's engine is up");
  await writeLab(paths, { ...lab, phase: "up" });
  writeError(`lab "${paths.name}" is up: ${describe(servers)}\n`);
}

async function growLab(context: LabContext, work: UpWork): Promise<void> {
  const { paths, layout, lab } = context;
  const { request, startedAtMs } = work;
  const slots = slotTable(work.slots, request.engine);
  const added = planNewServers(lab.servers, { ...request, slots });
  for (const server of lab.servers) {
    if (await isOn(context, server)) continue;
    writeError(`${server.name} is off; power it on with bin/lab boot ${server.name}\n`);
  }
  if (added.length === 0) {
    writeError(`lab "${paths.name}" is up with ${lab.servers.length} servers: nothing to do\n`);
    return;
  }
  const grown: Lab = { ...lab, servers: [...lab.servers, ...added], slots };
  await writeLab(paths, grown);
  await bootAll({ paths, layout, lab: grown }, added, startedAtMs);
  writeError(`lab "${paths.name}" has more servers: ${describe(added)}\n`);
}

function describe(servers: readonly LabServer[]): string {
  return servers.map((server) => `${server.name} ${server.address}`).join(", ");
}

async function bootAll(
  context: LabContext,
  servers: readonly LabServer[],
  startedAtMs: number,
): Promise<void> {
  await Promise.all(servers.map(async (server) => {
    await powerOn(context, server);
    await waitUntilReady(context, server);
    const engine = server.engine === "none" ? "" : `, ${server.engine} is up`;
    say(startedAtMs, `${server.name} answers on SSH${engine}`);
  }));
}

/** systemd in many servers needs more watches than a machine allows by default. */
const INOTIFY_INSTANCES_MIN = 4096;

async function raiseInotifyLimit(): Promise<void> {
  const path = "/proc/sys/fs/inotify/max_user_instances";
  const now = Number(await Deno.readTextFile(path));
  if (now >= INOTIFY_INSTANCES_MIN) return;
  await Deno.writeTextFile(path, String(INOTIFY_INSTANCES_MIN)).catch(() => undefined);
}

/** Argument list of a command as the operator; starts the laptop's engine when it is down. */
export async function planRun(
  paths: LabPaths,
  args: readonly string[],
): Promise<readonly string[]> {
  const command = parseCommandLine(args);
  const context = await openLab(paths);
  const { layout, lab } = context;
  await startLaptopEngine(context);
  await waitForLaptopEngine(context);
  const group = operatorGroup(paths);
  await ensureGroup(layout, group);
  const environment = operatorEnvironment(paths, {
    checkout: new URL("../..", import.meta.url).pathname.replace(/\/$/, ""),
    path: Deno.env.get("PATH") ?? "/usr/sbin:/usr/bin:/sbin:/bin",
    home: Deno.env.get("HOME") ?? "/root",
    cache: cacheRoot((name) => Deno.env.get(name)),
    corrosion: `${lab.slots["corrosion"]}/bin/corrosion`,
    denoDir: Deno.env.get("DENO_DIR"),
  });
  const script = renderOperatorScript({
    join: shellJoinGroup(layout, group),
    environment: shellEnvironment(environment),
    laptop: paths.laptop,
  });
  return [
    ...["nsenter", `--net=${namespaceFile(namespaceName(paths.name, "laptop"))}`],
    ...["unshare", "--mount", "--propagation", "slave"],
    ...["sh", "-ec", script, "lab-run", ...command],
  ];
}

/** Argument list of a command as root on a server. */
export async function planOn(
  paths: LabPaths,
  args: readonly string[],
): Promise<readonly string[]> {
  const [name, ...rest] = args;
  if (name === undefined) throw new LabUsageError("the name of a server is missing");
  const context = await openLab(paths);
  const server = findServer(context.lab, name);
  const group = serverGroup(paths, server);
  const init = await serverInit(context.layout, group);
  if (init === undefined) {
    throw new Error(`${name} is off; power it on with bin/lab boot ${name}`);
  }
  const words = rest[0] === "--" ? rest.slice(1) : rest;
  const command = words.length > 0 ? words : ["bash", "-l"];
  const environment = {
    PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    HOME: "/root",
    USER: "root",
    LOGNAME: "root",
    SHELL: "/bin/bash",
    LANG: "C.UTF-8",
    TERM: Deno.env.get("TERM") ?? "dumb",
  };
  // In its group the command dies with the server.
  const join = shellJoinServer(context.layout, group);
  return [
    ...["sh", "-ec", `${join}\nexec "$@"`, "lab-on"],
    ...["nsenter", `--target=${init}`, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"],
    ...["--root", "--wdns=/root", "env", "-i"],
    ...Object.entries(environment).map(([key, value]) => `${key}=${value}`),
    // nsenter passes no signals on: the command gets SIGTERM when nsenter dies of one.
    ...["setpriv", "--pdeathsig", "TERM", "--"],
    ...command,
  ];
}

/** `cut`: adds a cut. */
export async function cut(paths: LabPaths, args: readonly string[]): Promise<void> {
  const [from, to = "*", ...rest] = args;
  if (from === undefined || rest.length > 0 || from === to) {
    throw new LabUsageError("cut takes one party, or two different ones");
  }
  await withLock(paths, async () => {
    const context = await openLab(paths);
    for (const party of [from, to]) {
      if (party !== "*" && party !== "laptop") findServer(context.lab, party);
    }
    const added: Cut = { from, to };
    const same = (entry: Cut) => entry.from === from && entry.to === to;
    const others = context.lab.cuts.filter((entry) => !same(entry));
    await changeCuts(context, [...others, added]);
  });
}

/** `heal`: takes all cuts away. */
export async function heal(paths: LabPaths): Promise<void> {
  await withLock(paths, async () => await changeCuts(await openLab(paths), []));
}

async function changeCuts(context: LabContext, cuts: readonly Cut[]): Promise<void> {
  await applyCuts(context.paths.name, cuts);
  await writeLab(context.paths, { ...context.lab, cuts });
}

function namedServers(context: LabContext, names: readonly string[]): readonly LabServer[] {
  if (names.length === 0) throw new LabUsageError("the name of a server is missing");
  return names.map((name) => findServer(context.lab, name));
}

/** `kill`: power loss. */
export async function kill(paths: LabPaths, names: readonly string[]): Promise<void> {
  await withLock(paths, async () => {
    const context = await openLab(paths);
    const servers = namedServers(context, names);
    await Promise.all(servers.map((server) => powerOff(context, server)));
  });
}

/** `boot`: power on. */
export async function boot(paths: LabPaths, names: readonly string[]): Promise<void> {
  const startedAtMs = performance.now();
  await withLock(paths, async () => {
    const context = await openLab(paths);
    const servers = namedServers(context, names);
    const off: LabServer[] = [];
    for (const server of servers) {
      if (await isOn(context, server)) writeError(`${server.name} is on already\n`);
      else off.push(server);
    }
    await bootAll(context, off, startedAtMs);
  });
}

/** `status`: shows the lab. */
export async function status(paths: LabPaths, args: readonly string[]): Promise<void> {
  const unknown = args.find((arg) => arg !== "--json");
  if (unknown !== undefined) throw new LabUsageError(`status has no option "${unknown}"`);
  const lab = await readLab(paths);
  if (!lab) throw new Error(`there is no lab "${paths.name}"; start it with bin/lab up`);
  const found = await observeStatus({ paths, lab, layout: await observeCgroups() });
  writeOut(args.includes("--json") ? `${JSON.stringify(found)}\n` : renderStatus(found));
}

/** `down`: ends this lab, or all. */
export async function down(paths: LabPaths, args: readonly string[]): Promise<void> {
  const unknown = args.find((arg) => arg !== "--all");
  if (unknown !== undefined) throw new LabUsageError(`down has no option "${unknown}"`);
  const layout = await observeCgroups();
  const names = args.includes("--all") ? await listLabs(layout) : [paths.name];
  const startedAtMs = performance.now();
  for (const name of names) {
    const lab = labPaths(name);
    await withLock(lab, async () => {
      await endLab(lab, layout);
      await Deno.remove(lab.lock).catch(() => undefined);
    });
    await Deno.remove(STATE_ROOT).catch(() => undefined);
    say(startedAtMs, `lab "${name}" is gone`);
  }
}

/** `leftovers`: exit code 1 when there are some. */
export async function leftovers(): Promise<number> {
  const lines = await findLeftovers(await observeCgroups());
  for (const line of lines) writeOut(`${line}\n`);
  return lines.length > 0 ? 1 : 0;
}
