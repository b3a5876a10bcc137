import { type Clock, JijiError, messageOf, redact, type Secret } from "@jiji/core";
import type { ProgressEvent } from "./events.ts";
import { type Lanes, reduceLanes, renderLane } from "./lanes.ts";
import { renderDuration, type Symbols, symbolsFor, visible } from "./symbols.ts";

/** A terminal, a pipe or a file. */
export interface TextSink {
  write(text: string): void;
  readonly isTerminal: boolean;
  readonly columns: number;
}

/** How a command speaks. */
export interface OutputOptions {
  readonly stdout: TextSink;
  readonly stderr: TextSink;
  readonly json: boolean;
  readonly quiet: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
}

/**
 * Where commands put what they have to say: results on stdout, progress and problems on stderr. On
 * a terminal a lane is one live line; elsewhere an event is one timestamped line; with `--json` an
 * event is one object a line.
 */
export class Output {
  readonly #options: OutputOptions;
  readonly symbols: Symbols;
  readonly #live: boolean;
  readonly #color: boolean;
  #lanes: Lanes = new Map();
  #drawnLines = 0;
  #timer: ReturnType<typeof setInterval> | undefined;
  #secrets: () => Iterable<Secret> = () => [];

  /** Nothing is written before the first call. */
  constructor(options: OutputOptions) {
    this.#options = options;
    this.symbols = symbolsFor(options.env);
    const plain = options.json || options.env["CI"] || options.env["TERM"] === "dumb";
    this.#live = options.stderr.isTerminal && !plain;
    this.#color = this.#live && !options.env["NO_COLOR"];
  }

  /** Whether results are to be JSON. */
  get json(): boolean {
    return this.#options.json;
  }

  /** From now on the values of these secrets are shown as `[secret]`, wherever they turn up. */
  hide(secrets: () => Iterable<Secret>): void {
    this.#secrets = secrets;
  }

  #stdout(text: string): void {
    this.#options.stdout.write(redact(text, this.#secrets()));
  }

  #stderr(text: string): void {
    this.#options.stderr.write(redact(text, this.#secrets()));
  }

  /** A line of the result. */
  line(text = ""): void {
    this.#clear();
    this.#stdout(`${text}\n`);
    this.#draw();
  }

  /** Output of a command that was run for the user, as it came. */
  raw(text: string): void {
    this.#stdout(text);
  }

  /** The same for what it wrote to its standard error. */
  rawError(text: string): void {
    this.#stderr(text);
  }

  /** The result as JSON, stable field names. */
  result(value: unknown): void {
    this.#stdout(`${JSON.stringify(value, null, 2)}\n`);
  }

  /** A line for the person watching, not part of the result. */
  note(text: string): void {
    if (this.#options.quiet) return;
    if (this.#options.json) return this.#object({ event: "note", message: text });
    this.#above(visible(text));
  }

  /** A line that matters even with `--quiet`. */
  warn(text: string): void {
    if (this.#options.json) return this.#object({ event: "warning", message: text });
    this.#above(`${this.#paint("33", this.symbols.warn)} ${visible(text)}`);
  }

  /** Shows progress. */
  emit(event: ProgressEvent): void {
    if (this.#options.json) return this.#object({ event: event.kind, ...event });
    if (event.kind === "notice") return this.note(`  ${event.lane}  ${event.message}`);
    // Hidden before a line is cut to the terminal's width, which could leave half a secret.
    const shown = this.#withoutSecrets(event);
    this.#lanes = reduceLanes(this.#lanes, shown, this.#options.clock.monotonicMs());
    if (this.#live) return this.#redraw();
    this.#plain(shown);
  }

  #withoutSecrets(event: ProgressEvent): ProgressEvent {
    const texts = Object.entries(event).map(([key, value]) => [
      key,
      typeof value === "string" ? redact(visible(value), this.#secrets()) : value,
    ]);
    return Object.fromEntries(texts) as ProgressEvent;
  }

  /** Ends the live lines: each is drawn a last time and stays. */
  settle(): void {
    if (this.#timer !== undefined) clearInterval(this.#timer);
    this.#timer = undefined;
    this.#clear();
    this.#draw();
    this.#drawnLines = 0;
    this.#lanes = new Map();
  }

  /** A failure in its four parts: what and where, evidence, what serves now, the way on. */
  failure(error: unknown): void {
    this.settle();
    if (this.#options.json) {
      return this.#object({
        event: "error",
        code: error instanceof JijiError ? error.code : "bug",
        message: messageOf(error),
        ...(error instanceof JijiError
          ? { hint: error.hint, serving: error.serving, exit_code: error.exitCode }
          : {}),
      });
    }
    const write = (text: string) => this.#stderr(`${text}\n`);
    const [head = "", ...rest] = visible(messageOf(error)).split("\n");
    write(`${this.#paint("31", this.symbols.fail)} ${head}`);
    rest.forEach((line) => write(line));
    if (!(error instanceof JijiError)) return;
    if (error.serving) write(label("Now serving", visible(error.serving)));
    if (error.hint) write(label("Way on", visible(error.hint)));
  }

  /** The closing line of a success. */
  success(text: string): void {
    this.settle();
    if (this.#options.json) return this.#object({ event: "success", message: text });
    this.#stdout(`${this.#paint("32", this.symbols.ok)} ${text}\n`);
  }

  #object(value: unknown): void {
    this.#stderr(`${JSON.stringify(value)}\n`);
  }

  #plain(event: ProgressEvent): void {
    if (this.#options.quiet || event.kind === "started" || event.kind === "notice") return;
    const time = new Date(this.#options.clock.nowMs()).toISOString().slice(11, 19);
    const text = event.kind === "failed"
      ? `${this.symbols.fail} ${event.title}: ${event.message}`
      : event.kind === "done"
      ? `${this.symbols.ok} ${event.summary}  ${renderDuration(event.durationMs)}`
      : `${event.detail ?? event.title}  ${renderDuration(event.durationMs)}`;
    this.#stderr(`${time}  ${event.lane}  ${text}\n`);
  }

  #above(text: string): void {
    this.#clear();
    this.#stderr(`${text}\n`);
    this.#draw();
  }

  #redraw(): void {
    this.#clear();
    this.#draw();
    if (this.#live && this.#lanes.size > 0 && this.#timer === undefined) {
      this.#timer = setInterval(() => this.#redraw(), 100);
      Deno.unrefTimer(this.#timer as unknown as number);
    }
  }

  #clear(): void {
    if (this.#drawnLines > 0) this.#stderr(`\x1b[${this.#drawnLines}A\x1b[J`);
    this.#drawnLines = 0;
  }

  #draw(): void {
    if (!this.#live || this.#options.quiet) return;
    const { stderr, clock } = this.#options;
    const nameWidth = Math.max(0, ...[...this.#lanes.keys()].map((name) => name.length));
    for (const lane of this.#lanes.values()) {
      const style = {
        symbols: this.symbols,
        columns: stderr.columns,
        nameWidth,
        nowMs: clock.monotonicMs(),
      };
      this.#stderr(`${renderLane(lane, style)}\n`);
      this.#drawnLines++;
    }
  }

  #paint(code: string, text: string): string {
    return this.#color ? `\x1b[${code}m${text}\x1b[0m` : text;
  }
}

function label(name: string, text: string): string {
  return `  ${name.padEnd(12)}  ${text.split("\n").join(`\n${" ".repeat(16)}`)}`;
}
