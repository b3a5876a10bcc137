import * as v from "valibot";
import { SERVER_NAME } from "../cluster/names.ts";
import { containerCells, type ContainerRow, parseContainerRow } from "./rows.ts";

/**
 * Changes of one server's container rows, told by its daemon as they are written: from daemon to
 * daemon over the mesh, and on each server from the daemon to jiji-dns. Corrosion carries the same
 * rows a second later and has the last word; news only make it sooner.
 */
export interface ContainerNews {
  /** The server whose containers these are. */
  readonly from: string;
  readonly rows: readonly ContainerRow[];
  /** Ids of containers whose rows are gone. */
  readonly gone: readonly string[];
}

/** No message of news is longer, octets: one packet on any mesh. */
export const NEWS_BYTES_MAX = 1_200;

/**
 * How long news hold against an older row that comes late, milliseconds; after it the row is
 * believed. Corrosion needs 0.3–1.2 s to bring a change (seen with klukai 0.1.4); a daemon whose
 * Corrosion is down tells its news again every 5 s.
 */
export const NEWS_HOLD_MS = 15_000;

/**
 * What a daemon tells its own server's jiji-dns when its liveness report says something new: a line
 * between the others. An older jiji-dns takes it for no news and looks at its own pace.
 */
export const LIVENESS_NEWS = '{"jiji":1,"look":"liveness"}';

const NewsSchema = v.object({
  jiji: v.literal(1),
  from: v.pipe(v.string(), v.regex(SERVER_NAME)),
  rows: v.array(v.array(v.unknown())),
  gone: v.array(v.pipe(v.string(), v.regex(/^[a-f0-9]{12,64}$/))),
});

/**
 * The news as texts of at most {@link NEWS_BYTES_MAX} octets without line breaks. A row that does
 * not fit into one is left to Corrosion.
 */
export function encodeNews(news: ContainerNews): string[] {
  const texts: string[] = [];
  let rows: unknown[][] = [];
  let gone: string[] = [];
  const render = (more: { rows?: unknown[][]; gone?: string[] } = {}) =>
    JSON.stringify({
      jiji: 1,
      from: news.from,
      rows: [...rows, ...more.rows ?? []],
      gone: [...gone, ...more.gone ?? []],
    });
  const fits = (text: string) => new TextEncoder().encode(text).length <= NEWS_BYTES_MAX;
  const flush = () => {
    if (rows.length + gone.length > 0) texts.push(render());
    rows = [];
    gone = [];
  };
  for (const id of news.gone) {
    if (!fits(render({ gone: [id] }))) flush();
    gone.push(id);
  }
  for (const row of news.rows) {
    const cells = containerCells(row);
    if (!fits(render({ rows: [cells] }))) flush();
    if (fits(render({ rows: [cells] }))) rows.push(cells);
  }
  flush();
  return texts;
}

/**
 * The news in `text`, or undefined when it is none. Rows that do not parse, or are of another server
 * than the one that tells, are left out.
 */
export function decodeNews(text: string): ContainerNews | undefined {
  if (text.length > NEWS_BYTES_MAX) return undefined;
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  const parsed = v.safeParse(NewsSchema, json);
  if (!parsed.success) return undefined;
  const { from, gone } = parsed.output;
  const rows = parsed.output.rows.flatMap((cells) => {
    const row = parseContainerRow(cells);
    return "refused" in row || row.serverId !== from ? [] : [row];
  });
  return { from, rows, gone };
}
