/**
 * Control groups of a lab: each server, the laptop and the hub run in one of their own, so that all
 * their processes can be found and killed whatever became of those that started them.
 */
import { exists, waitFor } from "../prepare/command.ts";

const MOUNT = "/sys/fs/cgroup";

/** How this machine's control groups are laid out. */
export interface CgroupLayout {
  /** Mount points in which a lab makes groups. */
  readonly hierarchies: readonly string[];
  /** The one whose group lists are complete. */
  readonly tracking: string;
  /** Version 2 alone, version 1 with version 2 beside it for keeping track, or version 1 alone. */
  readonly kind: "unified" | "hybrid" | "legacy";
}

/** Finds out how control groups are mounted. Source: cgroups(7). */
export async function observeCgroups(): Promise<CgroupLayout> {
  if (await exists(`${MOUNT}/cgroup.controllers`)) {
    return { hierarchies: [MOUNT], tracking: MOUNT, kind: "unified" };
  }
  const hierarchies: string[] = [];
  for await (const entry of Deno.readDir(MOUNT)) {
    const path = `${MOUNT}/${entry.name}`;
    if (entry.isDirectory && await exists(`${path}/cgroup.procs`)) hierarchies.push(path);
  }
  const tracking = hierarchies.find((path) => path.endsWith("/systemd"));
  if (!tracking) throw new Error(`no control group hierarchy of systemd below ${MOUNT}`);
  const kind = hierarchies.includes(`${MOUNT}/unified`) ? "hybrid" : "legacy";
  return { hierarchies: hierarchies.sort(), tracking, kind };
}

/** The paths from the first to the last element of a group: `a/b` → `a`, `a/b`. */
export function groupPrefixes(group: string): readonly string[] {
  const parts = group.split("/");
  return parts.map((_, index) => parts.slice(0, index + 1).join("/"));
}

/** Makes a group in every hierarchy. */
export async function ensureGroup(layout: CgroupLayout, group: string): Promise<void> {
  for (const hierarchy of layout.hierarchies) {
    await Deno.mkdir(`${hierarchy}/${group}`, { recursive: true });
    if (!hierarchy.endsWith("/cpuset")) continue;
    // A new cpuset has no processors and takes no process until it is given some.
    for (const prefix of groupPrefixes(group)) {
      for (const file of ["cpuset.cpus", "cpuset.mems"]) {
        const all = await Deno.readTextFile(`${hierarchy}/${file}`);
        await Deno.writeTextFile(`${hierarchy}/${prefix}/${file}`, all);
      }
    }
  }
}

/** Shell text that moves the shell itself into a group. */
export function shellJoinGroup(layout: CgroupLayout, group: string): string {
  return layout.hierarchies
    .map((hierarchy) => `echo $$ > ${hierarchy}/${group}/cgroup.procs`)
    .join("\n");
}

/**
 * Shell text that moves the shell itself to where a server's own processes are: systemd-nspawn
 * makes the group \`payload\` for them in the hierarchy of systemd alone.
 */
export function shellJoinServer(layout: CgroupLayout, group: string): string {
  return layout.hierarchies.map((hierarchy) => {
    const path = `${hierarchy}/${group}`;
    return `if [ -d ${path}/payload ]; then echo $$ > ${path}/payload/cgroup.procs; ` +
      `else echo $$ > ${path}/cgroup.procs; fi`;
  }).join("\n");
}

async function groupsBelow(path: string): Promise<string[]> {
  const found: string[] = [];
  try {
    for await (const entry of Deno.readDir(path)) {
      if (entry.isDirectory) found.push(...await groupsBelow(`${path}/${entry.name}`));
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return found;
  }
  found.push(path);
  return found;
}

async function processesOf(path: string): Promise<number[]> {
  try {
    const text = await Deno.readTextFile(`${path}/cgroup.procs`);
    // 0 is a process of another process-id namespace: not visible, so not ours to see.
    return text.split("\n").map(Number).filter((pid) => pid > 0);
  } catch (error) {
    // A group may go, or be on its way out (ENODEV), between listing and reading.
    if (error instanceof Deno.errors.NotFound || isGone(error)) return [];
    throw error;
  }
}

function isGone(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENODEV";
}

/** All processes in a group and the groups below it. */
export async function groupProcesses(
  layout: CgroupLayout,
  group: string,
): Promise<readonly number[]> {
  const groups = await groupsBelow(`${layout.tracking}/${group}`);
  return (await Promise.all(groups.map(processesOf))).flat();
}

/** Process 1 of the server that runs in a group, as this machine numbers it. */
export async function serverInit(
  layout: CgroupLayout,
  group: string,
): Promise<number | undefined> {
  const [pid] = await processesOf(`${layout.tracking}/${group}/payload/init.scope`);
  return pid;
}

/** Longest wait until killed processes are gone, in milliseconds. */
const KILL_TIMEOUT_MS = 20_000;

/**
 * Kills every process of a group with SIGKILL, and the group itself.
 * @throws Error when some can't be killed in time
 */
export async function killGroup(layout: CgroupLayout, group: string): Promise<void> {
  // With its process 1 the kernel takes everything of a server at the same instant.
  const init = await serverInit(layout, group);
  if (init !== undefined) kill(init);
  let left: readonly number[] = [];
  const done = await waitFor(async () => {
    left = await groupProcesses(layout, group);
    left.forEach(kill);
    return left.length === 0 ? true : undefined;
  }, { timeoutMs: KILL_TIMEOUT_MS, everyMs: 10 });
  if (!done) throw new Error(`processes ${left.join(", ")} of ${group} do not die`);
  await removeGroup(layout, group);
}

function kill(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Moves processes out of a group, to the root of each hierarchy; those elsewhere stay there. */
export async function releaseProcesses(
  layout: CgroupLayout,
  group: string,
  options: { readonly pids: ReadonlySet<number> },
): Promise<void> {
  for (const pid of await groupProcesses(layout, group)) {
    if (!options.pids.has(pid)) continue;
    for (const hierarchy of layout.hierarchies) {
      await Deno.writeTextFile(`${hierarchy}/cgroup.procs`, String(pid));
    }
  }
}

/** Removes empty groups, deepest first; those in use stay. */
export async function removeGroup(layout: CgroupLayout, group: string): Promise<void> {
  for (const hierarchy of layout.hierarchies) {
    for (const path of await groupsBelow(`${hierarchy}/${group}`)) {
      // A group is busy for a moment after its last process died.
      await waitFor(() => removeEmpty(path), { timeoutMs: 2000, everyMs: 10 });
    }
  }
}

async function removeEmpty(path: string): Promise<true | undefined> {
  try {
    await Deno.remove(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return true;
    if ((await processesOf(path)).length > 0) return true;
    return undefined;
  }
}

/** Names of the groups directly below `group`, over all hierarchies. */
export async function childGroups(
  layout: CgroupLayout,
  group: string,
): Promise<readonly string[]> {
  const names = new Set<string>();
  for (const hierarchy of layout.hierarchies) {
    const path = `${hierarchy}/${group}`;
    if (!await exists(path)) continue;
    for await (const entry of Deno.readDir(path)) if (entry.isDirectory) names.add(entry.name);
  }
  return [...names].sort();
}
