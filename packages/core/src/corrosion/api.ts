import * as v from "valibot";
import { ndjson, OVERLONG } from "./ndjson.ts";
import type { Secret } from "../runtime/secret.ts";
import type { Statement } from "./statements.ts";

/** Where a server's own Corrosion answers. */
export interface CorrosionAddress {
  /** `http://127.0.0.1:31220`. */
  readonly url: string;
  readonly token: Secret;
}

/** Facts of a failed call to Corrosion. */
export interface CorrosionErrorFacts {
  /** HTTP status of a refusal. */
  readonly status?: number;
  /** The connection failed or ended; nothing is known of the state behind it. */
  readonly isCut?: boolean;
  readonly cause?: unknown;
}

/** A call to Corrosion that failed. */
export class CorrosionError extends Error {
  /** HTTP status, undefined when Corrosion did not answer or failed later. */
  readonly status: number | undefined;
  /** Whether the connection failed, as opposed to a refusal. */
  readonly isCut: boolean;

  /** @param message what was asked and what came back. */
  constructor(message: string, facts: CorrosionErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = "CorrosionError";
    this.status = facts.status;
    this.isCut = facts.isCut ?? false;
  }
}

/** Corrosion as a port: what daemon, dns and cli need of it. */
export interface CorrosionApi {
  /** Runs all statements in one transaction, or none. @throws {CorrosionError} */
  execute(statements: readonly Statement[]): Promise<void>;
  /** Rows of a read-only statement, cell by cell. @throws {CorrosionError} */
  query(statement: Statement): Promise<unknown[][]>;
}

/** A local transaction or query takes milliseconds; past this Corrosion counts as down. */
export const CORROSION_TIMEOUT_MS = 10_000;

const Results = v.object({
  results: v.array(v.looseObject({ error: v.optional(v.string()) })),
});
const QueryLine = v.union([
  v.object({ columns: v.array(v.string()) }),
  v.object({ row: v.tuple([v.number(), v.array(v.unknown())]) }),
  v.object({ eoq: v.unknown() }),
  v.object({ error: v.string() }),
]);

/**
 * The HTTP API of Corrosion. Source: superfly/corrosion 1.0 `doc/api`, and the crate klukai 0.1.4;
 * only what both have is used.
 */
export function corrosionHttpApi(address: CorrosionAddress): CorrosionApi {
  return {
    execute: (statements) => execute(address, statements),
    query: (statement) => query(address, statement),
  };
}

/** Sends a request with the token. @throws {CorrosionError} when there is no answer. */
export function corrosionPost(
  address: CorrosionAddress,
  request: { readonly path: string; readonly body: unknown; readonly signal: AbortSignal },
): Promise<Response> {
  const body = JSON.stringify(request.body);
  const headers = { "content-type": "application/json" };
  return send(address, request.path, { method: "POST", headers, body, signal: request.signal });
}

/** Asks for a path with the token. @throws {CorrosionError} when there is no answer. */
export function corrosionGet(
  address: CorrosionAddress,
  request: { readonly path: string; readonly signal: AbortSignal },
): Promise<Response> {
  return send(address, request.path, { method: "GET", headers: {}, signal: request.signal });
}

async function send(
  address: CorrosionAddress,
  path: string,
  init: RequestInit & { readonly headers: Record<string, string> },
): Promise<Response> {
  const authorization = `Bearer ${address.token.reveal()}`;
  try {
    return await fetch(`${address.url}${path}`, {
      ...init,
      headers: { ...init.headers, authorization },
    });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new CorrosionError(`corrosion does not answer: ${reason}`, { isCut: true, cause });
  }
}

async function execute(
  address: CorrosionAddress,
  statements: readonly Statement[],
): Promise<void> {
  if (statements.length === 0) return;
  const signal = AbortSignal.timeout(CORROSION_TIMEOUT_MS);
  const response = await corrosionPost(address, {
    path: "/v1/transactions",
    body: statements,
    signal,
  });
  const text = await response.text();
  const parsed = v.safeParse(Results, safeJson(text));
  const error = parsed.success
    ? parsed.output.results.find((result) => result.error)?.error
    : undefined;
  if (response.ok && parsed.success && error === undefined) return;
  throw new CorrosionError(
    `corrosion refused a transaction: ${error ?? (text.slice(0, 200) || response.statusText)}`,
    { status: response.status },
  );
}

async function query(address: CorrosionAddress, statement: Statement): Promise<unknown[][]> {
  return (await queryTable(address, statement)).rows;
}

/** A query's result with its head. */
export interface QueryTable {
  readonly columns: string[];
  readonly rows: unknown[][];
  /** More rows there were than asked for. */
  readonly cut: boolean;
}

/**
 * Rows of a read-only statement with the names of its columns, at most `rowsMax`.
 *
 * @throws {CorrosionError} when it is refused or fails.
 */
export async function queryTable(
  address: CorrosionAddress,
  statement: Statement,
  o: { readonly rowsMax?: number; readonly timeoutMs?: number } = {},
): Promise<QueryTable> {
  const signal = AbortSignal.timeout(o.timeoutMs ?? CORROSION_TIMEOUT_MS);
  const response = await corrosionPost(address, { path: "/v1/queries", body: statement, signal });
  if (!response.ok || !response.body) {
    const text = await response.text();
    throw new CorrosionError(
      `corrosion refused a query: ${text.slice(0, 200) || response.statusText}`,
      { status: response.status },
    );
  }
  const rows: unknown[][] = [];
  let columns: string[] = [];
  for await (const line of ndjson(response.body)) {
    if (line === OVERLONG) continue;
    const parsed = v.safeParse(QueryLine, line);
    if (!parsed.success) throw new CorrosionError("corrosion answered in an unknown form");
    const event = parsed.output;
    if ("error" in event) throw new CorrosionError(`corrosion query failed: ${event.error}`);
    if ("columns" in event) columns = event.columns;
    if ("row" in event && rows.length === o.rowsMax) return { columns, rows, cut: true };
    if ("row" in event) rows.push(event.row[1]);
    if ("eoq" in event) return { columns, rows, cut: false };
  }
  throw new CorrosionError("corrosion query ended before its last row");
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
