/** Ending labs, and finding what is left of them: from what is really there, not from memory. */
import { mountsBelow, removeTree } from "../prepare/cache.ts";
import { exists, runCommand } from "../prepare/command.ts";
import {
  type CgroupLayout,
  childGroups,
  groupProcesses,
  killGroup,
  releaseProcesses,
} from "./cgroups.ts";
import { labOfNamespace, type LabPaths, labPaths, STATE_ROOT } from "./names.ts";
import { listNamespaces } from "./network.ts";

/** Names of all labs of which anything is there. */
export async function listLabs(layout: CgroupLayout): Promise<readonly string[]> {
  const names = new Set<string>(await childGroups(layout, "jiji-lab"));
  for (const namespace of await listNamespaces()) names.add(labOfNamespace(namespace) ?? "");
  if (await exists(STATE_ROOT)) {
    for await (const entry of Deno.readDir(STATE_ROOT)) {
      if (entry.isDirectory) names.add(entry.name);
    }
  }
  names.delete("");
  return [...names].sort();
}

/** This process and those that started it: they may run inside the lab that they end. */
export async function ownAncestors(): Promise<ReadonlySet<number>> {
  const found = new Set<number>();
  for (let pid = Deno.pid; pid > 1 && !found.has(pid);) {
    found.add(pid);
    const stat = await Deno.readTextFile(`/proc/${pid}/stat`).catch(() => "");
    pid = Number(/\) \S (\d+)/.exec(stat)?.[1] ?? 0);
  }
  return found;
}

/** Processes that see a mount below a folder. */
async function processesWithMounts(folder: string): Promise<readonly number[]> {
  const found: number[] = [];
  for await (const entry of Deno.readDir("/proc")) {
    const pid = Number(entry.name);
    if (!Number.isInteger(pid) || pid === Deno.pid) continue;
    const mounts = await Deno.readTextFile(`/proc/${pid}/mounts`).catch(() => "");
    if (mounts.includes(`${folder}/`)) found.push(pid);
  }
  return found;
}

/** Ends a lab: processes, namespaces, mounts, control groups, state. Nothing there, nothing done. */
export async function endLab(paths: LabPaths, layout: CgroupLayout): Promise<void> {
  await releaseProcesses(layout, paths.group, { pids: await ownAncestors() });
  await killGroup(layout, paths.group);
  for (const namespace of await listNamespaces()) {
    if (labOfNamespace(namespace) !== paths.name) continue;
    await runCommand(["ip", "netns", "delete", namespace]);
  }
  for (const mount of await mountsBelow(paths.state)) await runCommand(["umount", "-l", mount]);
  await removeTree(paths.state);
  await Deno.remove(STATE_ROOT).catch(() => undefined);
  for (const hierarchy of layout.hierarchies) {
    await Deno.remove(`${hierarchy}/jiji-lab`).catch(() => undefined);
  }
}

/** What is left of labs: one line each, nothing when nothing is. */
export async function findLeftovers(layout: CgroupLayout): Promise<readonly string[]> {
  const lines: string[] = [];
  for (const namespace of await listNamespaces()) lines.push(`network namespace ${namespace}`);
  for (const mount of await mountsBelow(STATE_ROOT)) lines.push(`mount ${mount}`);
  const pids = new Set(await groupProcesses(layout, "jiji-lab"));
  for (const pid of await processesWithMounts(STATE_ROOT)) pids.add(pid);
  for (const pid of pids) {
    const command = await Deno.readTextFile(`/proc/${pid}/cmdline`).catch(() => "");
    lines.push(`process ${pid} ${command.replaceAll("\0", " ").slice(0, 100).trim()}`);
  }
  for (const group of await childGroups(layout, "jiji-lab")) lines.push(`control group ${group}`);
  if (await exists(STATE_ROOT)) {
    for await (const entry of Deno.readDir(STATE_ROOT)) {
      if (entry.isDirectory) lines.push(`state ${labPaths(entry.name).state}`);
    }
  }
  return lines;
}
