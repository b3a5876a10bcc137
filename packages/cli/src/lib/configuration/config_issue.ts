import { JijiError } from "@jiji/core/runtime";

/** One problem of a configuration file, with the place to look at. */
export interface ConfigIssue {
  /** Path of the file as shown to the user. */
  readonly file: string;
  /** 1-based. */
  readonly line: number;
  /** 1-based, in characters. */
  readonly column: number;
  /** Key path, e.g. `services.web.ports[0]`; empty for the whole file. */
  readonly path: string;
  /** What is wrong, quoting the value. */
  readonly message: string;
  /** What to write instead. */
  readonly fix?: string;
}

/** The configuration file is missing, malformed or invalid. The message is ready to be shown. */
export class ConfigError extends JijiError {
  override readonly code: string = "config";
  override readonly exitCode: number = 3;
  /** Every problem, ordered by position; empty when there is no file at all. */
  readonly issues: readonly ConfigIssue[];

  /** @param message the rendered problems, as shown to the user. */
  constructor(
    message: string,
    options: { readonly issues?: readonly ConfigIssue[]; readonly hint?: string } = {},
  ) {
    super(message, options.hint === undefined ? {} : { hint: options.hint });
    this.issues = options.issues ?? [];
  }
}

/** Problems in the order of the file, each once. */
export function sortIssues(issues: readonly ConfigIssue[]): ConfigIssue[] {
  const seen = new Set<string>();
  return issues
    .filter((issue) => {
      const key = `${issue.line}:${issue.column}:${issue.path}:${issue.message}`;
      return seen.has(key) ? false : seen.add(key);
    })
    .sort((a, b) => a.line - b.line || a.column - b.column || (a.path < b.path ? -1 : 1));
}

/** More than this many problems are counted, not shown. */
const SHOWN_MAX = 50;

/**
 * Every problem with its two lines of the file and a caret, then how many there are. Values that
 * look like literal passwords are masked.
 */
export function renderIssues(file: string, text: string, issues: readonly ConfigIssue[]): string {
  const lines = text.split(/\r?\n/).map(maskSecrets);
  const shown = issues.slice(0, SHOWN_MAX).map((issue, index) => {
    const head = `${index === 0 ? "" : "✖ "}${renderHead(issue)}`;
    return [head, ...renderFrame(lines, issue)].join("\n");
  });
  const count = issues.length === 1 ? "1 problem" : `${issues.length} problems`;
  return [...shown, `${count} in ${file}`].join("\n");
}

function renderHead(issue: ConfigIssue): string {
  const place = `${issue.file.split("/").pop()}:${issue.line}:${issue.column}`;
  return `${place}  ${issue.path ? `${issue.path}: ` : ""}${issue.message}`;
}

function renderFrame(lines: readonly string[], issue: ConfigIssue): string[] {
  const line = lines[issue.line - 1];
  if (line === undefined) return [];
  const numberWidth = Math.max(String(issue.line).length + 2, 5);
  const numbered = (number: number) =>
    `${String(number).padStart(numberWidth)} │ ${lines[number - 1]}`.trimEnd();
  const before = issue.line > 1 ? [numbered(issue.line - 1)] : [];
  const pad = line.slice(0, issue.column - 1).replace(/[^\t]/g, " ");
  const carets = "^".repeat(caretLength(line, issue.column - 1));
  const caret = `${" ".repeat(numberWidth)} │ ${pad}${carets}${issue.fix ? ` ${issue.fix}` : ""}`;
  return [...before, numbered(issue.line), caret];
}

/** Underlines one word, or what is quoted. */
function caretLength(line: string, start: number): number {
  const rest = line.slice(start);
  const quoted = /^(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')/.exec(rest)?.[0];
  const bare = /^[^#,\]}]*?(?=\s*(?:: |:$|,|\]|\}| #|$))/.exec(rest)?.[0];
  return Math.max((quoted ?? bare ?? "").length, 1);
}

/** A literal password must not reach a terminal or a CI log because of a typo next to it. */
function maskSecrets(line: string): string {
  const match = /^(\s*(?:- )?["']?[\w-]*(?:pass(?:word|phrase)|token|secret)["']?\s*:\s*)(\S.*)$/i
    .exec(line);
  if (match?.[1] === undefined || match[2] === undefined) return line;
  return /^["']?[A-Z][A-Z0-9_]*["']?\s*(#.*)?$/.test(match[2]) ? line : `${match[1]}[secret]`;
}
