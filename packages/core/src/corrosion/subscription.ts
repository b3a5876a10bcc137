import * as v from "valibot";
import { type CorrosionAddress, CorrosionError, corrosionGet, corrosionPost } from "./api.ts";
import { ndjson, OVERLONG } from "./ndjson.ts";
import type { Statement } from "./statements.ts";

/** What a subscription tells: `opened`, all rows, then `ready`, then each change as it happens. */
export type SubscriptionEvent =
  /** Accepted. The id is Corrosion's name for the query; change ids mean nothing under another. */
  | { readonly kind: "opened"; readonly queryId: string }
  /** A row or change that is too long to be one of ours. */
  | { readonly kind: "overlong" }
  | { readonly kind: "row"; readonly rowId: number; readonly cells: readonly unknown[] }
  | { readonly kind: "ready"; readonly changeId: number }
  | {
    readonly kind: "change";
    readonly type: "insert" | "update" | "delete";
    readonly rowId: number;
    /** New cells; the old ones for a delete. */
    readonly cells: readonly unknown[];
    readonly changeId: number;
  };

/** Where to begin. */
export interface SubscriptionOptions {
  readonly signal: AbortSignal;
  /** Where an earlier stream ended: only later changes are told then; all rows first when absent. */
  readonly resume?: StreamPosition;
}

/** A place in the changes of a query. */
export interface StreamPosition {
  /** Corrosion's name for the query. */
  readonly queryId: string;
  readonly changeId: number;
}

const Line = v.union([
  v.object({ columns: v.array(v.string()) }),
  v.object({ row: v.tuple([v.number(), v.array(v.unknown())]) }),
  v.object({ eoq: v.looseObject({ change_id: v.optional(v.nullable(v.number())) }) }),
  v.object({
    change: v.tuple([
      v.picklist(["insert", "update", "delete"]),
      v.number(),
      v.array(v.unknown()),
      v.number(),
    ]),
  }),
  v.object({ error: v.string() }),
]);

/**
 * One long-lived stream of a query's rows and changes. It ends by throwing or when Corrosion closes
 * it; reconnecting, with back-off, is the caller's part. Change ids are contiguous per query, so a
 * jump means something was missed: this is reported as an error, and the caller starts anew.
 *
 * @throws {CorrosionError} when refused, cut, malformed, or after a gap.
 */
export async function* subscribe(
  address: CorrosionAddress,
  statement: Statement,
  options: SubscriptionOptions,
): AsyncIterable<SubscriptionEvent> {
  const from = options.resume?.changeId;
  const response = await open(address, statement, options);
  if (!response.ok || !response.body) {
    const text = await response.text();
    throw new CorrosionError(
      `corrosion refused a subscription: ${text.slice(0, 200)}`,
      { status: response.status },
    );
  }
  yield { kind: "opened", queryId: response.headers.get("corro-query-id") ?? "" };
  let lastChangeId = from;
  for await (const line of ndjson(response.body)) {
    const event = parseLine(line);
    if (!event) continue;
    if (event.kind === "ready") lastChangeId = event.changeId;
    if (event.kind === "change") {
      if (lastChangeId !== undefined && event.changeId > lastChangeId + 1) {
        throw new CorrosionError(`missed changes ${lastChangeId + 1} to ${event.changeId - 1}`);
      }
      lastChangeId = event.changeId;
    }
    yield event;
  }
}

/**
 * A resumed query is asked for by its id. Asking for it by its text would be answered as well, but a
 * Corrosion that has lost it then makes half a subscription and refuses the query until it is
 * restarted. Source: seen with klukai 0.0.8 ("found a subscription, but missing broadcaster").
 */
function open(
  address: CorrosionAddress,
  statement: Statement,
  { signal, resume }: SubscriptionOptions,
): Promise<Response> {
  const path = "/v1/subscriptions";
  if (!resume) return corrosionPost(address, { path, body: statement, signal });
  const id = encodeURIComponent(resume.queryId);
  return corrosionGet(address, { path: `${path}/${id}?from=${resume.changeId}`, signal });
}

function parseLine(line: unknown): SubscriptionEvent | undefined {
  if (line === OVERLONG) return { kind: "overlong" };
  const parsed = v.safeParse(Line, line);
  if (!parsed.success) throw new CorrosionError("corrosion sent a line of an unknown form");
  const event = parsed.output;
  if ("error" in event) throw new CorrosionError(`subscription failed: ${event.error}`);
  if ("row" in event) return { kind: "row", rowId: event.row[0], cells: event.row[1] };
  if ("eoq" in event) return { kind: "ready", changeId: event.eoq.change_id ?? 0 };
  if ("change" in event) {
    const [type, rowId, cells, changeId] = event.change;
    return { kind: "change", type, rowId, cells, changeId };
  }
  return undefined;
}
