import { SCHEMA_SQL } from "../src/corrosion/schema.ts";
import { Secret } from "../src/runtime/secret.ts";
import type { CorrosionAddress } from "../src/corrosion/api.ts";

type SQLInputValue = string | number | null;

/** The part of `node:sqlite` that the fake uses. */
interface Sqlite {
  readonly DatabaseSync: new (path: string) => SqliteDatabase;
}

interface SqliteDatabase {
  exec(sql: string): void;
  prepare(sql: string): {
    run(...params: SQLInputValue[]): { readonly changes: number | bigint };
    all(...params: SQLInputValue[]): Record<string, unknown>[];
  };
  close(): void;
}

/**
 * Imported by a variable name: @types/ssh2 brings types of Node 18, which hide this module of later
 * versions from the type checker wherever both are in one program.
 */
const SQLITE_MODULE: string = "node:sqlite";
const sqlite: Sqlite = await import(SQLITE_MODULE);

interface Change {
  readonly id: number;
  readonly line: string;
}

interface Subscription {
  readonly queryId: string;
  readonly sql: string;
  rows: Map<string, { readonly rowId: number; readonly cells: readonly unknown[] }>;
  lastRowId: number;
  changes: Change[];
  readonly readers: Set<ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>>;
}

/** Token of every {@link FakeCorrosion}. */
export const FAKE_TOKEN = "fake-token";

/**
 * Corrosion as one server sees it: the real HTTP routes over a real SQLite database, with
 * subscriptions that tell of changes at once. Faults are asked for by name.
 */
export class FakeCorrosion implements AsyncDisposable {
  readonly #db = new sqlite.DatabaseSync(":memory:");
  readonly #subscriptions = new Map<string, Subscription>();
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  #answersOther = false;

  /** Starts on a free port of the loopback interface. */
  constructor() {
    this.#db.exec(SCHEMA_SQL);
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      (request) => this.#handle(request),
    );
  }

  /** Where it answers, with its token. */
  get address(): CorrosionAddress {
    return { url: `http://127.0.0.1:${this.#server.addr.port}`, token: new Secret(FAKE_TOKEN) };
  }

  /** Ends every stream, as a restart of Corrosion does. Positions stay valid. */
  cutStreams(): void {
    for (const { readers } of this.#subscriptions.values()) {
      for (const reader of readers) reader.close();
      readers.clear();
    }
  }

  /** Forgets all subscriptions, as after the loss of their files: resuming is refused. */
  forgetSubscriptions(): void {
    this.cutStreams();
    this.#subscriptions.clear();
  }

  /** The next stream that resumes is told of another query's id. */
  answerWithOtherQuery(): void {
    this.#answersOther = true;
  }

  /** Changes happen, but no stream is told of the next one: a gap. */
  loseChange(sql: string): void {
    this.#db.exec(sql);
    for (const subscription of this.#subscriptions.values()) this.#diff(subscription, false);
  }

  /** Runs SQL without telling any stream, now or later. */
  changeSilently(sql: string): void {
    this.#db.exec(sql);
  }

  /** Streams open now. */
  get openStreams(): number {
    return [...this.#subscriptions.values()].reduce((sum, one) => sum + one.readers.size, 0);
  }

  /** Stops the server. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.cutStreams();
    await this.#server.shutdown();
    this.#db.close();
  }

  async #handle(request: Request): Promise<Response> {
    const body = await request.text();
    if (request.headers.get("authorization") !== `Bearer ${FAKE_TOKEN}`) {
      return new Response(null, { status: 401 });
    }
    const url = new URL(request.url);
    const resumed = /^\/v1\/subscriptions\/([0-9a-f-]+)$/.exec(url.pathname)?.[1];
    if (request.method === "GET" && resumed !== undefined) {
      return this.#resume(resumed, Number(url.searchParams.get("from")));
    }
    if (request.headers.get("content-type") !== "application/json") {
      return new Response("expected application/json", { status: 415 });
    }
    const json: unknown = JSON.parse(body);
    switch (url.pathname) {
      case "/v1/transactions":
        return this.#transaction(json as [string, SQLInputValue[]][]);
      case "/v1/queries":
        return this.#query(json as [string, SQLInputValue[]]);
      case "/v1/subscriptions":
        return this.#subscribe(json as [string, SQLInputValue[]]);
      default:
        return new Response(null, { status: 404 });
    }
  }

  #transaction(statements: [string, SQLInputValue[]][]): Response {
    try {
      this.#db.exec("BEGIN");
      const results = statements.map(([sql, params]) => ({
        rows_affected: Number(this.#db.prepare(sql).run(...params).changes),
        time: 0,
      }));
      this.#db.exec("COMMIT");
      for (const subscription of this.#subscriptions.values()) this.#diff(subscription, true);
      return Response.json({ results, time: 0, version: 1 });
    } catch (error) {
      this.#db.exec("ROLLBACK");
      const message = error instanceof Error ? error.message : String(error);
      return Response.json({ results: [{ error: message }], time: 0 }, { status: 500 });
    }
  }

  #query([sql, params]: [string, SQLInputValue[]]): Response {
    try {
      const rows = this.#cells(sql, params);
      const lines = [
        { columns: Object.keys(this.#db.prepare(sql).all(...params)[0] ?? {}) },
        ...rows.map((cells, index) => ({ row: [index + 1, cells] })),
        { eoq: { time: 0 } },
      ];
      return new Response(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      return Response.json({ error: message }, { status: 400 });
    }
  }

  #resume(id: string, from: number): Response {
    const found = [...this.#subscriptions.values()].find(({ queryId }) => queryId === id);
    if (!found) {
      const error = `could not find subscription with id ${id}`;
      return Response.json({ error }, { status: 404 });
    }
    this.#diff(found, true);
    const queryId = this.#answersOther ? crypto.randomUUID() : id;
    this.#answersOther = false;
    return new Response(this.#stream(found, from), { headers: { "corro-query-id": queryId } });
  }

  #subscribe([sql, params]: [string, SQLInputValue[]]): Response {
    let subscription = this.#subscriptions.get(sql);
    if (!subscription) {
      subscription = {
        queryId: crypto.randomUUID(),
        sql,
        rows: new Map(),
        lastRowId: 0,
        changes: [],
        readers: new Set(),
      };
      for (const cells of this.#cells(sql, params)) {
        const rowId = ++subscription.lastRowId;
        subscription.rows.set(String(cells[0]), { rowId, cells });
      }
      this.#subscriptions.set(sql, subscription);
    }
    this.#diff(subscription, true);
    const stream = this.#stream(subscription, undefined);
    return new Response(stream, { headers: { "corro-query-id": subscription.queryId } });
  }

  #stream(
    subscription: Subscription,
    from: number | undefined,
  ): ReadableStream<Uint8Array<ArrayBuffer>> {
    let own: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;
    return new ReadableStream({
      start(controller) {
        own = controller;
        const send = (line: unknown) => controller.enqueue(encodeLine(JSON.stringify(line)));
        if (from === undefined) {
          send({ columns: [] });
          for (const { rowId, cells } of subscription.rows.values()) send({ row: [rowId, cells] });
          send({ eoq: { time: 0, change_id: subscription.changes.at(-1)?.id ?? 0 } });
        } else {
          for (const change of subscription.changes) {
            if (change.id > from) controller.enqueue(encodeLine(change.line));
          }
        }
        subscription.readers.add(controller);
      },
      cancel() {
        subscription.readers.delete(own);
      },
    });
  }

  /** Compares a subscription's rows with the table and tells its readers. */
  #diff(subscription: Subscription, tell: boolean): void {
    const now = new Map(
      this.#cells(subscription.sql, []).map((cells) => [String(cells[0]), cells]),
    );
    for (const [key, { rowId, cells }] of [...subscription.rows]) {
      if (now.has(key)) continue;
      subscription.rows.delete(key);
      this.#change(subscription, { change: ["delete", rowId, cells], tell });
    }
    for (const [key, cells] of now) {
      const known = subscription.rows.get(key);
      if (known && JSON.stringify(known.cells) === JSON.stringify(cells)) continue;
      const rowId = known?.rowId ?? ++subscription.lastRowId;
      subscription.rows.set(key, { rowId, cells });
      this.#change(subscription, { change: [known ? "update" : "insert", rowId, cells], tell });
    }
  }

  #change(
    subscription: Subscription,
    o: { readonly change: readonly unknown[]; readonly tell: boolean },
  ): void {
    const id = (subscription.changes.at(-1)?.id ?? 0) + 1;
    const line = JSON.stringify({ change: [...o.change, id] });
    subscription.changes.push({ id, line });
    if (o.tell) { for (const reader of subscription.readers) reader.enqueue(encodeLine(line)); }
  }

  #cells(sql: string, params: SQLInputValue[]): unknown[][] {
    return this.#db.prepare(sql).all(...params).map((row) => Object.values(row));
  }
}

function encodeLine(line: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${line}\n`);
}
