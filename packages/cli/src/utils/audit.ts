import { hostname, userInfo } from "node:os";
import * as v from "valibot";
import { messageOf, SERVER_PATHS } from "@jiji/core";
import { OBSERVE_TIMEOUT_MS } from "../constants.ts";
import type { RemoteHost } from "../types/remote_host.ts";
import type { CommandContext } from "./command_helpers.ts";
import { mustRunScript } from "./remote.ts";

/** What a changing command did on a server; never holds a value of the environment. */
export interface AuditEntry {
  readonly action: string;
  readonly status: "success" | "failed";
  readonly message: string;
  readonly version?: string | undefined;
}

/** Appends one line, in one write so that lines of two CLIs do not mix. */
const APPEND_SCRIPT = `set -eu
umask 077
mkdir -p "\${1%/*}"
line=$(cat <<'JIJI_AUDIT'
LINE
JIJI_AUDIT
)
printf '%s\\n' "$line" >>"$1"
`;

/** The project's audit log on a server. */
export function auditFile(project: string): string {
  return `${SERVER_PATHS.projects}/${project}/audit.jsonl`;
}

/** An audit line, without its end. */
export function renderAuditLine(
  host: RemoteHost,
  entry: AuditEntry,
  options: { readonly project: string; readonly nowMs: number },
): string {
  return JSON.stringify({
    time: new Date(options.nowMs).toISOString(),
    actor: `${userInfo().username}@${hostname()}`,
    host: host.name,
    project: options.project,
    ...entry,
  });
}

/** Writes an audit line on a server. */
export async function writeAudit(
  host: RemoteHost,
  entry: AuditEntry,
  options: { readonly project: string; readonly nowMs: number },
): Promise<void> {
  const line = renderAuditLine(host, entry, options);
  await mustRunScript(host, APPEND_SCRIPT.replace("LINE", () => line), {
    args: [auditFile(options.project)],
    what: "writing the audit log failed",
    timeoutMs: OBSERVE_TIMEOUT_MS,
  });
}

/** The same, where a log that can't be written must not undo what was done: it is told. */
export async function auditOrWarn(
  context: Pick<CommandContext, "configuration" | "clock" | "output">,
  host: RemoteHost,
  entry: AuditEntry,
): Promise<void> {
  const { configuration, clock, output } = context;
  try {
    await writeAudit(host, entry, { project: configuration.project, nowMs: clock.nowMs() });
  } catch (error) {
    output.warn(`${host.name}: ${messageOf(error)}`);
  }
}

const LineShape = v.object({
  time: v.string(),
  actor: v.string(),
  host: v.string(),
  action: v.string(),
  status: v.string(),
  message: v.string(),
  version: v.optional(v.string()),
});

/** An audit line as read back. */
export type AuditLine = v.InferOutput<typeof LineShape>;

/** More lines than this are not read from one server. */
const READ_LINES_MAX = 10_000;

/** The audit log of a project on a server, oldest first; lines that do not parse are left out. */
export async function readAudit(host: RemoteHost, project: string): Promise<AuditLine[]> {
  const script = `[ -f "$1" ] || exit 0; tail -n ${READ_LINES_MAX} "$1"`;
  const text = await mustRunScript(host, script, {
    args: [auditFile(project)],
    what: "reading the audit log failed",
    timeoutMs: OBSERVE_TIMEOUT_MS,
  });
  return parseAudit(text);
}

/** Audit lines of a log file. */
export function parseAudit(text: string): AuditLine[] {
  return text.split("\n").flatMap((line) => {
    if (!line.trim()) return [];
    try {
      const parsed = v.safeParse(LineShape, JSON.parse(line));
      return parsed.success ? [parsed.output] : [];
    } catch {
      return [];
    }
  });
}
