import { type Argv, assertNever, SERVER_PATHS } from "@jiji/core";
import { ENGINE_TIMEOUT_MS, INSTALL_TIMEOUT_MS, UPLOAD_TIMEOUT_MS } from "../../constants.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { mustRun, mustRunScript } from "../../utils/remote.ts";
import type { Artifact } from "./artifacts.ts";
import type { ManagedFile } from "./server_files.ts";
import type { ServerFacts } from "./server_facts.ts";
import type { ServerStep } from "./server_plan.ts";

/** What steps need beside the connection. */
export interface StepContext {
  readonly facts: ServerFacts;
  readonly artifacts: readonly Artifact[];
  readonly signal: AbortSignal;
}

/**
 * Does one step on one server. Every step may be done again after it was cut off.
 *
 * @throws {RemoteCommandError} when a command fails.
 */
export async function applyServerStep(
  host: RemoteHost,
  step: ServerStep,
  context: StepContext,
): Promise<void> {
  const { signal } = context;
  switch (step.kind) {
    case "installPackages":
      return await installPackages(host, step.packages, context);
    case "enableEngine":
    case "enableUnits":
      return await actOnUnits(host, { verb: "enable", units: step.units }, signal);
    case "createUser":
      return await createUser(host, signal);
    case "makeKey":
      return await makeKey(host, signal);
    case "uploadBinary":
      return await uploadBinary(host, step.binary, context);
    case "openFirewall":
      return await openFirewall(host, step, context);
    case "writeFile":
      return await writeFile(host, step.file, signal);
    case "restartUnits":
      return await actOnUnits(host, { verb: "restart", units: step.units }, signal);
    case "reloadUnits":
      return await reloadUnits(host, { timeoutMs: ENGINE_TIMEOUT_MS * 2, signal });
    default:
      return assertNever(step);
  }
}

/** What the lane shows when the step is done. */
export function stepDetail(step: ServerStep, engine: string): string {
  switch (step.kind) {
    case "installPackages":
      return step.packages.some((name) => name.startsWith(engine) || name === "moby-engine")
        ? `${engine} installed`
        : "packages";
    case "enableEngine":
      return `${engine} enabled`;
    case "createUser":
      return "user";
    case "makeKey":
      return "key";
    case "uploadBinary":
      return step.binary;
    case "openFirewall":
      return step.firewall;
    case "writeFile":
      return step.file.path.slice(step.file.path.lastIndexOf("/") + 1);
    case "enableUnits":
      return "units";
    case "restartUnits":
      return "restarted";
    case "reloadUnits":
      return "systemd reloaded";
    default:
      return assertNever(step);
  }
}

/** apt waits for another apt (unattended-upgrades at first boot). Source: apt.conf(5), DPkg::Lock. */
const APT = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120"] as const;

async function installPackages(
  host: RemoteHost,
  packages: readonly string[],
  context: StepContext,
): Promise<void> {
  const { facts, signal } = context;
  const what = `installing ${packages.join(", ")} failed`;
  const timeoutMs = INSTALL_TIMEOUT_MS;
  if (facts.packageManager === "apt-get") {
    const env = ["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"] as const;
    await mustRun(host, [...env, ...APT, "update"], {
      what: "refreshing the package lists failed",
      timeoutMs,
      signal,
    });
    const install: Argv = [...env, ...APT, "install", "--no-install-recommends", ...packages];
    await mustRun(host, install, { what, timeoutMs, signal });
    return;
  }
  const manager = facts.packageManager ?? "dnf";
  await mustRun(host, [manager, "install", "-y", ...packages], { what, timeoutMs, signal });
}

async function reloadUnits(
  host: RemoteHost,
  options: { readonly timeoutMs: number; readonly signal: AbortSignal },
): Promise<void> {
  await mustRun(host, ["systemctl", "daemon-reload"], {
    what: "reloading systemd failed",
    ...options,
  });
}

/** Has systemd read its unit files, then start units for good or start them anew. */
async function actOnUnits(
  host: RemoteHost,
  o: { readonly verb: "enable" | "restart"; readonly units: readonly string[] },
  signal: AbortSignal,
): Promise<void> {
  const options = { timeoutMs: ENGINE_TIMEOUT_MS * 2, signal };
  const names = o.units.join(", ");
  const [argv, what] = o.verb === "enable"
    ? [["enable", "--quiet", "--now"], `starting ${names} failed`]
    : [["restart"], `restarting ${names} failed`];
  await reloadUnits(host, options);
  await mustRun(host, ["systemctl", ...argv, ...o.units], { what, ...options });
}

/** System user of jiji-dns and Corrosion, and the folders they may write. */
const CREATE_USER_SCRIPT = `set -eu
id jiji >/dev/null 2>&1 ||
  useradd --system --user-group --no-create-home --shell /usr/sbin/nologin jiji
install -d -m 755 ${SERVER_PATHS.bin} /etc/jiji ${SERVER_PATHS.corrosionSchemas} /var/lib/jiji
install -d -m 700 -o jiji -g jiji ${SERVER_PATHS.corrosionState} ${SERVER_PATHS.corrosionState}/tmp
install -d -m 755 -o jiji -g jiji ${SERVER_PATHS.dnsState}
install -d -m 700 ${SERVER_PATHS.daemonState} ${SERVER_PATHS.locks} ${SERVER_PATHS.projects}
`;

async function createUser(host: RemoteHost, signal: AbortSignal): Promise<void> {
  await mustRunScript(host, CREATE_USER_SCRIPT, {
    what: "making the user and folders of jiji failed",
    timeoutMs: ENGINE_TIMEOUT_MS,
    signal,
  });
}

/** The key is made there and renamed into place: never half, never twice, never sent. */
const MAKE_KEY_SCRIPT = `set -eu
umask 077
mkdir -p /etc/jiji && chmod 755 /etc/jiji
[ -s ${SERVER_PATHS.wireguardKey} ] && exit 0
wg genkey >${SERVER_PATHS.wireguardKey}.new
sync ${SERVER_PATHS.wireguardKey}.new 2>/dev/null || true
mv ${SERVER_PATHS.wireguardKey}.new ${SERVER_PATHS.wireguardKey}
`;

async function makeKey(host: RemoteHost, signal: AbortSignal): Promise<void> {
  await mustRunScript(host, MAKE_KEY_SCRIPT, {
    what: "making the WireGuard key failed",
    timeoutMs: ENGINE_TIMEOUT_MS,
    signal,
  });
}

async function uploadBinary(
  host: RemoteHost,
  name: string,
  context: StepContext,
): Promise<void> {
  const artifact = context.artifacts.find((candidate) => candidate.name === name)!;
  const target = `${SERVER_PATHS.bin}/${name}`;
  await host.upload({ path: artifact.path }, target, { mode: 0o755, timeoutMs: UPLOAD_TIMEOUT_MS });
  // Running it once proves that it runs there, and unpacks it as root before its service needs it.
  await mustRun(host, [target, "--version"], {
    what: `${name} does not run`,
    timeoutMs: ENGINE_TIMEOUT_MS,
    signal: context.signal,
  });
}

async function writeFile(
  host: RemoteHost,
  file: ManagedFile,
  signal: AbortSignal,
): Promise<void> {
  // Its own folder may be missing; this one is there since the user was made.
  const stage = `/etc/jiji/${file.path.slice(file.path.lastIndexOf("/") + 1)}.new`;
  await host.upload(new TextEncoder().encode(file.content), stage, {
    mode: 0o600,
    timeoutMs: UPLOAD_TIMEOUT_MS,
  });
  const script =
    'set -eu\nchown "$1" "$3"\nchmod "$2" "$3"\nmkdir -p -m 755 "${4%/*}"\nmv "$3" "$4"\n';
  await mustRunScript(host, script, {
    args: [file.owner, file.mode.toString(8), stage, file.path],
    what: `writing ${file.path} failed`,
    timeoutMs: ENGINE_TIMEOUT_MS,
    signal,
  });
}

async function openFirewall(
  host: RemoteHost,
  step: ServerStep & { readonly kind: "openFirewall" },
  context: StepContext,
): Promise<void> {
  for (const argv of step.changes) {
    await mustRun(host, argv, {
      what: `opening ${step.firewall} failed`,
      timeoutMs: ENGINE_TIMEOUT_MS,
      signal: context.signal,
    });
  }
}
