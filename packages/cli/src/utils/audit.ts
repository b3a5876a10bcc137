import { hostname, userInfo } from "node:os";
import { SERVER_PATHS } from "@jiji/core";
import { OBSERVE_TIMEOUT_MS } from "../constants.ts";
import type { RemoteHost } from "../types/remote_host.ts";
import { mustRunScript } from "./remote.ts";

/** What a changing command did on a server; never holds a value of the environment. */
export interface AuditEntry {
  readonly action: string;
  readonly status: "success" | "failed";
  readonly message: string;
  readonly version?: string | undefined;
}

/** Appends one JSON line, in one write so that lines of two CLIs do not mix. */
const APPEND_SCRIPT = `set -eu
umask 077
mkdir -p "$1"
line=$(cat <<'JIJI_AUDIT'
LINE
JIJI_AUDIT
)
printf '%s\\n' "$line" >>"$1/audit.jsonl"
`;

/** Writes an audit line on a server. */
export async function writeAudit(
  host: RemoteHost,
  entry: AuditEntry,
  options: { readonly project: string; readonly nowMs: number },
): Promise<void> {
  const line = JSON.stringify({
    time: new Date(options.nowMs).toISOString(),
    actor: `${userInfo().username}@${hostname()}`,
    host: host.name,
    project: options.project,
    ...entry,
  });
  await mustRunScript(host, APPEND_SCRIPT.replace("LINE", () => line), {
    args: [`${SERVER_PATHS.projects}/${options.project}`],
    what: "writing the audit log failed",
    timeoutMs: OBSERVE_TIMEOUT_MS,
  });
}
