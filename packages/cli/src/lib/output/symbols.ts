/** Marks with stand-ins for locales that lack them; colour never carries meaning alone. */
export interface Symbols {
  readonly ok: string;
  readonly fail: string;
  readonly warn: string;
  readonly dot: string;
  readonly wait: string;
}

const UNICODE: Symbols = { ok: "✓", fail: "✖", warn: "!", dot: "·", wait: "…" };
const ASCII: Symbols = { ok: "ok", fail: "x", warn: "!", dot: "-", wait: "..." };

/** Unicode marks where the locale says UTF-8. */
export function symbolsFor(env: Readonly<Record<string, string | undefined>>): Symbols {
  const locale = env["LC_ALL"] || env["LC_CTYPE"] || env["LANG"] || "";
  return /utf-?8/i.test(locale) || locale === "" ? UNICODE : ASCII;
}

/** `950 ms`, `3.0 s`, `1 min 12 s`. */
export function renderDuration(durationMs: number): string {
  if (Math.round(durationMs) < 1_000) return `${Math.round(durationMs)} ms`;
  if (Math.round(durationMs / 100) < 600) return `${(durationMs / 1_000).toFixed(1)} s`;
  const seconds = Math.round(durationMs / 1_000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** Control characters but line break and tab: from a server they could rewrite the screen. */
// deno-lint-ignore no-control-regex
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;

/** Text of servers and programs without what a terminal would obey. */
export function visible(text: string): string {
  return text.replaceAll("\r\n", "\n").replace(CONTROL, "");
}
