/** Gets files, folders and certificates of a service to a server, before a container needs them. */
import {
  JijiError,
  PROXY_CERTIFICATES,
  PROXY_VOLUME,
  randomHex,
  Secret,
  SERVER_PATHS,
} from "@jiji/core";
import { ENGINE_TIMEOUT_MS, UPLOAD_TIMEOUT_MS } from "../../constants.ts";
import type { DeployStep, ShippedCertificate } from "../../types/deployment.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { mustRun, mustRunScript } from "../../utils/remote.ts";
import type { EngineName } from "../engine/engine_commands.ts";

/**
 * Gives files and folders to their owners. Arguments: `f` or `d`, mode, owner or `-`, path, again
 * and again. What is below a folder is a file of its own, except folders: they get its mode.
 */
const OWN_SCRIPT = `set -eu
while [ $# -gt 3 ]; do
  kind=$1 mode=$2 owner=$3 path=$4; shift 4
  if [ "$kind" = d ]; then
    mkdir -p "$path"
    find "$path" -type d -exec chmod "$mode" {} +
    if [ "$owner" != - ]; then chown -R "$owner" "$path"; fi
  elif [ "$owner" != - ]; then chown "$owner" "$path"; fi
done
`;

/** Uploads files and makes folders; each with its mode and owner. */
export async function shipFiles(
  host: RemoteHost,
  step: DeployStep & { kind: "shipFiles" },
  signal: AbortSignal,
): Promise<void> {
  const { files, folders = [] } = step;
  const parents = files.map((file) => file.remote.replace(/\/[^/]*$/, ""));
  const made = [...new Set([...parents, ...folders.map((folder) => folder.remote)])];
  const limits = { timeoutMs: ENGINE_TIMEOUT_MS, signal };
  await mustRun(host, ["mkdir", "-p", ...made], {
    ...limits,
    what: "making folders for files failed",
  });
  for (const file of files) {
    await host.upload({ path: file.local }, file.remote, {
      mode: file.mode,
      timeoutMs: UPLOAD_TIMEOUT_MS,
    });
  }
  const args = [
    ...folders.map((folder) => ["d", folder] as const),
    ...files.filter((file) => file.owner !== undefined).map((file) => ["f", file] as const),
  ].flatMap(([kind, { mode, owner, remote }]) => [kind, mode.toString(8), owner ?? "-", remote]);
  if (args.length === 0) return;
  await mustRunScript(host, OWN_SCRIPT, {
    ...limits,
    args,
    what: "giving files to their owners failed",
  });
}

/** Marks a certificate in the script's output that the server lacks and this run does not have. */
const LACKING = "@lacking ";

/**
 * Puts certificates into the proxy's volume, each once, and removes those that nothing names any
 * more: neither the proxy's state, which it could not read back without them, nor a container's
 * label, nor a release that one can go back to.
 *
 * @throws {JijiError} when a release is to come back whose certificate is gone.
 */
export async function shipCertificates(
  host: RemoteHost,
  step: DeployStep & { kind: "shipCertificates" },
  options: { readonly engine: EngineName; readonly signal: AbortSignal },
): Promise<void> {
  const text = await mustRunScript(host, renderCertificateScript(step.certificates), {
    args: [options.engine],
    what: "shipping certificates failed",
    timeoutMs: ENGINE_TIMEOUT_MS,
    signal: options.signal,
  });
  const lacking = text.split("\n").filter((line) => line.startsWith(LACKING))
    .map((line) => line.slice(LACKING.length));
  if (lacking.length === 0) return;
  throw new JijiError(`${host.name} no longer has the certificate ${lacking.join(", ")}`, {
    hint: "deploy the present configuration instead: jiji deploy",
  });
}

/** The script; `$1` is the engine. Certificates stand in here-documents, never in an argument. */
export function renderCertificateScript(certificates: readonly ShippedCertificate[]): string {
  const end = `END_${randomHex(16)}`;
  const puts = certificates.map(({ name, pem }) =>
    pem instanceof Secret
      ? `put ${name} <<'${end}'\n${pem.reveal()}${end}\n`
      : `[ -s "$folder/${name}" ] || echo '${LACKING}${name}'\n`
  );
  return `set -eu
umask 077
engine=$1
volume=$("$engine" volume inspect --format '{{.Mountpoint}}' ${PROXY_VOLUME})
owner=$(stat -c %u:%g "$volume")
folder=$volume/${PROXY_CERTIFICATES}
mkdir -p "$folder"
chown "$owner" "$folder"
put() {
  cat >"$folder/$1.new"
  chown "$owner" "$folder/$1.new"
  mv "$folder/$1.new" "$folder/$1"
}
${puts.join("")}ids=$("$engine" ps --all --quiet --filter label=jiji.proxy)
labels=
[ -z "$ids" ] || labels=$("$engine" inspect --format '{{index .Config.Labels "jiji.proxy"}}' $ids)
for file in "$folder"/*; do
  [ -f "$file" ] || continue
  name=\${file##*/}
  case ' ${certificates.map(({ name }) => name).join(" ")} ' in *" $name "*) continue ;; esac
  case $labels in *"/$name"*) continue ;; esac
  ! grep -qsF "/$name" "$volume/kamal-proxy.state" || continue
  ! grep -rqsF "/$name" ${SERVER_PATHS.projects}/*/releases || continue
  rm -f "$file"
done
`;
}
