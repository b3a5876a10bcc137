import {
  CONTAINER_BRIDGE,
  CONTAINER_NETWORK,
  DNS_PORT,
  FIREWALL_MARK,
  isOk,
  JijiError,
  MESH_INTERFACE,
  messageOf,
  parseServerStatus,
  PROBE_PORT,
  PROXY_CONTAINER,
  PROXY_VOLUME,
  SERVER_PATHS,
  SERVER_UNITS,
  WIREGUARD_CONF,
} from "@jiji/core";
import { ENGINE_TIMEOUT_MS, OBSERVE_TIMEOUT_MS, PROXY_IMAGE } from "../../constants.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { mustRun, mustRunScript } from "../../utils/remote.ts";
import { argvListImages, argvRemoveImage, type EngineName } from "../engine/engine_commands.ts";
import { PROXY_PREVIOUS, PROXY_STANDIN, STANDIN_VOLUME } from "../engine/proxy_reboot_script.ts";
import { markRemoved } from "../network/server_removal.ts";
import { UNIT_PATHS, WIREGUARD_DROP_IN_FOLDER } from "../network/server_files.ts";
import { registryAuthFolder } from "../registry/registry_commands.ts";
import { observeHost } from "../deployment/deployment_observation.ts";
import { parseImages } from "./image_prune_service.ts";
import { removeContainers } from "./service_removal.ts";
import type { TeardownFacts, TeardownPlan } from "./teardown_plan.ts";

/** Argument: engine. The audit log alone does not make a project one that uses the server. */
const FACTS_SCRIPT = `set -u
for folder in /etc/jiji /opt/jiji /var/lib/jiji; do [ -e "$folder" ] && echo "@trace $folder"; done
[ -f ${SERVER_PATHS.serverConfig} ] || exit 0
echo '@member'
for folder in ${SERVER_PATHS.projects}/*/; do
  [ -d "$folder" ] || continue
  ls -A "$folder" | grep -qvx audit.jsonl && printf '@project %s\\n' "$(basename "$folder")"
done
"$1" volume ls --format '@volume {{.Name}}'
exit 0
`;

/** What a server has of jiji. */
export async function observeTeardown(
  host: RemoteHost,
  wish: {
    readonly engine: EngineName;
    readonly project: string;
    readonly repositories: readonly string[];
  },
  signal: AbortSignal,
): Promise<TeardownFacts> {
  const { engine, repositories } = wish;
  const options = { timeoutMs: OBSERVE_TIMEOUT_MS, signal };
  const text = await mustRunScript(host, FACTS_SCRIPT, {
    args: [engine],
    what: "looking at the server failed",
    ...options,
  });
  const after = (key: string) =>
    text.split("\n").filter((line) => line.startsWith(`@${key} `))
      .map((line) => line.slice(key.length + 2));
  const traces = after("trace").length > 0;
  if (!/^@member$/m.test(text)) {
    return { host: undefined, traces, images: [], volumes: [], projects: [] };
  }
  const observed = await observeHost(host, wish, signal);
  const images = repositories.length === 0
    ? ""
    : await mustRun(host, argvListImages(engine, repositories), {
      what: "listing images failed",
      ...options,
    });
  return {
    host: observed,
    traces,
    images: parseImages(images),
    volumes: after("volume"),
    projects: after("project"),
  };
}

/** Arguments: folder of the project, folder of its login. The audit log stays. */
const FORGET_SCRIPT = `set -eu
rm -rf --one-file-system -- "$2"
[ -d "$1" ] || exit 0
find "$1" -mindepth 1 -maxdepth 1 ! -name audit.jsonl -exec rm -rf --one-file-system -- {} +
`;

/**
 * Takes a project off a server.
 *
 * @returns what could not be removed although it is the project's, e.g. an image that somebody uses.
 * @throws {RemoteCommandError} for a container that stays.
 */
export async function tearDownProject(
  host: RemoteHost,
  plan: TeardownPlan,
  options: {
    readonly project: string;
    readonly drainTimeoutMs: number;
    readonly signal: AbortSignal;
  },
): Promise<string[]> {
  const { config } = plan;
  if (config === undefined) return [];
  await removeContainers(host, config, { ...options, containers: plan.containers });
  const left: string[] = [];
  const attempts = [
    ...plan.volumes.map((volume) => [config.engine, "volume", "rm", volume] as const),
    ...plan.images.map((image) => argvRemoveImage(config.engine, image)),
  ];
  for (const argv of attempts) {
    const result = await host.run(argv, { timeoutMs: ENGINE_TIMEOUT_MS });
    if (isOk(result) || /no such (volume|image)|no volume with|not known/i.test(result.stderr)) {
      continue;
    }
    left.push(`${host.name}: ${argv.at(-1)} stays: ${result.stderr.trim().split("\n")[0]}`);
  }
  await mustRunScript(host, FORGET_SCRIPT, {
    args: [`${SERVER_PATHS.projects}/${options.project}`, registryAuthFolder(options.project)],
    what: "deleting files of the project failed",
    timeoutMs: ENGINE_TIMEOUT_MS,
  });
  return left;
}

/**
 * Tells the cluster that servers leave.
 *
 * @returns what failed, a line for each member that could not be told; the others will tell it.
 * @throws {JijiError} when there are others and none of them can be told.
 */
export async function announceLeaving(
  leaving: readonly { readonly host: RemoteHost; readonly serverId: string }[],
  staying: readonly RemoteHost[],
): Promise<string[]> {
  const late: string[] = [];
  let problem: unknown;
  try {
    for (const { serverId } of leaving) late.push(...await markRemoved(serverId, staying));
    return late;
  } catch (error) {
    problem = error;
  }
  const others = await membersBeside(leaving);
  if (others.length === 0) return [];
  throw new JijiError(
    `${others.join(", ")} can't be told that servers leave the cluster\n  ${messageOf(problem)}`,
    {
      serving: "nothing was changed",
      hint: staying.length > 0
        ? "mend what is named above; servers older than this jiji need jiji server init first"
        : "bring one of them back, or name it in the configuration so that it can be reached",
    },
  );
}

async function membersBeside(
  leaving: readonly { readonly host: RemoteHost; readonly serverId: string }[],
): Promise<string[]> {
  const ids = new Set(leaving.map(({ serverId }) => serverId));
  const argv = [`${SERVER_PATHS.bin}/jiji-daemon`, "status", "--json"] as const;
  for (const { host } of leaving) {
    const result = await host.run(argv, { timeoutMs: OBSERVE_TIMEOUT_MS });
    const rows = isOk(result) ? parseServerStatus(result.stdout)?.servers : undefined;
    if (!rows) continue;
    return rows.filter((row) => row.removedAtMs === null && !ids.has(row.id)).map(({ id }) => id);
  }
  return [];
}

/** What a server that leaves was told of its cluster, or would have been. */
export interface LeavingFrom {
  readonly engine: EngineName;
  readonly clusterCidr: string;
  readonly wireguardPort: number;
}

/** Arguments: engine, cluster CIDR, WireGuard port. Prints `@kept` lines for what has to stay. */
const LEAVE_SCRIPT = `set -u
engine=$1 cidr=$2 port=$3
for unit in ${SERVER_UNITS.daemon} ${SERVER_UNITS.dns} ${SERVER_UNITS.corrosion} ${SERVER_UNITS.wireguard}; do
  systemctl disable --quiet --now "$unit" 2>/dev/null
done
for name in ${PROXY_CONTAINER} ${PROXY_PREVIOUS} ${PROXY_STANDIN}; do
  "$engine" rm --force "$name" >/dev/null 2>&1
done
"$engine" volume rm ${PROXY_VOLUME} ${STANDIN_VOLUME} >/dev/null 2>&1
"$engine" rmi ${PROXY_IMAGE} >/dev/null 2>&1
if "$engine" network inspect ${CONTAINER_NETWORK} >/dev/null 2>&1 &&
  ! "$engine" network rm ${CONTAINER_NETWORK} >/dev/null 2>&1; then
  echo '@kept the network ${CONTAINER_NETWORK}: other containers are attached to it'
else
  ip link delete ${CONTAINER_BRIDGE} 2>/dev/null
fi
ip link delete ${MESH_INTERFACE} 2>/dev/null
for table in filter nat raw mangle; do
  iptables -w 5 -t $table -S 2>/dev/null |
    grep -E -e "^-A INPUT .*--comment ${FIREWALL_MARK} -j ACCEPT" \\
      -e "^-A .*-i (${MESH_INTERFACE} -o ${CONTAINER_BRIDGE}|${CONTAINER_BRIDGE} -o ${MESH_INTERFACE}) -j ACCEPT" \\
      -e "^-A INPUT -i ${CONTAINER_BRIDGE} -p udp .*--dport ${PROBE_PORT}:" \\
      -e "^-A PREROUTING -s .* -i ${MESH_INTERFACE} -j DROP" \\
      -e "^-A FORWARD -o ${MESH_INTERFACE} .*-j TCPMSS" \\
      -e "^-A POSTROUTING -s $cidr -d $cidr -j ACCEPT" | sed 's/^-A/-D/' |
    while read -r rule; do iptables -w 5 -t $table $rule; done
done
ip6tables -w 5 -S INPUT 2>/dev/null | sed -n 's/^-A\\(.*--comment ${FIREWALL_MARK} -j ACCEPT\\)/-D\\1/p' |
  while read -r rule; do ip6tables -w 5 $rule; done
if command -v nft >/dev/null; then
  nft -a -t list ruleset 2>/dev/null | awk '
    $1 == "table" { table = $2 " " $3 }
    $1 == "chain" { chain = $2 }
    / comment "${FIREWALL_MARK} [a-z ]*" # handle [0-9]+$/ { print "delete rule " table " " chain " handle " $NF }
  ' | nft -f - 2>/dev/null
fi
if command -v ufw >/dev/null && ufw status | grep -q '^Status: active'; then
  ufw delete allow "$port/udp"; ufw delete allow in on ${MESH_INTERFACE}
  ufw delete allow in on ${CONTAINER_BRIDGE} to any port ${DNS_PORT}
  ufw delete allow in on ${CONTAINER_BRIDGE}
fi >/dev/null 2>&1
if command -v firewall-cmd >/dev/null && firewall-cmd --state >/dev/null 2>&1; then
  firewall-cmd --permanent "--remove-port=$port/udp"
  firewall-cmd --permanent --zone=trusted --remove-interface=${MESH_INTERFACE}
  firewall-cmd --permanent --zone=trusted --remove-interface=${CONTAINER_BRIDGE}
  firewall-cmd --reload
fi >/dev/null 2>&1
rm -f ${UNIT_PATHS.join(" ")} ${WIREGUARD_CONF}
rmdir ${WIREGUARD_DROP_IN_FOLDER} 2>/dev/null
systemctl daemon-reload
systemctl reset-failed 'jiji-*' 2>/dev/null
rm -rf --one-file-system /etc/jiji /opt/jiji ${SERVER_PATHS.run} ${SERVER_PATHS.run}-corrosion /var/lib/jiji /var/cache/jiji
id jiji >/dev/null 2>&1 && userdel jiji
exit 0
`;

/**
 * Takes jiji itself off a server: it is as before `server init`, with the engine and the installed
 * packages. Ports 80 and 443 stay open in a firewall: others may use them.
 *
 * @returns what had to stay.
 * @throws {RemoteCommandError} when it was cut off; doing it again goes on.
 */
export async function leaveCluster(host: RemoteHost, from: LeavingFrom): Promise<string[]> {
  const text = await mustRunScript(host, LEAVE_SCRIPT, {
    args: [from.engine, from.clusterCidr, String(from.wireguardPort)],
    what: "taking jiji off the server failed",
    timeoutMs: ENGINE_TIMEOUT_MS * 3,
  });
  return text.split("\n").filter((line) => line.startsWith("@kept "))
    .map((line) => `${host.name}: kept ${line.slice(6)}`);
}
