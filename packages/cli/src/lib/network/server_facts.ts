import {
  CONTAINER_BRIDGE,
  isInternalInterface,
  MESH_INTERFACE,
  normalizeIp,
  parseCidr,
  parseMeshSecret,
  parseServerConfig,
  Secret,
  SERVER_PATHS,
  SERVER_UNITS,
  type ServerConfig,
  WIREGUARD_CONF,
} from "@jiji/core";
import { AWAIT_MESH, UNIT_PATHS } from "./server_files.ts";
import { FIREWALL_SCRIPT, type ObservedFirewall, parseHostFirewall } from "./host_firewall.ts";

/** A file on a server. */
export interface FileFact {
  readonly sha256: string;
  /** Octal permission bits and owner, `640 root jiji`. */
  readonly mode: string;
  /** Unix seconds. */
  readonly modifiedAtSeconds: number;
}

/** A systemd unit on a server. */
export interface UnitFact {
  readonly enabled: boolean;
  readonly active: boolean;
  /** Unix seconds of the last start, 0 when it never was. */
  readonly startedAtSeconds: number;
}

/** A network that a server routes somewhere. */
export interface RouteFact {
  /** CIDR notation. */
  readonly network: string;
  readonly device: string;
}

/** What one round trip tells of a server. */
export interface ServerFacts {
  /** `debian 12`. */
  readonly os: string;
  /** As uname prints it: `x86_64`, `aarch64`. */
  readonly machine: string;
  readonly systemd: boolean;
  readonly packageManager: "apt-get" | "dnf" | "yum" | undefined;
  /** Version of the engine's server where it answers, by engine. */
  readonly engines: ReadonlyMap<string, string>;
  readonly tools: ReadonlySet<string>;
  readonly kernelWireguard: boolean;
  /** User jiji and the folders made with it; the last of them is what is looked for. */
  readonly userExists: boolean;
  /** The host's own firewall while it is active. */
  readonly firewall: ObservedFirewall | undefined;
  readonly units: ReadonlyMap<string, UnitFact>;
  readonly files: ReadonlyMap<string, FileFact>;
  /** The server's place; see {@link isMember}. */
  readonly config: ServerConfig | undefined;
  readonly token: Secret | undefined;
  /** What the preshared keys of the mesh are made from. */
  readonly meshSecret: Secret | undefined;
  /** First bootstrap list in corrosion.toml, as written. */
  readonly bootstrap: readonly string[] | undefined;
  readonly publicKey: string | undefined;
  /** Global addresses of the server's own interfaces, canonical, without container and mesh ones. */
  readonly addresses: readonly string[];
  /** Networks that it has routes to already, without those of mesh and bridge and the default. */
  readonly routes: readonly RouteFact[];
  /** Server's clock minus ours, milliseconds, as seen over the connection. */
  readonly clockSkewMs: number;
}

/**
 * Whether a server is a member: it has its place, and its Corrosion was started once. A first `server
 * init` that was cut off leaves a server that has a place but is not known to the others yet.
 */
export function isMember(facts: ServerFacts): boolean {
  return facts.config !== undefined && (facts.units.get(SERVER_UNITS.corrosion)?.enabled ?? false);
}

const WATCHED_FILES: readonly string[] = [
  SERVER_PATHS.serverConfig,
  SERVER_PATHS.peerSeed,
  SERVER_PATHS.corrosionToken,
  SERVER_PATHS.meshSecret,
  SERVER_PATHS.corrosionConfig,
  `${SERVER_PATHS.corrosionSchemas}/jiji.sql`,
  WIREGUARD_CONF,
  AWAIT_MESH,
  ...UNIT_PATHS,
  `${SERVER_PATHS.bin}/corrosion`,
  `${SERVER_PATHS.bin}/jiji-dns`,
  `${SERVER_PATHS.bin}/jiji-daemon`,
];

/**
 * The script that looks at a server; it changes nothing but adding and removing an interface to see
 * whether the kernel has WireGuard. Each line is `@key words`. Fed to `sh -s` over stdin.
 */
export const OBSERVE_SCRIPT: string = `set -u
say() { printf '@%s %s\\n' "$1" "$2"; }
ID=unknown VERSION_ID=
[ -r /etc/os-release ] && . /etc/os-release
say os "$ID $VERSION_ID"
say machine "$(uname -m)"
say clock "$(date +%s%3N)"
[ -d /run/systemd/system ] && say systemd yes
for m in apt-get dnf yum; do
  if command -v "$m" >/dev/null 2>&1; then say package_manager "$m"; break; fi
done
if command -v docker >/dev/null 2>&1; then
  say engine "docker $(docker version --format '{{.Server.Version}}' 2>/dev/null)"
fi
if command -v podman >/dev/null 2>&1; then
  say engine "podman $(podman version --format '{{.Client.Version}}' 2>/dev/null)"
fi
for t in wg wg-quick wireguard-go iptables ip curl netavark; do
  if command -v "$t" >/dev/null 2>&1 || [ -x "/usr/lib/podman/$t" ]; then say tool "$t"; fi
done
if ip link show type wireguard 2>/dev/null | grep -q . ||
  { ip link add jijiprobe type wireguard 2>/dev/null && ip link del jijiprobe; }; then
  say kernel_wireguard yes
fi
if id jiji >/dev/null 2>&1 && [ -d ${SERVER_PATHS.projects} ]; then say user jiji; fi
${FIREWALL_SCRIPT.trim()}
for u in ${Object.values(SERVER_UNITS).join(" ")} docker.service podman-restart.service; do
  started=$(systemctl show -p ActiveEnterTimestamp --value "$u" 2>/dev/null)
  say unit "$u $(systemctl is-enabled "$u" 2>/dev/null | head -n 1) $(systemctl is-active "$u" 2>/dev/null) $(date -d "$started" +%s 2>/dev/null || echo 0)"
done
for f in ${WATCHED_FILES.join(" ")}; do
  if [ -f "$f" ]; then say file "$f $(sha256sum <"$f" | cut -d' ' -f1) $(stat -c '%Y %a %U %G' "$f")"; fi
done
if [ -f ${SERVER_PATHS.serverConfig} ]; then say config "$(base64 -w0 <${SERVER_PATHS.serverConfig})"; fi
if [ -f ${SERVER_PATHS.corrosionToken} ]; then say token "$(base64 -w0 <${SERVER_PATHS.corrosionToken})"; fi
if [ -f ${SERVER_PATHS.meshSecret} ]; then say mesh_secret "$(base64 -w0 <${SERVER_PATHS.meshSecret})"; fi
if [ -f ${SERVER_PATHS.corrosionConfig} ]; then
  say bootstrap "$(sed -n 's/^bootstrap = //p' ${SERVER_PATHS.corrosionConfig} | head -n 1)"
fi
if [ -f ${SERVER_PATHS.wireguardKey} ] && command -v wg >/dev/null 2>&1; then
  say public_key "$(wg pubkey <${SERVER_PATHS.wireguardKey})"
fi
ip -o addr show scope global 2>/dev/null | while read -r _ dev _ addr _; do
  say address "$dev $addr"
done
ip -4 route show table main 2>/dev/null | while read -r route; do say route "$route"; done
`;

/**
 * Facts from the script's output. Unknown lines are passed over.
 *
 * @throws {Error} when the output is not the script's.
 */
export function parseServerFacts(text: string, nowMs: number): ServerFacts {
  const lines = new Map<string, string[]>();
  for (const line of text.split("\n")) {
    const match = /^@([a-z_]+) (.*)$/.exec(line);
    if (match) lines.set(match[1]!, [...(lines.get(match[1]!) ?? []), match[2]!.trim()]);
  }
  const first = (key: string) => lines.get(key)?.[0];
  if (first("machine") === undefined) throw new Error("the server did not answer as expected");
  const manager = first("package_manager");
  return {
    os: first("os") ?? "unknown",
    machine: first("machine") ?? "",
    systemd: first("systemd") === "yes",
    packageManager: manager === "apt-get" || manager === "dnf" || manager === "yum"
      ? manager
      : undefined,
    engines: new Map((lines.get("engine") ?? []).map((line) => splitFirst(line))),
    tools: new Set(lines.get("tool") ?? []),
    kernelWireguard: first("kernel_wireguard") === "yes",
    userExists: first("user") === "jiji",
    firewall: parseHostFirewall(first("firewall"), lines.get("firewall_rule") ?? []),
    units: new Map((lines.get("unit") ?? []).map(parseUnit)),
    files: new Map((lines.get("file") ?? []).map(parseFile)),
    config: parseConfig(first("config")),
    token: decodeToken(first("token")),
    meshSecret: decodeSecret(first("mesh_secret")),
    bootstrap: parseBootstrap(first("bootstrap")),
    publicKey: first("public_key") || undefined,
    addresses: (lines.get("address") ?? []).flatMap(parseAddress),
    routes: (lines.get("route") ?? []).flatMap(parseRoute),
    clockSkewMs: Number(first("clock") ?? nowMs) - nowMs,
  };
}

function splitFirst(line: string): [string, string] {
  const space = line.indexOf(" ");
  return space < 0 ? [line, ""] : [line.slice(0, space), line.slice(space + 1).trim()];
}

function parseUnit(line: string): [string, UnitFact] {
  const [name = "", enabled, active, started] = line.split(" ");
  return [name, {
    enabled: enabled === "enabled",
    active: active === "active",
    startedAtSeconds: Number(started) || 0,
  }];
}

function parseFile(line: string): [string, FileFact] {
  const [path = "", sha256 = "", modified, ...mode] = line.split(" ");
  return [path, { sha256, modifiedAtSeconds: Number(modified) || 0, mode: mode.join(" ") }];
}

function parseConfig(base64: string | undefined): ServerConfig | undefined {
  return base64 === undefined ? undefined : parseServerConfig(atob(base64));
}

function decodeToken(base64: string | undefined): Secret | undefined {
  const token = base64 === undefined ? "" : atob(base64).trim();
  return /^[a-f0-9]{32,128}$/.test(token) ? new Secret(token) : undefined;
}

function decodeSecret(base64: string | undefined): Secret | undefined {
  try {
    return parseMeshSecret(atob(base64 ?? ""));
  } catch {
    return undefined;
  }
}

function parseBootstrap(text: string | undefined): readonly string[] | undefined {
  if (text === undefined) return undefined;
  try {
    const list: unknown = JSON.parse(text);
    return Array.isArray(list) ? list.filter((item) => typeof item === "string") : undefined;
  } catch {
    return undefined;
  }
}

function parseAddress(line: string): string[] {
  const [device = "", prefix = ""] = line.split(" ");
  const ip = normalizeIp(prefix.split("/")[0] ?? "");
  return ip === undefined || isInternalInterface(device) || ip.startsWith("fe80:") ? [] : [ip];
}

/** A line of `ip route`: `172.17.0.0/16 dev docker0 proto kernel …`. Source: ip-route(8). */
function parseRoute(line: string): RouteFact[] {
  const first = line.split(" ")[0] ?? "";
  const network = first.includes("/") ? first : `${first}/32`;
  const device = / dev (\S+)/.exec(line)?.[1] ?? "";
  const isOurs = device === MESH_INTERFACE || device === CONTAINER_BRIDGE;
  return isOurs || parseCidr(network) === undefined ? [] : [{ network, device }];
}
