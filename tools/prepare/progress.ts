/** Progress of the preparation: a live line for each thing under way, or plain timestamped lines. */

/** What happens to a thing. */
export type PrepareEvent =
  | { readonly kind: "started"; readonly name: string; readonly title: string }
  | { readonly kind: "detail"; readonly name: string; readonly detail: string }
  | { readonly kind: "finished"; readonly name: string; readonly ms: number }
  | { readonly kind: "failed"; readonly name: string; readonly ms: number };

interface RunningThing {
  readonly name: string;
  readonly title: string;
  readonly sinceMs: number;
  readonly detail: string;
}

/** Width of the name column. */
const NAME_WIDTH = 20;

/** A duration as people read it: `0.4 s`, `41 s`, `4 min 31 s`. */
export function renderDuration(ms: number): string {
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return seconds < 120 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** One line for a thing under way, cut to the width of the terminal. */
export function renderRunning(
  thing: { readonly name: string; readonly title: string; readonly detail: string },
  options: { readonly elapsedMs: number; readonly columns: number },
): string {
  const detail = thing.detail ? ` · ${thing.detail}` : "";
  const tail = ` … ${renderDuration(options.elapsedMs)}`;
  const head = `  ${thing.name.padEnd(NAME_WIDTH)}${thing.title}${detail}`;
  return head.slice(0, Math.max(20, options.columns - tail.length - 1)) + tail;
}

/** One line for a thing that is done or failed. */
export function renderEnded(
  thing: { readonly name: string; readonly title: string },
  options: { readonly ms: number; readonly failed: boolean },
): string {
  const mark = options.failed ? "✖" : "✔";
  const time = renderDuration(options.ms);
  return `${mark} ${thing.name.padEnd(NAME_WIDTH)}${thing.title}  ${time}`;
}

/** Text of the clock for plain lines: `01:52:07`. */
export function renderClock(epochMs: number): string {
  return new Date(epochMs).toISOString().slice(11, 19);
}

/** How often a plain log repeats what is still under way. */
const PLAIN_REPEAT_MS = 30_000;
/** How often the live lines are drawn again. */
const LIVE_REPEAT_MS = 500;

/** Shows events on standard error until it is closed. */
export class ProgressDisplay implements Disposable {
  readonly #running = new Map<string, RunningThing>();
  readonly #live: boolean;
  readonly #timer: ReturnType<typeof setInterval>;
  #linesDrawn = 0;

  /** Picks live lines on a terminal, plain lines elsewhere. */
  constructor(options: { readonly live: boolean }) {
    this.#live = options.live;
    const everyMs = options.live ? LIVE_REPEAT_MS : PLAIN_REPEAT_MS;
    this.#timer = setInterval(() => this.#repeat(), everyMs);
  }

  /** Takes one event. */
  emit(event: PrepareEvent): void {
    const nowMs = Date.now();
    if (event.kind === "started") {
      const { name, title } = event;
      this.#running.set(name, { name, title, sinceMs: nowMs, detail: "" });
      if (!this.#live) this.#plain(`  ${name.padEnd(NAME_WIDTH)}${title} …`);
    } else if (event.kind === "detail") {
      const thing = this.#running.get(event.name);
      if (thing) this.#running.set(event.name, { ...thing, detail: event.detail });
    } else {
      const thing = this.#running.get(event.name) ?? { name: event.name, title: "" };
      this.#running.delete(event.name);
      const line = renderEnded(thing, { ms: event.ms, failed: event.kind === "failed" });
      if (this.#live) this.#draw(line);
      else this.#plain(line);
    }
    if (this.#live) this.#draw();
  }

  /** Shows a line that is not about one thing. */
  note(line: string): void {
    if (this.#live) this.#draw(line);
    else this.#plain(line);
  }

  /** Takes the live lines away and stops drawing. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#running.clear();
    if (this.#live) this.#draw();
  }

  #repeat(): void {
    if (this.#live) return this.#draw();
    const nowMs = Date.now();
    for (const thing of this.#running.values()) {
      const elapsedMs = nowMs - thing.sinceMs;
      this.#plain(renderRunning(thing, { elapsedMs, columns: 160 }));
    }
  }

  #plain(line: string): void {
    writeError(`${renderClock(Date.now())} ${line}\n`);
  }

  #draw(above?: string): void {
    const columns = terminalColumns();
    const nowMs = Date.now();
    const lines = [...this.#running.values()].map((thing) =>
      renderRunning(thing, { elapsedMs: nowMs - thing.sinceMs, columns })
    );
    const up = this.#linesDrawn > 0 ? `\x1b[${this.#linesDrawn}A` : "";
    const text = [...(above === undefined ? [] : [above]), ...lines];
    writeError(`${up}\r\x1b[J${text.map((line) => `${line}\n`).join("")}`);
    this.#linesDrawn = lines.length;
  }
}

/** Writes text to standard error; nothing is lost when it is a slow pipe. */
export function writeError(text: string): void {
  writeAll(Deno.stderr, text);
}

/** Writes text to standard output. */
export function writeOut(text: string): void {
  writeAll(Deno.stdout, text);
}

function writeAll(sink: { writeSync(bytes: Uint8Array): number }, text: string): void {
  let bytes = new TextEncoder().encode(text);
  while (bytes.length > 0) bytes = bytes.subarray(sink.writeSync(bytes));
}

function terminalColumns(): number {
  try {
    return Deno.consoleSize().columns;
  } catch {
    return 100;
  }
}
