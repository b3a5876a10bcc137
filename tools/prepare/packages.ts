/** Debian packages: downloaded once, served to the lab as a local repository, installed here. */
import {
  debianSources,
  parseAptSources,
  renderPackageIndex,
  renderSourcesList,
  repositoryFileName,
} from "./apt.ts";
import { exists, runCommand, tryCommand } from "./command.ts";
import type { BuildContext, Thing } from "./thing.ts";

/** The Debian release of servers and of the machine. */
export const DEBIAN_CODENAME = "bookworm";

/** What a bare server has: a small Debian as hosting companies deliver it. */
export const BARE_PACKAGES: readonly string[] = [
  "systemd",
  "systemd-sysv",
  "libpam-systemd",
  "dbus",
  "openssh-server",
  "openssh-sftp-server",
  "iproute2",
  "iputils-ping",
  "procps",
  "curl",
  "ca-certificates",
  "sudo",
  "netbase",
  "kmod",
  "less",
  "nano",
];

/**
 * What `server init` may install on a bare server, with what a user may want there. Without crun:
 * Podman takes either it or runc, and it refuses the control groups of the lab's machine.
 */
const SERVER_PACKAGES: readonly string[] = [
  "aardvark-dns",
  "apparmor",
  "buildah",
  "catatonit",
  "containerd",
  "containernetworking-plugins",
  "dnsutils",
  "docker.io",
  "firewalld",
  "fuse-overlayfs",
  "git",
  "gnupg",
  "iptables",
  "jq",
  "netavark",
  "nftables",
  "openresolv",
  "podman",
  "python3-minimal",
  "rsync",
  "runc",
  "slirp4netns",
  "socat",
  "tcpdump",
  "ufw",
  "uidmap",
  "unzip",
  "wireguard-go",
  "wireguard-tools",
  "xz-utils",
  "zstd",
];

/** Packages whose files the lab uses without installing them. */
const LAB_PACKAGES: readonly string[] = ["busybox-static", "docker-registry"];

/** Packages of this machine, each with a file that shows that it is there. */
const MACHINE_PACKAGES: readonly { readonly name: string; readonly program: string }[] = [
  { name: "mmdebstrap", program: "/usr/bin/mmdebstrap" },
  { name: "systemd-container", program: "/usr/bin/systemd-nspawn" },
  { name: "nftables", program: "/usr/sbin/nft" },
  { name: "iptables", program: "/usr/sbin/iptables" },
  { name: "iproute2", program: "/usr/sbin/ip" },
  { name: "openssh-client", program: "/usr/bin/ssh-keygen" },
  { name: "docker.io", program: "/usr/sbin/dockerd" },
  { name: "containerd", program: "/usr/bin/containerd" },
  { name: "runc", program: "/usr/sbin/runc" },
  { name: "podman", program: "/usr/bin/podman" },
  { name: "netavark", program: "/usr/lib/podman/netavark" },
  { name: "libseccomp-dev", program: "/usr/include/seccomp.h" },
  { name: "pkg-config", program: "/usr/bin/pkg-config" },
  { name: "dnsmasq-base", program: "/usr/sbin/dnsmasq" },
  { name: "dnsutils", program: "/usr/bin/dig" },
  { name: "binutils", program: "/usr/bin/strip" },
  { name: "curl", program: "/usr/bin/curl" },
  { name: "wrk", program: "/usr/bin/wrk" },
  { name: "zstd", program: "/usr/bin/zstd" },
];

const APT_QUIET = ["-q", "-y", "--no-install-recommends", "-o", "Acquire::Retries=3"];

async function machineSources(): Promise<string> {
  const files = ["/etc/apt/sources.list"];
  for await (const entry of Deno.readDir("/etc/apt/sources.list.d")) {
    if (/\.(list|sources)$/.test(entry.name)) files.push(`/etc/apt/sources.list.d/${entry.name}`);
  }
  const texts = await Promise.all(
    files.sort().map(async (file) => await exists(file) ? await Deno.readTextFile(file) : ""),
  );
  const sources = debianSources(texts.flatMap((text) => parseAptSources(text)), DEBIAN_CODENAME);
  if (sources.length === 0) {
    throw new Error(
      `no Debian ${DEBIAN_CODENAME} mirror in /etc/apt/sources.list*: ` +
        "the lab builds its servers from one; add it there",
    );
  }
  return renderSourcesList(sources);
}

/** Options that make apt work in a folder of its own, with none of the machine's state. */
function privateApt(folder: string): readonly string[] {
  const options = {
    "Dir::State": `${folder}/state`,
    "Dir::State::status": `${folder}/state/status`,
    "Dir::Cache": `${folder}/cache`,
    "Dir::Etc::sourcelist": `${folder}/sources.list`,
    "Dir::Etc::sourceparts": "-",
    "Acquire::Languages": "none",
    "APT::Sandbox::User": "root",
  };
  return Object.entries(options).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
}

async function buildPackages({ stage, say }: BuildContext): Promise<void> {
  const folder = `${stage}/apt`;
  for (const path of ["state/lists/partial", "cache/archives/partial"]) {
    await Deno.mkdir(`${folder}/${path}`, { recursive: true });
  }
  await Deno.writeTextFile(`${folder}/sources.list`, await machineSources());
  await Deno.writeTextFile(`${folder}/state/status`, "");
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  const apt = privateApt(folder);
  say("reading the package lists");
  await runCommand(["apt-get", ...apt, ...APT_QUIET, "update"], { env, timeoutMs: 180_000 });
  say("downloading");
  const wanted = [
    ...BARE_PACKAGES,
    ...SERVER_PACKAGES,
    ...LAB_PACKAGES,
    ...MACHINE_PACKAGES.map((entry) => entry.name),
    "apt",
    "?priority(required)",
  ];
  await runCommand(
    ["apt-get", ...apt, ...APT_QUIET, "--download-only", "install", ...new Set(wanted)],
    { env, timeoutMs: 600_000 },
  );
  say("indexing");
  await indexDownloads(stage, { apt, env });
  await Deno.remove(folder, { recursive: true });
}

async function indexDownloads(
  stage: string,
  options: { readonly apt: readonly string[]; readonly env: Readonly<Record<string, string>> },
): Promise<void> {
  const archives = `${stage}/apt/cache/archives`;
  const fileNames: string[] = [];
  for await (const entry of Deno.readDir(archives)) {
    if (entry.name.endsWith(".deb")) fileNames.push(entry.name);
  }
  fileNames.sort();
  const names = fileNames.map((file) => file.slice(0, file.indexOf("_")));
  const stanzas = await runCommand(["apt-cache", ...options.apt, "show", ...names], {
    env: options.env,
  });
  await Deno.mkdir(`${stage}/repo`);
  await Deno.writeTextFile(`${stage}/repo/Packages`, renderPackageIndex(stanzas, fileNames));
  for (const fileName of fileNames) {
    await Deno.rename(`${archives}/${fileName}`, `${stage}/repo/${repositoryFileName(fileName)}`);
  }
}

/** The one-line source of the local repository, as apt on the same file system sees it. */
export function repositorySource(path: string): string {
  return `deb [trusted=yes] file:${path} ./\n`;
}

async function machineIsReady(): Promise<boolean> {
  const there = await Promise.all(MACHINE_PACKAGES.map((entry) => exists(entry.program)));
  return there.every(Boolean);
}

/** Runs apt so that no package can start a service of its own here. */
const INSTALL_WITHOUT_SERVICES = `
for program in /usr/sbin/invoke-rc.d /usr/bin/deb-systemd-invoke; do
  [ ! -e "$program" ] || mount --bind /bin/true "$program"
done
exec apt-get "$@"
`;

async function buildMachine({ stage, slot, say }: BuildContext): Promise<void> {
  const missing: string[] = [];
  for (const entry of MACHINE_PACKAGES) {
    if (!await exists(entry.program)) missing.push(entry.name);
  }
  if (missing.length > 0) {
    say(missing.join(" "));
    const folder = `${stage}/apt`;
    await Deno.mkdir(`${folder}/lists/partial`, { recursive: true });
    const repo = `${slot("packages")}/repo`;
    await Deno.writeTextFile(`${folder}/sources.list`, repositorySource(repo));
    const apt = [
      ...["-o", `Dir::Etc::sourcelist=${folder}/sources.list`, "-o", "Dir::Etc::sourceparts=-"],
      ...["-o", `Dir::State::lists=${folder}/lists`, "-o", "APT::Sandbox::User=root"],
      ...["-o", "DPkg::Lock::Timeout=300"],
    ];
    const env = { DEBIAN_FRONTEND: "noninteractive" };
    await runCommand(["apt-get", ...apt, ...APT_QUIET, "update"], { env });
    const guard = ["nice", "unshare", "-m", "sh", "-ec", INSTALL_WITHOUT_SERVICES, "apt-get"];
    await runCommand([...guard, ...apt, ...APT_QUIET, "install", ...missing], {
      env,
      timeoutMs: 600_000,
    });
    await Deno.remove(folder, { recursive: true });
  }
  if (!await machineIsReady()) {
    const dpkg = await tryCommand(["dpkg-query", "-W", ...missing]);
    throw new Error(`packages are installed but programs are missing:\n${dpkg.stdout}`);
  }
}

/** The local package repository. */
export const PACKAGES: Thing = {
  name: "packages",
  title: "Debian packages (one download)",
  recipe: JSON.stringify([
    1,
    DEBIAN_CODENAME,
    BARE_PACKAGES,
    SERVER_PACKAGES,
    LAB_PACKAGES,
    MACHINE_PACKAGES,
  ]),
  needs: [],
  build: buildPackages,
};

/** The programs this machine itself needs for labs. */
export const MACHINE: Thing = {
  name: "machine",
  title: "programs of this machine",
  recipe: "1",
  needs: ["packages"],
  isPresent: machineIsReady,
  build: buildMachine,
};
