import {
  JijiError,
  parseProxyState,
  parseServerConfig,
  parseVersion,
  PROXY_VOLUME,
  SERVER_PATHS,
  type ServerConfig,
} from "@jiji/core";
import { OBSERVE_TIMEOUT_MS } from "../../constants.ts";
import type { ObservedHost } from "../../types/deployment.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { mustRunScript } from "../../utils/remote.ts";
import { INSPECT_FORMAT } from "../engine/engine_commands.ts";
import { parseInspectLines } from "../engine/inspect.ts";
import { parseMachine, parseSockets } from "../refusals/host_sockets.ts";
import { parseProxyClaims } from "../engine/proxy_commands.ts";

/** A line more for the container that has the proxy's volume: asking for it apart takes its time. */
const PROXY_MOUNT_FORMAT = `{{range .Mounts}}{{if eq .Name "${PROXY_VOLUME}"}}
@volume {{.Source}}{{end}}{{end}}`;

/**
 * The engine is asked side by side, and what it says meanwhile is kept in memory (/run, tmpfs).
 * Looks at a server in one round trip: its place in the cluster, every container, the proxy's
 * routes, the project's images and which of them releases need. Arguments: engine, Go template of the fields that are read, project.
 */
const OBSERVE_SCRIPT = `set -u
engine=$1 format=$2 project=$3
[ -f ${SERVER_PATHS.serverConfig} ] || exit 0
printf '@config %s\\n' "$(base64 -w0 <${SERVER_PATHS.serverConfig})"
seen=$(mktemp -d -p /run) || exit 69
trap 'rm -rf "$seen"' EXIT
"$engine" images --filter "reference=*/$project-*" --filter "reference=*/*/$project-*" \\
  --filter "reference=*/*/*/$project-*" --digests --format '@image {{.Repository}}:{{.Tag}} {{.Digest}}' \\
  >"$seen/images" 2>/dev/null &
ids=$("$engine" ps --all --no-trunc --quiet) || exit 69
if [ -n "$ids" ]; then
  "$engine" inspect --type container --format "$format" $ids 2>/dev/null >"$seen/containers"
  grep -v '^@volume ' "$seen/containers" | sed 's/^/@container /'
fi
wait
cat "$seen/images"
sed -n 's/^.*"spec":{"image":"\\([^"]*\\)".*$/@release \\1/p' \\
  ${SERVER_PATHS.projects}/"$project"/releases/*/*.json 2>/dev/null
volume=$(sed -n 's/^@volume //p' "$seen/containers" 2>/dev/null | head -n 1)
[ -n "$volume" ] ||
  volume=$("$engine" volume inspect --format '{{.Mountpoint}}' ${PROXY_VOLUME} 2>/dev/null)
if [ -n "$volume" ] && [ -f "$volume/kamal-proxy.state" ]; then
  printf '@folder %s\\n' "$volume"
  printf '@proxy %s\\n' "$(base64 -w0 <"$volume/kamal-proxy.state")"
fi
printf '@machine %s\\n' "$(uname -m)"
[ -r ${SERVER_PATHS.version} ] && printf '@version %s\\n' "$(head -c 64 ${SERVER_PATHS.version})"
if command -v ss >/dev/null; then
  echo '@sockets'
  ss -Hlntup 2>/dev/null | sed 's/^/@socket /'
fi
exit 0
`;

/**
 * Observes a server before a deploy.
 *
 * @throws {JijiError} when it is no member of a cluster yet; {RemoteCommandError} when its engine
 * does not answer.
 */
export async function observeHost(
  host: RemoteHost,
  what: { readonly engine: ServerConfig["engine"]; readonly project: string },
  signal: AbortSignal,
): Promise<ObservedHost> {
  const { engine, project } = what;
  const text = await mustRunScript(host, OBSERVE_SCRIPT, {
    args: [engine, INSPECT_FORMAT + PROXY_MOUNT_FORMAT, project],
    what: `${engine} does not answer`,
    timeoutMs: OBSERVE_TIMEOUT_MS,
    signal,
  });
  return parseObservation(host.name, text);
}

/**
 * The observation in the script's output.
 *
 * @throws {JijiError} when the server has not joined.
 */
export function parseObservation(name: string, text: string): ObservedHost {
  const lines = text.split("\n");
  const after = (key: string) =>
    lines.filter((line) => line.startsWith(`@${key} `)).map((line) => line.slice(key.length + 2));
  const [config] = after("config");
  if (config === undefined) {
    throw new JijiError(`${name} is not a member of a cluster yet`, {
      hint: "run jiji server init first",
    });
  }
  const { containers, refused } = parseInspectLines(after("container").join("\n"));
  if (refused.length > 0) {
    throw new JijiError(
      `${name}: the engine described ${refused.length} containers in a form that ` +
        "jiji does not know",
      { hint: "please report it with the engine's version" },
    );
  }
  const images = after("image").map((line) => line.split(" "))
    .filter(([name = ""]) => !name.endsWith(":<none>"));
  const [proxy] = after("proxy");
  const [folder] = after("folder");
  return {
    name,
    config: parseServerConfig(atob(config)),
    containers,
    proxyState: proxy === undefined ? new Map() : parseProxyState(atob(proxy)),
    ...(folder?.startsWith("/") ? { proxyFolder: folder } : {}),
    claims: proxy === undefined ? [] : parseProxyClaims(atob(proxy)),
    version: parseVersion(after("version")[0]),
    arch: parseMachine(after("machine")[0]),
    sockets: lines.includes("@sockets") ? parseSockets(after("socket")) : undefined,
    images: [...new Set(images.map(([name = ""]) => name))],
    imageDigests: new Map(
      images.flatMap(([name = "", digest = ""]) =>
        digest.startsWith("sha256:") ? [[name, digest] as const] : []
      ),
    ),
    // Files sort by time, so that the newest release of a service comes last.
    releaseImages: [...new Set(after("release").reverse())],
  };
}
