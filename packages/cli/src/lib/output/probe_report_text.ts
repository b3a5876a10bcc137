import type { ProbeReport } from "@jiji/core";
import type { Diagnosis } from "../health/diagnosis.ts";

/** Lines are at most this wide, so that they stay whole on the smallest usual terminal. */
const COLUMNS = 80;
/** Width of the names in front. */
const LABEL_COLUMNS = 14;
const INDENT = "  ";

/**
 * Words of a text in lines of at most `columns`; a longer word is cut. What begins with blanks, as
 * a stack trace does, keeps them.
 */
export function wrapText(text: string, columns: number): string[] {
  const lead = /^\s*/.exec(text)?.[0].slice(0, Math.floor(columns / 2)) ?? "";
  const pieces = text.trim().split(/\s+/).flatMap((word) => cutWord(word, columns - lead.length));
  const lines: string[] = [];
  let line = lead;
  for (const piece of pieces) {
    const joined = line === lead ? lead + piece : `${line} ${piece}`;
    if (joined.length <= columns) {
      line = joined;
      continue;
    }
    lines.push(line);
    line = lead + piece;
  }
  return [...lines, line];
}

function cutWord(word: string, columns: number): string[] {
  const width = Math.max(columns, 1);
  const count = Math.max(Math.ceil(word.length / width), 1);
  return Array.from(
    { length: count },
    (_, index) => word.slice(index * width, (index + 1) * width),
  );
}

/** The evidence under a headline, a part a name, wrapped at 80 columns. */
export function renderProbeReport(report: ProbeReport, diagnosis: Diagnosis | undefined): string {
  const parts: [name: string, paragraphs: readonly string[]][] = [
    ...(diagnosis === undefined ? [] : [
      ["Probably", [diagnosis.cause]],
      ["Try", [diagnosis.advice]],
    ] satisfies [string, string[]][]),
    ["Probe", probeLines(report)],
    ["Container", [containerLine(report)]],
    ...(report.listening === undefined || report.listening === null
      ? []
      : [["Listening", [listeningLine(report.listening)]]] satisfies [string, string[]][]),
    ["Last lines", logLines(report)],
  ];
  return parts.flatMap(([name, paragraphs]) => renderPart(name, paragraphs)).join("\n");
}

function renderPart(name: string, paragraphs: readonly string[]): string[] {
  const width = COLUMNS - INDENT.length - LABEL_COLUMNS;
  const lines = paragraphs.flatMap((text) => wrapText(text, width));
  return lines.map((line, index) =>
    `${INDENT}${(index === 0 ? name : "").padEnd(LABEL_COLUMNS)}${line}`.trimEnd()
  );
}

function probeLines(report: ProbeReport): string[] {
  const last = report.tries.at(-1);
  if (last === undefined) return ["none was made: the container had ended"];
  const same = report.tries.filter((attempt) => attempt.outcome === last.outcome).length;
  const host = report.check?.host === undefined ? "" : ` with Host: ${report.check.host}`;
  const headers = Object.entries(report.answer?.headers ?? {})
    .map(([name, value]) => `${name}: ${value}`);
  return [
    `${last.outcome}${host} (${same} of the last ${report.tries.length} tries)`,
    ...headers,
  ];
}

function containerLine({ state }: ProbeReport): string {
  const error = state.error ? `; the engine says: ${state.error}` : "";
  const restarts = state.restarts === 0
    ? ""
    : `, restarted ${state.restarts} ${state.restarts === 1 ? "time" : "times"}`;
  if (state.running) return `running${restarts}${error}`;
  const memory = state.oom_killed ? ", out of memory" : "";
  return `exited with code ${state.exit_code ?? "unknown"}${memory}${restarts}${error}`;
}

function listeningLine(listening: NonNullable<ProbeReport["listening"]>): string {
  if (listening.length === 0) return "nothing";
  return listening.map(({ ip, port }) => `${ip.includes(":") ? `[${ip}]` : ip}:${port}`).join(", ");
}

function logLines(report: ProbeReport): string[] {
  const lines = report.logs_tail.split("\n").map((line) => line.trimEnd());
  const shown = lines.filter((line) => line !== "");
  return shown.length === 0 ? ["(it wrote nothing)"] : shown;
}
