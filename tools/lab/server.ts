/** One server: its disk, its start, its power loss. */
import { exists, runCommand, tryCommand, waitFor } from "../prepare/command.ts";
import { GUEST_REPOSITORY } from "../prepare/root.ts";
import { type CgroupLayout, killGroup, serverInit } from "./cgroups.ts";
import { shellWords, startDetached } from "./detached.ts";
import type { Lab, LabServer } from "./model.ts";
import { hardwareAddress, type LabPaths, namespaceFile, namespaceName } from "./names.ts";
import { plugIn, unplug } from "./network.ts";

/** What work on a server needs to know. */
export interface LabContext {
  /** Where the lab is. */
  readonly paths: LabPaths;
  /** Control groups of the machine. */
  readonly layout: CgroupLayout;
  /** The lab. */
  readonly lab: Lab;
}

/** Folder of a server's disk. */
export function serverFolder(paths: LabPaths, server: LabServer): string {
  return `${paths.state}/${server.name}`;
}

/** Control group of a server. */
export function serverGroup(paths: LabPaths, server: LabServer): string {
  return `${paths.group}/${server.name}`;
}

/** Folders of a server that must lie on plain disk: an overlay can't lie on an overlay. */
const PLAIN_FOLDERS = ["docker", "containers", "containerd"] as const;

/** The systemd-nspawn command that boots a server. */
export function argvBoot(options: {
  readonly machine: string;
  readonly hostname: string;
  readonly folder: string;
  readonly network: string;
  readonly repository: string;
}): readonly string[] {
  const { folder } = options;
  return [
    "systemd-nspawn",
    "--quiet",
    "--boot",
    "--console=pipe",
    "--register=no",
    "--keep-unit",
    "--link-journal=no",
    "--resolv-conf=off",
    "--timezone=off",
    "--capability=all",
    "--system-call-filter=@keyring bpf",
    `--directory=${folder}/root`,
    `--machine=${options.machine}`,
    `--hostname=${options.hostname}`,
    `--network-namespace-path=${options.network}`,
    "--bind=/dev/net/tun",
    "--bind=/dev/fuse",
    `--bind-ro=${options.repository}:${GUEST_REPOSITORY}`,
    ...PLAIN_FOLDERS.map((name) => `--bind=${folder}/${name}:/var/lib/${name}`),
  ];
}

/** Shell commands that mount a server's root and boot it; all mounts are private to them. */
export function renderBootScript(options: {
  readonly folder: string;
  readonly lower: string;
  readonly kind: CgroupLayout["kind"];
  readonly argv: readonly string[];
}): string {
  const { folder, lower } = options;
  const layers = `lowerdir=${lower},upperdir=${folder}/upper,workdir=${folder}/work`;
  return [
    shellWords(["mount", "-t", "overlay", "overlay", "-o", layers, `${folder}/root`]),
    "mkdir -p /run/systemd && mount -t tmpfs -o mode=755 tmpfs /run/systemd",
    "export SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes",
    // Left alone it finds out about a hybrid layout, in which the server's systemd learns from the
    // kernel that a unit's last process is gone; with version 1 alone such news reaches no guest.
    options.kind === "hybrid"
      ? "unset SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"
      : `export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=${options.kind === "unified" ? 1 : 0}`,
    `exec ${shellWords(options.argv)}`,
  ].join("\n");
}

/** Makes a server's disk, with the operator's key; nothing when it is there. */
export async function createDisk(context: LabContext, server: LabServer): Promise<void> {
  const folder = serverFolder(context.paths, server);
  if (await exists(`${folder}/upper`)) return;
  for (const name of ["work", "root", ...PLAIN_FOLDERS]) {
    await Deno.mkdir(`${folder}/${name}`, { recursive: true });
  }
  const stage = `${folder}/upper.new`;
  await Deno.mkdir(`${stage}/etc`, { recursive: true });
  await Deno.mkdir(`${stage}/root/.ssh`, { recursive: true });
  await Deno.chmod(`${stage}/root`, 0o700);
  await Deno.chmod(`${stage}/root/.ssh`, 0o700);
  await Deno.copyFile(
    `${context.paths.laptop}/home/.ssh/id_ed25519.pub`,
    `${stage}/root/.ssh/authorized_keys`,
  );
  await Deno.chmod(`${stage}/root/.ssh/authorized_keys`, 0o600);
  await Deno.writeTextFile(`${stage}/etc/hostname`, `${server.name}\n`);
  const hosts = `127.0.0.1 localhost\n127.0.1.1 ${server.name}\n::1 localhost ip6-localhost\n`;
  await Deno.writeTextFile(`${stage}/etc/hosts`, hosts);
  await Deno.rename(stage, `${folder}/upper`);
}

/** Whether a server is on. */
export async function isOn(context: LabContext, server: LabServer): Promise<boolean> {
  return await serverInit(context.layout, serverGroup(context.paths, server)) !== undefined;
}

/** Powers a server on and returns without waiting for it. */
export async function powerOn(context: LabContext, server: LabServer): Promise<void> {
  const { paths, layout, lab } = context;
  // What a power loss or crash left of its last run.
  await killGroup(layout, serverGroup(paths, server));
  await unplug(paths.name, server.name);
  await createDisk(context, server);
  await plugIn(paths.name, {
    name: server.name,
    address: server.address,
    hardwareAddress: hardwareAddress(server.number),
  });
  const folder = serverFolder(paths, server);
  const argv = argvBoot({
    machine: `jiji-${paths.name}-${server.name}`,
    hostname: server.name,
    folder,
    network: namespaceFile(namespaceName(paths.name, server.name)),
    repository: `${lab.slots["packages"]}/repo`,
  });
  await startDetached(layout, {
    group: serverGroup(paths, server),
    log: `${folder}/console.log`,
    script: renderBootScript({ folder, lower: server.lower, kind: layout.kind, argv }),
  });
}

/** Takes a server's power away: everything on it ends at once, its disk stays. */
export async function powerOff(context: LabContext, server: LabServer): Promise<void> {
  await killGroup(context.layout, serverGroup(context.paths, server));
  await unplug(context.paths.name, server.name);
}

/** Longest wait for a server's SSH and engine after power on, in milliseconds. */
const BOOT_TIMEOUT_MS = 60_000;

/** Reads the greeting of an SSH server at $1 from within a network namespace. */
const READ_BANNER =
  'exec 3<>"/dev/tcp/$1/22" && IFS= read -r -t 2 line <&3 && [ "${line#SSH-2.0}" != "$line" ]';

/**
 * Waits until a server answers on SSH, and its engine, when it came with one, is up.
 * @throws Error with the end of the server's console when it does not in time
 */
export async function waitUntilReady(context: LabContext, server: LabServer): Promise<void> {
  const laptop = namespaceFile(namespaceName(context.paths.name, "laptop"));
  const probe = ["nsenter", `--net=${laptop}`, "bash", "-c", READ_BANNER, "probe", server.address];
  const answered = await waitFor(
    async () => (await tryCommand(probe, { timeoutMs: 3000 })).code === 0 ? true : undefined,
    { timeoutMs: BOOT_TIMEOUT_MS, everyMs: 50 },
  );
  if (!answered) throw new Error(await bootFailure(context, server, "does not answer on SSH"));
  if (!server.engine.startsWith("docker")) return;
  const group = serverGroup(context.paths, server);
  const init = await serverInit(context.layout, group);
  const active = await tryCommand(
    [
      ...["nsenter", `--target=${init ?? 0}`, "--mount", "--uts", "--ipc", "--net", "--pid"],
      ...["timeout", "50", "docker", "version", "--format", "{{.Server.Version}}"],
    ],
    { timeoutMs: BOOT_TIMEOUT_MS },
  );
  if (active.code !== 0) {
    const reason = `has no working engine: ${active.stderr.trim()}`;
    throw new Error(await bootFailure(context, server, reason));
  }
}

async function bootFailure(
  context: LabContext,
  server: LabServer,
  what: string,
): Promise<string> {
  const log = `${serverFolder(context.paths, server)}/console.log`;
  const tail = await tryCommand(["tail", "-n", "15", log]);
  return `${server.name} ${what} within ${
    BOOT_TIMEOUT_MS / 1000
  } s; end of ${log}:\n${tail.stdout}`;
}

/** Makes the key pair of a lab's operator; nothing when it is there. */
export async function createKey(paths: LabPaths): Promise<void> {
  const folder = `${paths.laptop}/home/.ssh`;
  if (await exists(`${folder}/id_ed25519.pub`)) return;
  await Deno.mkdir(folder, { recursive: true });
  await Deno.chmod(folder, 0o700);
  await runCommand([
    ...["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", `operator@${paths.name}`],
    ...["-f", `${folder}/id_ed25519`],
  ]);
}
