import { UsageError } from "@jiji/core";
import type { RemoteHost } from "../../types/remote_host.ts";
import type { CommandContext } from "../../utils/command_helpers.ts";
import type { EngineName } from "../engine/engine_commands.ts";

/** A container whose output is wanted. */
export interface LogSource {
  readonly host: RemoteHost;
  readonly container: string;
}

/** Which lines are wanted. */
export interface LogWish {
  readonly follow?: boolean | undefined;
  /** As the engine takes it: `10m`, `2h` or a time. */
  readonly since?: string | undefined;
  readonly lines?: string | undefined;
  /** Regular expression. */
  readonly grep?: string | undefined;
}

/** A line with the moment its container wrote it. */
export interface LogLine {
  /** RFC 3339 with nanoseconds, as the engine prints it; sorts as text. */
  readonly time: string;
  readonly source: string;
  readonly text: string;
}

/** Lines shown per container unless told otherwise. */
const DEFAULT_LINES = 100;
/** A log that is followed ends with Ctrl-C, at the latest after a day, milliseconds. */
const FOLLOW_TIMEOUT_MS = 24 * 3_600_000;
const READ_TIMEOUT_MS = 60_000;

/** The engine's command for a container's output with times. */
export function argvLogsOf(
  engine: EngineName,
  container: string,
  wish: LogWish,
): readonly [string, ...string[]] {
  const lines = wish.lines ??
    (wish.since === undefined && wish.grep === undefined ? String(DEFAULT_LINES) : "all");
  return [
    engine,
    "logs",
    "--timestamps",
    ...(wish.follow ? ["--follow"] : []),
    ...(wish.since === undefined ? [] : ["--since", wish.since]),
    // Podman knows no word for all: leaving the option out is all, with both engines.
    ...(lines === "all" ? [] : ["--tail", lines]),
    container,
  ];
}

/** A line of `engine logs --timestamps`. */
export function parseLogLine(line: string, source: string): LogLine {
  const space = line.indexOf(" ");
  const time = space < 0 ? line : line.slice(0, space);
  return /^\d{4}-\d\d-\d\dT/.test(time)
    ? { time, source, text: space < 0 ? "" : line.slice(space + 1) }
    : { time: "", source, text: line };
}

/**
 * Shows lines of all sources: merged by time, or as they come when followed.
 *
 * @throws {UsageError} for a `--grep` or `--lines` that is malformed.
 */
export async function streamLogs(
  context: CommandContext,
  sources: readonly LogSource[],
  wish: LogWish,
): Promise<void> {
  const matches = lineFilter(wish);
  const { output } = context;
  const width = Math.max(...sources.map((source) => nameOf(source).length));
  const show = (line: LogLine) => {
    if (output.json) return output.line(JSON.stringify(line));
    output.line(`${line.time.slice(0, 23)}  ${line.source.padEnd(width)}  ${line.text}`);
  };
  const collected: LogLine[] = [];
  await Promise.all(sources.map((source) =>
    readSource(context, { source, wish }, (line) => {
      if (!matches(line.text)) return;
      if (wish.follow) show(line);
      else collected.push(line);
    })
  ));
  collected.sort((a, b) => a.time < b.time ? -1 : a.time > b.time ? 1 : 0).forEach(show);
}

function nameOf(source: LogSource): string {
  return `${source.host.name} ${source.container}`;
}

function lineFilter(wish: LogWish): (text: string) => boolean {
  if (wish.lines !== undefined && !/^\d+$/.test(wish.lines)) {
    throw new UsageError(`--lines ${wish.lines} is not a number`);
  }
  if (wish.grep === undefined) return () => true;
  try {
    const pattern = new RegExp(wish.grep);
    return (text) => pattern.test(text);
  } catch (cause) {
    throw new UsageError(`--grep ${wish.grep} is not a regular expression`, { cause });
  }
}

async function readSource(
  context: CommandContext,
  { source, wish }: { readonly source: LogSource; readonly wish: LogWish },
  take: (line: LogLine) => void,
): Promise<void> {
  const { engine } = context.configuration.builder;
  // Each stream has its own rest: pieces end anywhere, also within a line.
  const rests = { stdout: "", stderr: "" };
  const feed = (stream: keyof typeof rests) => (text: string) => {
    const parts = (rests[stream] + text).split("\n");
    rests[stream] = parts.pop() ?? "";
    parts.forEach((line) => take(parseLogLine(line, nameOf(source))));
  };
  await source.host.stream(argvLogsOf(engine, source.container, wish), {
    timeoutMs: wish.follow ? FOLLOW_TIMEOUT_MS : READ_TIMEOUT_MS,
    signal: context.signal,
    onStdout: feed("stdout"),
    onStderr: feed("stderr"),
  });
  for (const rest of [rests.stdout, rests.stderr]) {
    if (rest !== "") take(parseLogLine(rest, nameOf(source)));
  }
}
