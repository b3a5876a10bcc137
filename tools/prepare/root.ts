/** The root file systems of lab servers: a bare Debian, and layers with an engine on top of it. */
import { removeTree, runCommandInLayer } from "./layer.ts";
import { BARE_PACKAGES, DEBIAN_CODENAME, repositorySource } from "./packages.ts";
import { runCommand } from "./command.ts";
import type { BuildContext, Thing, ThingName } from "./thing.ts";

/** Where servers see the local package repository (a read-only bind mount). */
export const GUEST_REPOSITORY = "/srv/apt";
/** Address of the hub: the lab's stand-in for the internet (image registry and name server). */
export const HUB_ADDRESS = "203.0.113.2";
/** The hub's image registry, which servers use in place of Docker Hub. */
export const HUB_REGISTRY = `${HUB_ADDRESS}:5000`;

/**
 * Runs before everything else at each boot. The control groups come read-only from systemd-nspawn,
 * and no container starts then; /sys comes with the network devices of the machine, not of the
 * server. Host keys are made at the first boot.
 */
const GUEST_START = `#!/bin/sh
for group in /sys/fs/cgroup/*/; do
  mount -o remount,bind,rw "$group" 2>/dev/null || true
done
mkdir -p /run/lab-sys
mount -t sysfs -o nosuid,nodev,noexec sysfs /run/lab-sys
mount --make-private /run/lab-sys
mount --rbind /sys/fs/cgroup /run/lab-sys/fs/cgroup
mount --make-rprivate /run/lab-sys
mount --rbind /run/lab-sys /sys
umount --recursive --lazy /run/lab-sys
mount --make-rshared /sys
for type in ed25519 ecdsa; do
  key=/etc/ssh/ssh_host_\${type}_key
  [ -s "$key" ] || { rm -f "$key"; ssh-keygen -q -t "$type" -N '' -C "root@$(hostname)" -f "$key"; }
done
`;

const GUEST_START_UNIT = `[Unit]
Description=Start of a lab server
DefaultDependencies=no
Before=sysinit.target ssh.service sys-kernel-debug.mount sys-kernel-tracing.mount
Before=sys-fs-fuse-connections.mount

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/lib/lab/start

[Install]
WantedBy=sysinit.target
`;

/** Units that make sense on no lab server. */
const MASKED_UNITS = [
  "apt-daily.timer",
  "apt-daily-upgrade.timer",
  "console-getty.service",
  "container-getty@.service",
  "dpkg-db-backup.timer",
  "e2scrub_all.timer",
  "e2scrub_reap.service",
  "fstrim.timer",
  "getty.target",
  "systemd-networkd.service",
  "systemd-networkd.socket",
];

/** Podman takes Docker Hub from the hub. Source: containers-registries.conf(5). */
const PODMAN_REGISTRIES = `unqualified-search-registries = ["docker.io"]

[[registry]]
prefix = "docker.io"
location = "docker.io"

[[registry.mirror]]
location = "${HUB_REGISTRY}"
insecure = true
`;

/**
 * What Podman can't do on the lab's machine: crun refuses its control groups, and nothing may raise
 * its limits. Source: containers.conf(5).
 */
const PODMAN_LIMITS = `[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]

[engine]
runtime = "runc"
`;

const DOCKER_DAEMON = `${
  JSON.stringify(
    { "registry-mirrors": [`http://${HUB_REGISTRY}`], "insecure-registries": [HUB_REGISTRY] },
    null,
    2,
  )
}\n`;

/** Files every lab server has, by path. */
const GUEST_FILES: Readonly<Record<string, string>> = {
  "/etc/apt/sources.list": repositorySource(GUEST_REPOSITORY),
  "/etc/apt/apt.conf.d/90lab": 'Acquire::Languages "none";\nAPT::Sandbox::User "root";\n',
  "/etc/dpkg/dpkg.cfg.d/90-lab": "force-unsafe-io\n",
  "/etc/containers/containers.conf.d/50-lab.conf": PODMAN_LIMITS,
  "/etc/containers/registries.conf.d/50-lab.conf": PODMAN_REGISTRIES,
  "/etc/docker/daemon.json": DOCKER_DAEMON,
  "/etc/resolv.conf": `nameserver ${HUB_ADDRESS}\noptions timeout:2 attempts:2\n`,
  "/etc/ssh/sshd_config.d/50-lab.conf":
    "HostKey /etc/ssh/ssh_host_ed25519_key\nHostKey /etc/ssh/ssh_host_ecdsa_key\nUseDNS no\n",
  "/etc/systemd/journald.conf.d/50-lab.conf": "[Journal]\nStorage=persistent\nSystemMaxUse=64M\n",
  "/etc/systemd/system/lab-start.service": GUEST_START_UNIT,
  "/usr/local/lib/lab/start": GUEST_START,
};

async function buildRoot({ stage, slot, say }: BuildContext): Promise<void> {
  const root = `${stage}/root`;
  const repo = `${slot("packages")}/repo`;
  say("installing a small Debian");
  await runCommand(
    [
      ...["nice", "mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "--format=directory"],
      `--include=${BARE_PACKAGES.join(",")}`,
      ...[DEBIAN_CODENAME, root, `deb [trusted=yes] copy:${repo} ./`],
    ],
    { timeoutMs: 900_000 },
  );
  say("setting it up");
  await writeGuestFiles(root);
  await Deno.chmod(`${root}/usr/local/lib/lab/start`, 0o755);
  const wants = `${root}/etc/systemd/system/sysinit.target.wants`;
  await Deno.mkdir(wants, { recursive: true });
  await Deno.symlink("../lab-start.service", `${wants}/lab-start.service`);
  for (const unit of MASKED_UNITS) {
    await Deno.symlink("/dev/null", `${root}/etc/systemd/system/${unit}`);
  }
  await Deno.mkdir(`${root}/var/log/journal`, { recursive: true });
  await Deno.mkdir(`${root}${GUEST_REPOSITORY}`, { recursive: true });
  // An empty machine-id is filled at the first boot, so that every server gets its own.
  await Deno.writeTextFile(`${root}/etc/machine-id`, "");
  for (const path of ["/etc/hostname", "/usr/sbin/policy-rc.d", "/var/lib/dbus/machine-id"]) {
    await removeTree(root + path);
  }
  for await (const entry of Deno.readDir(`${root}/etc/ssh`)) {
    if (entry.name.startsWith("ssh_host_")) await Deno.remove(`${root}/etc/ssh/${entry.name}`);
  }
}

async function writeGuestFiles(root: string): Promise<void> {
  for (const [path, text] of Object.entries(GUEST_FILES)) {
    await Deno.mkdir(`${root}${path.slice(0, path.lastIndexOf("/"))}`, { recursive: true });
    await removeTree(root + path);
    await Deno.writeTextFile(root + path, text);
  }
}

/** The bare server, `root` in its slot. */
export const ROOT: Thing = {
  name: "root",
  title: "bare server",
  recipe: JSON.stringify([3, BARE_PACKAGES, GUEST_FILES, MASKED_UNITS]),
  needs: ["packages"],
  after: ["machine"],
  build: buildRoot,
};

/** A layer over the bare server with an engine and WireGuard installed, `diff` in its slot. */
function engineLayer(name: ThingName, packages: readonly string[]): Thing {
  const installed = [...packages, "wireguard-tools", "wireguard-go", "iptables", "nftables"];
  return {
    name,
    title: `server with ${packages[0]}`,
    recipe: JSON.stringify([2, installed]),
    needs: ["root", "packages"],
    build: async ({ stage, slot }) => {
      await runCommandInLayer(
        `apt-get -q update && apt-get -q -y --no-install-recommends install ${installed.join(" ")}
apt-get clean; rm -rf /var/lib/apt/lists/*`,
        { stage, lower: [`${slot("root")}/root`], repository: `${slot("packages")}/repo` },
      );
    },
  };
}

/** Servers that come with Docker, as Debian has it. */
export const ROOT_DOCKER: Thing = engineLayer("root-docker", ["docker.io"]);
/** Servers that come with Podman, as Debian has it. */
export const ROOT_PODMAN: Thing = engineLayer("root-podman", [
  "podman",
  "runc",
  "netavark",
  "aardvark-dns",
  "catatonit",
]);
