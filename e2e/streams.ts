// deno-lint-ignore-file no-console -- a command line tool prints.
/**
 * Long requests to a server's proxy, all begun at once: answers that take long, uploads, event
 * streams and WebSockets. Prints a JSON line when each is under way and when it ended.
 *
 * Usage: deno run --allow-net e2e/streams.ts ADDRESS SECONDS COUNT
 */

/** What became of one of them. */
export interface StreamEvent {
  readonly kind: "slow" | "upload" | "events" | "websocket";
  readonly event: "begun" | "ended";
  /** Whether it got all that it was to get. */
  readonly ok?: boolean;
  /** Status, text or error, for people. */
  readonly detail?: string;
  /** Since all were begun, milliseconds. */
  readonly atMs: number;
}

const [address = "", secondsText = "10", countText = "3"] = Deno.args;
const seconds = Number(secondsText);
/** None may take longer than this beyond its own time, milliseconds. */
const SPARE_MS = 60_000;

const startedMs = performance.now();
const signal = AbortSignal.timeout(seconds * 1_000 + SPARE_MS);

function say(event: Omit<StreamEvent, "atMs">): void {
  const detail = event.detail?.replace(/\s+/g, " ").trim();
  const atMs = Math.round(performance.now() - startedMs);
  console.log(JSON.stringify({ ...event, ...(detail === undefined ? {} : { detail }), atMs }));
}

async function slow(): Promise<string> {
  const answer = fetch(`http://${address}/cgi-bin/slow?${seconds}`, { signal });
  say({ kind: "slow", event: "begun" });
  const response = await answer;
  const text = (await response.text()).trim();
  if (response.status !== 200 || !text.startsWith("slow done")) {
    throw new Error(`${response.status} ${text.slice(0, 60)}`);
  }
  return text;
}

/** A piece a second, so that it is under way all the time; with its length told in advance. */
async function upload(): Promise<string> {
  const piece = new Uint8Array(64 * 1024).fill(120);
  const connection = await Deno.connect({ hostname: address, port: 80 });
  const wanted = `got ${seconds * piece.length}`;
  try {
    const head = ["POST /cgi-bin/upload HTTP/1.1", `Host: ${address}`, "Connection: close"];
    const length = `Content-Length: ${seconds * piece.length}`;
    await writeAll(connection, new TextEncoder().encode([...head, length, "", ""].join("\r\n")));
    say({ kind: "upload", event: "begun" });
    for (let sent = 0; sent < seconds; sent++) {
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      await writeAll(connection, piece);
    }
    const text = await new Response(connection.readable).text();
    const said = text.split("\n").find((line) => line.startsWith(wanted));
    if (said === undefined) throw new Error(`${text.slice(0, 80)}, not ${wanted}`);
    return said.trim();
  } finally {
    try {
      connection.close();
    } catch {
      // Reading to its end has closed it.
    }
  }
}

async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
}

async function events(): Promise<string> {
  const response = await fetch(`http://${address}/cgi-bin/events?${seconds}`, { signal });
  let text = "";
  for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
    if (text === "") say({ kind: "events", event: "begun" });
    text += piece;
  }
  const count = text.split("data: ").length - 1;
  if (count !== seconds) throw new Error(`${response.status}, ${count} of ${seconds} events`);
  return `${count} events`;
}

/** Echoes a line twice a second until it is cut or its time is over. Source: RFC 6455 section 1.3. */
async function websocket(): Promise<string> {
  const connection = await Deno.connect({ hostname: address, port: 80 });
  const untilMs = performance.now() + seconds * 1_000;
  const encoder = new TextEncoder();
  const buffer = new Uint8Array(4_096);
  const exchange = async (text: string) => {
    await connection.write(encoder.encode(text));
    const count = await connection.read(buffer);
    if (count === null) throw new Error("the proxy closed the connection");
    return new TextDecoder().decode(buffer.subarray(0, count));
  };
  try {
    const head = ["GET / HTTP/1.1", "Host: ws.example.com", "Upgrade: websocket"];
    const more = ["Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: a2V5"];
    const answer = await exchange([...head, ...more, "", ""].join("\r\n"));
    if (!answer.startsWith("HTTP/1.1 101")) throw new Error(answer.split("\r\n")[0]);
    say({ kind: "websocket", event: "begun" });
    while (performance.now() < untilMs) {
      await exchange("hello\n");
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    return "open to the end";
  } finally {
    connection.close();
  }
}

const kinds = { slow, upload, events, websocket } as const;
await Promise.all(
  Object.entries(kinds).flatMap(([name, run]) =>
    Array.from({ length: Number(countText) }, async () => {
      const kind = name as StreamEvent["kind"];
      try {
        say({ kind, event: "ended", ok: true, detail: await run() });
      } catch (error) {
        const detail = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
        say({ kind, event: "ended", ok: false, detail });
      }
    })
  ),
);
Deno.exit(0);
