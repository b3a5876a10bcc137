import { messageOf } from "@jiji/core";
import { renderTable } from "../lib/output/table.ts";
import { type AuditLine, readAudit } from "../utils/audit.ts";
import { type CommonOptions, type Ports, setupCommandContext } from "../utils/command_helpers.ts";

/** Options of `jiji audit`. */
export interface AuditOptions extends CommonOptions {
  readonly lines?: string | undefined;
  readonly action?: string | undefined;
  readonly status?: string | undefined;
}

/**
 * `jiji audit`: who changed what and when, merged over all servers by time.
 *
 * @throws {JijiError} when the configuration is wrong; servers that do not answer are named.
 */
export async function audit(options: AuditOptions, ports: Ports): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const { configuration, output } = context;
  for (const [, error] of context.unreachable) output.warn(messageOf(error));
  const lists = await Promise.all(
    [...context.hosts.values()].map((host) => readAudit(host, configuration.project)),
  );
  const wanted = lists.flat()
    .filter((line) => options.action === undefined || line.action === options.action)
    .filter((line) => options.status === undefined || line.status === options.status)
    .sort((a, b) => a.time < b.time ? -1 : 1)
    .slice(-(Number(options.lines) || 20));
  if (output.json) return output.result({ entries: wanted });
  const cells = wanted.map((line: AuditLine) => [
    line.time.slice(0, 19),
    line.host,
    line.actor,
    line.action,
    line.status,
    line.version ?? "",
    line.message,
  ]);
  const header = ["time (UTC)", "server", "who", "action", "result", "version", "what"];
  renderTable(header, cells).forEach((line) => output.line(line));
}
