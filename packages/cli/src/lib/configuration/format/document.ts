import {
  type Document,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  type YAMLError,
} from "yaml";
import type { ConfigIssue } from "../config_issue.ts";
import { ConfigError, renderIssues } from "../config_issue.ts";
import { type ConfigPath, renderPath } from "./config_path.ts";

/** A stretch of the file. */
export interface Span {
  /** 1-based. */
  readonly line: number;
  /** 1-based, in characters. */
  readonly column: number;
  /** Characters, at least 1, not beyond the end of the line. */
  readonly length: number;
}

/** Whether to point at a key or at its value. */
export type Pointer = "key" | "value";

/** Larger files are not configurations. */
const TEXT_LENGTH_MAX = 4 * 1024 * 1024;

/** A parsed YAML file that still knows where everything was written. */
export class ConfigDocument {
  /** Path of the file as shown to the user. */
  readonly file: string;
  /** The whole text. */
  readonly text: string;
  /** Plain data of the file. */
  readonly value: unknown;
  readonly #document: Document.Parsed;
  readonly #lines: LineCounter;

  private constructor(file: string, text: string, document: Document.Parsed, lines: LineCounter) {
    this.file = file;
    this.text = text;
    this.#document = document;
    this.#lines = lines;
    this.value = document.toJS({ maxAliasCount: 100 });
  }

  /**
   * Parses YAML 1.2.
   *
   * @throws {ConfigError} with every syntax error; also when the file is empty or not a map.
   */
  static parse(file: string, text: string): ConfigDocument {
    const lines = new LineCounter();
    if (text.length > TEXT_LENGTH_MAX) throw new ConfigError(`${file} is larger than 4 MiB`);
    const document = parseDocument(text, {
      lineCounter: lines,
      prettyErrors: false,
      strict: true,
      uniqueKeys: true,
    });
    if (document.errors.length > 0) {
      throw problems(file, text, document.errors.map((error) => syntaxIssue(file, error, lines)));
    }
    if (!isMap(document.contents)) {
      throw problems(file, text, [{
        file,
        line: 1,
        column: 1,
        path: "",
        message: document.contents === null ? "the file is empty" : "the file is not a map of keys",
        fix: "write a configuration such as `jiji init` makes",
      }]);
    }
    try {
      return new ConfigDocument(file, text, document, lines);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      throw problems(file, text, [{ file, line: 1, column: 1, path: "", message }]);
    }
  }

  /** The plain value at a path; undefined when there is none. */
  at(path: ConfigPath): unknown {
    let value = this.value;
    for (const part of path) {
      if (typeof value !== "object" || value === null || !Object.hasOwn(value, part)) {
        return undefined;
      }
      value = (value as Record<string | number, unknown>)[part];
    }
    return value;
  }

  /** A scalar exactly as written (numbers keep their zeros); undefined for anything else. */
  sourceAt(path: ConfigPath): string | undefined {
    const node = this.#document.getIn(path, true);
    return isScalar(node) ? node.source : undefined;
  }

  /** Where a value is written. What is missing is sought at the nearest thing above it. */
  span(path: ConfigPath, pointer: Pointer = "value"): Span {
    let node: unknown = this.#document.contents;
    let key: Node | undefined;
    let complete = true;
    for (const part of path) {
      const next = step(node, part);
      if (next === undefined) {
        complete = false;
        break;
      }
      key = next.key ?? (isSeq(node) ? undefined : key);
      node = next.value;
    }
    const wantsKey = pointer === "key" || !complete || isMap(node) || isSeq(node);
    const target = wantsKey && key !== undefined ? key : (node as Node | null) ?? key;
    return this.#spanOf(target?.range?.[0] ?? 0, target?.range?.[1] ?? 1);
  }

  /** `file:line:column` of a path. */
  positionOf(path: ConfigPath): string {
    const { line, column } = this.span(path);
    return `${this.file}:${line}:${column}`;
  }

  /** A problem at a path. */
  issue(
    path: ConfigPath,
    message: string,
    options: { readonly fix?: string | undefined; readonly pointer?: Pointer } = {},
  ): ConfigIssue {
    const { line, column } = this.span(path, options.pointer);
    return {
      file: this.file,
      line,
      column,
      path: renderPath(path),
      message,
      ...(options.fix === undefined ? {} : { fix: options.fix }),
    };
  }

  #spanOf(start: number, end: number): Span {
    const { line, col } = this.#lines.linePos(start);
    const lineEnd = this.text.indexOf("\n", start);
    const stop = Math.min(end, lineEnd < 0 ? this.text.length : lineEnd);
    return { line: Math.max(line, 1), column: Math.max(col, 1), length: Math.max(stop - start, 1) };
  }
}

function step(node: unknown, part: string | number): { key?: Node; value: unknown } | undefined {
  if (isMap(node)) {
    const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === part);
    return pair === undefined ? undefined : { key: pair.key as Node, value: pair.value };
  }
  if (!isSeq(node) || typeof part !== "number" || node.items.length <= part) return undefined;
  return { value: node.items[part] };
}

function syntaxIssue(file: string, error: YAMLError, lines: LineCounter): ConfigIssue {
  const { line, col } = lines.linePos(error.pos[0]);
  const message = error.code === "DUPLICATE_KEY"
    ? "this key is written twice in the same map"
    : error.code === "TAB_AS_INDENT"
    ? "a tab is used to indent; YAML takes spaces only"
    : `not valid YAML: ${error.message.split("\n")[0]}`;
  return { file, line, column: col, path: "", message };
}

function problems(file: string, text: string, issues: readonly ConfigIssue[]): ConfigError {
  return new ConfigError(renderIssues(file, text, issues), { issues });
}
