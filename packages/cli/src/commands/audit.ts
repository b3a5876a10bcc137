import { messageOf, UsageError } from "@jiji/core";
import type { Output } from "../lib/output/output.ts";
import { renderTable } from "../lib/output/table.ts";
import { auditFile, type AuditLine, parseAudit, readAudit } from "../utils/audit.ts";
import {
  type CommandContext,
  type CommonOptions,
  type Ports,
  setupCommandContext,
} from "../utils/command_helpers.ts";
import { parseMoment } from "../utils/time_text.ts";

/** Options of `jiji audit`. */
export interface AuditOptions extends CommonOptions {
  readonly lines?: string | undefined;
  readonly action?: string | undefined;
  readonly status?: string | undefined;
  readonly since?: string | undefined;
  readonly until?: string | undefined;
  readonly follow?: boolean | undefined;
}

/** Entries shown unless told otherwise. */
const DEFAULT_LINES = 20;
/** A log that is followed ends with Ctrl-C, at the latest after a day, milliseconds. */
const FOLLOW_TIMEOUT_MS = 24 * 3_600_000;

/**
 * `jiji audit`: who changed what and when, merged over all servers by time.
 *
 * @throws {UsageError} for a malformed filter; {JijiError} when the configuration is wrong. Servers
 * that do not answer are named.
 */
export async function audit(options: AuditOptions, ports: Ports): Promise<void> {
  const filter = parseAuditFilter(options, ports.clock.nowMs());
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const { configuration, output } = context;
  for (const [, error] of context.unreachable) output.warn(messageOf(error));
  const lists = await Promise.all(
    [...context.hosts.values()].map((host) => readAudit(host, configuration.project)),
  );
  const wanted = chooseEntries(lists.flat(), filter);
  if (options.follow) {
    wanted.forEach((line) => showLine(output, line));
    return await follow(context, filter);
  }
  if (output.json) return output.result({ total: wanted.length, entries: wanted });
  const header = ["time (UTC)", "server", "who", "action", "result", "version", "what"];
  renderTable(header, wanted.map(cellsOf)).forEach((line) => output.line(line));
}

/** Which entries are wanted. */
export interface AuditFilter {
  /** Newest ones at most. */
  readonly lines: number;
  readonly action: string | undefined;
  readonly status: string | undefined;
  /** Unix ms, included. */
  readonly sinceMs: number;
  /** Unix ms, included. */
  readonly untilMs: number;
}

/**
 * The filter that the options ask for.
 *
 * @throws {UsageError} naming the option that is malformed.
 */
export function parseAuditFilter(
  options: Omit<AuditOptions, keyof CommonOptions>,
  nowMs: number,
): AuditFilter {
  const { lines, status } = options;
  if (lines !== undefined && !/^[1-9]\d{0,5}$/.test(lines)) {
    throw new UsageError(`--lines ${lines} is not a number of entries`);
  }
  if (status !== undefined && status !== "success" && status !== "failed") {
    throw new UsageError(`--status ${status} is not a result`, { hint: "success or failed" });
  }
  return {
    lines: Number(lines ?? DEFAULT_LINES),
    action: options.action,
    status,
    sinceMs: moment("--since", options.since, nowMs) ?? -Infinity,
    untilMs: moment("--until", options.until, nowMs) ?? Infinity,
  };
}

function moment(flag: string, text: string | undefined, nowMs: number): number | undefined {
  if (text === undefined) return undefined;
  const ms = parseMoment(text, nowMs);
  if (ms !== undefined) return ms;
  throw new UsageError(`${flag} ${text} is neither a length of time nor a moment`, {
    hint: "30m, 12h, 7d, or 2026-11-23T05:00Z",
  });
}

/** Entries that match, oldest first. */
export function chooseEntries(entries: readonly AuditLine[], filter: AuditFilter): AuditLine[] {
  return entries.filter((line) => matches(line, filter))
    .sort((a, b) => a.time < b.time ? -1 : a.time > b.time ? 1 : 0)
    .slice(-filter.lines);
}

function matches(line: AuditLine, filter: AuditFilter): boolean {
  const ms = Date.parse(line.time);
  return (filter.action === undefined || line.action === filter.action) &&
    (filter.status === undefined || line.status === filter.status) &&
    ms >= filter.sinceMs && ms <= filter.untilMs;
}

/** New entries of all servers as they are written. Source: tail(1), `-F`: also a log made later. */
async function follow(context: CommandContext, filter: AuditFilter): Promise<void> {
  const { configuration, output, signal } = context;
  await Promise.all([...context.hosts.values()].map(async (host) => {
    let rest = "";
    await host.stream(["tail", "-n", "0", "-F", auditFile(configuration.project)], {
      timeoutMs: FOLLOW_TIMEOUT_MS,
      signal,
      onStdout: (text) => {
        const lines = (rest + text).split("\n");
        rest = lines.pop() ?? "";
        parseAudit(lines.join("\n")).filter((line) => matches(line, filter))
          .forEach((line) => showLine(output, line));
      },
      onStderr: () => undefined,
    });
  }));
}

function showLine(output: Output, line: AuditLine): void {
  output.line(output.json ? JSON.stringify(line) : cellsOf(line).filter(Boolean).join("  "));
}

function cellsOf(line: AuditLine): string[] {
  const { time, host, actor, action, status, version = "", message } = line;
  return [time.slice(0, 19), host, actor, action, status, version, message];
}
