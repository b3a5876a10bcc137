import { assertNever } from "@jiji/core";
import type { ProgressEvent } from "./events.ts";
import { renderDuration, type Symbols } from "./symbols.ts";

/** What is going on in one lane. */
export interface Lane {
  readonly name: string;
  readonly startedAtMs: number;
  /** Finished steps, in order. */
  readonly finished: readonly string[];
  /** Step under way and when it began. */
  readonly current: { readonly title: string; readonly sinceMs: number } | undefined;
  readonly end: { readonly ok: boolean; readonly text: string; readonly atMs: number } | undefined;
}

/** All lanes in the order of their first event. */
export type Lanes = ReadonlyMap<string, Lane>;

/** The lanes after an event at `nowMs`. Pure, so that screens can be tested. */
export function reduceLanes(lanes: Lanes, event: ProgressEvent, nowMs: number): Lanes {
  const lane = lanes.get(event.lane) ?? {
    name: event.lane,
    startedAtMs: nowMs,
    finished: [],
    current: undefined,
    end: undefined,
  };
  return new Map(lanes).set(event.lane, applyEvent(lane, event, nowMs));
}

function applyEvent(lane: Lane, event: ProgressEvent, nowMs: number): Lane {
  switch (event.kind) {
    case "started":
      return { ...lane, current: { title: event.title, sinceMs: nowMs }, end: undefined };
    case "finished":
      return {
        ...lane,
        finished: [...lane.finished, event.detail ?? event.title],
        current: undefined,
      };
    case "failed":
      return {
        ...lane,
        current: undefined,
        end: { ok: false, text: `${event.title}: ${event.message}`, atMs: nowMs },
      };
    case "done":
      return { ...lane, current: undefined, end: { ok: true, text: event.summary, atMs: nowMs } };
    case "notice":
      return lane;
    default:
      return assertNever(event);
  }
}

/** How wide and with what a line is drawn. */
export interface LaneStyle {
  readonly symbols: Symbols;
  readonly columns: number;
  readonly nameWidth: number;
  readonly nowMs: number;
}

/** One line: name, what is done, what it waits for and since when. Cut to the terminal's width. */
export function renderLane(lane: Lane, style: LaneStyle): string {
  const { symbols } = style;
  const done = lane.finished.map((title) => `${symbols.ok} ${title}`);
  const tail = lane.end
    ? `${lane.end.ok ? symbols.ok : symbols.fail} ${lane.end.text}`
    : lane.current
    ? `${symbols.wait} ${lane.current.title}`
    : "";
  const clock = renderDuration((lane.end?.atMs ?? style.nowMs) - lane.startedAtMs);
  const head = `  ${lane.name.padEnd(style.nameWidth)}  `;
  const room = style.columns - head.length - clock.length - 3;
  // A finished lane collapses to its last word; a running one drops its oldest steps first.
  let parts = lane.end ? [tail] : [...done, tail].filter(Boolean);
  while (parts.length > 1 && parts.join("  ").length > room) parts = parts.slice(1);
  // What servers and engines print must neither move the cursor nor break the line.
  const body = parts.join("  ").replace(/\p{Cc}+/gu, " ");
  const kept = Math.max(room - symbols.wait.length, 0);
  const cut = body.length > room ? body.slice(0, kept) + symbols.wait : body;
  return `${head}${cut.padEnd(Math.max(room, 0))}  ${clock}`;
}
