/** Runs one health check of a container. */
import type { HealthCheck } from "@jiji/core/cluster";
import { isOk, messageOf, type Process } from "@jiji/core/runtime";
import { type CheckOutcome, type HttpAnswer, TELLING_HEADERS } from "../engine/container_health.ts";
import { argvExecShell, argvInspect, type Engine } from "../engine/argv.ts";
import { type ObservedContainer, parseInspected } from "../engine/containers.ts";

/** An image without HEALTHCHECK counts as healthy once it has run this long, milliseconds. */
export const RUNNING_HEALTHY_MS = 1_000;

/** Network access of checks, as a port. */
export interface CheckNetwork {
  /** Answer to a GET. @throws when there is none in time. */
  httpGet(request: HttpCheckRequest): Promise<HttpAnswer>;
  /** Opens and closes a connection. @throws when that fails or takes too long. */
  tcpConnect(address: CheckAddress): Promise<void>;
}

/** Where a check goes. */
export interface CheckAddress {
  readonly ip: string;
  readonly port: number;
  readonly timeoutMs: number;
}

/** A GET. */
export interface HttpCheckRequest extends CheckAddress {
  readonly path: string;
  /** Host header. */
  readonly host: string;
}

/** Ports of {@link runCheck}. */
export interface CheckPorts {
  readonly engine: Engine;
  readonly process: Process;
  readonly network: CheckNetwork;
  readonly nowMs: () => number;
}

/** How the check ended. Never throws: a check that cannot be made is a failed one. */
export async function runCheck(
  container: Pick<ObservedContainer, "id" | "ip">,
  check: HealthCheck,
  ports: CheckPorts,
): Promise<CheckOutcome> {
  try {
    return await runKind(container, check, ports);
  } catch (error) {
    return { ok: false, text: `${describeCheck(check)} → ${messageOf(error)}` };
  }
}

async function runKind(
  container: Pick<ObservedContainer, "id" | "ip">,
  check: HealthCheck,
  ports: CheckPorts,
): Promise<CheckOutcome> {
  const timeoutMs = check.timeout_ms;
  const name = describeCheck(check);
  if (check.kind === "http" || check.kind === "tcp") {
    const { ip } = container;
    if (ip === undefined) return { ok: false, text: "no address in network jiji" };
    if (check.kind === "tcp") {
      await ports.network.tcpConnect({ ip, port: check.port, timeoutMs });
      return { ok: true, text: `${name} → open` };
    }
    const { port, path } = check;
    const host = check.host ?? `${ip}:${port}`;
    const answer = await ports.network.httpGet({ ip, port, path, host, timeoutMs });
    const { status } = answer;
    return { ok: status >= 200 && status <= 299, text: `${name} → ${status}`, answer };
  }
  if (check.kind === "command") {
    const argv = argvExecShell(ports.engine, { id: container.id, command: check.command });
    const result = await ports.process.run(argv, { timeoutMs });
    const why = result.stderr.trim().split("\n").at(-1)?.slice(0, 200) ?? "";
    const end = result.exitCode === undefined ? `no end in ${timeoutMs} ms` : result.exitCode;
    return { ok: isOk(result), text: `${name} → ${end}${why && !isOk(result) ? `: ${why}` : ""}` };
  }
  const result = await ports.process.run(argvInspect(ports.engine, [container.id]), { timeoutMs });
  const seen = isOk(result) ? parseInspected(result.stdout)[0] : undefined;
  return judgeEngine(seen, ports.nowMs());
}

/** The engine's own verdict; without a HEALTHCHECK a container that stays up is healthy. */
export function judgeEngine(seen: ObservedContainer | undefined, nowMs: number): CheckOutcome {
  if (!seen) return { ok: false, text: "the engine does not know the container" };
  if (!seen.running) return { ok: false, text: `not running (exit ${seen.exitCode})` };
  if (seen.engineHealth !== "none") {
    return { ok: seen.engineHealth === "healthy", text: `HEALTHCHECK → ${seen.engineHealth}` };
  }
  const upMs = nowMs - seen.startedAtMs;
  return upMs >= RUNNING_HEALTHY_MS || upMs < 0
    ? { ok: true, text: "running" }
    : { ok: false, text: `running for ${upMs} ms` };
}

/** The check in a few words, e.g. `GET :3000/up`. */
export function describeCheck(check: HealthCheck): string {
  switch (check.kind) {
    case "http":
      return `GET :${check.port}${check.path}`;
    case "tcp":
      return `connect :${check.port}`;
    case "command":
      return `run ${check.command.slice(0, 80)}`;
    case "engine":
      return "engine";
  }
}

/** The real network. */
export const systemCheckNetwork: CheckNetwork = { httpGet, tcpConnect };

async function tcpConnect(address: CheckAddress): Promise<void> {
  await withConnection(address, () => Promise.resolve());
}

/**
 * A hand-written request, since `fetch` follows redirects, pools connections and sets the Host
 * header itself. A good status is enough; of any other answer the head is read too, as far as it
 * comes. Source: RFC 9112 sections 3 and 4.
 */
async function httpGet(request: HttpCheckRequest): Promise<HttpAnswer> {
  let text = "";
  try {
    await withConnection(request, async (connection) => {
      const bytes = new TextEncoder().encode(renderGet(request));
      for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
      const buffer = new Uint8Array(1_024);
      while (text.length < ANSWER_LENGTH_MAX && !/^HTTP\/1\.[01] 2\d\d/.test(text)) {
        const count = await connection.read(buffer);
        if (count === null) break;
        text += new TextDecoder("latin1").decode(buffer.subarray(0, count));
      }
    });
  } catch (error) {
    if (parseHttpAnswer(text) === undefined) throw error;
  }
  const answer = parseHttpAnswer(text);
  if (answer === undefined) throw new Error("no HTTP answer");
  return answer;
}

/** Octets of an answer that are read at most. */
const ANSWER_LENGTH_MAX = 8_192;
/** Characters of a body that are kept. */
const BODY_LENGTH_MAX = 300;

function renderGet(request: HttpCheckRequest): string {
  return [
    `GET ${request.path} HTTP/1.1`,
    `Host: ${request.host}`,
    "User-Agent: jiji-daemon",
    "Accept: */*",
    "Connection: close",
    "",
    "",
  ].join("\r\n");
}

/** The answer in what was read so far; undefined while there is no status line. */
export function parseHttpAnswer(text: string): HttpAnswer | undefined {
  const status = /^HTTP\/1\.[01] (\d{3})/.exec(text)?.[1];
  if (status === undefined) return undefined;
  const end = text.indexOf("\r\n\r\n");
  const head = end < 0 ? text : text.slice(0, end);
  const headers = head.split("\r\n").slice(1).flatMap((line): [string, string][] => {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).toLowerCase();
    return colon > 0 && TELLING_HEADERS.includes(name)
      ? [[name, line.slice(colon + 1).trim()]]
      : [];
  });
  return {
    status: Number(status),
    headers: Object.fromEntries(headers),
    body: end < 0 ? "" : text.slice(end + 4, end + 4 + BODY_LENGTH_MAX),
  };
}

async function withConnection<T>(
  address: CheckAddress,
  use: (connection: Deno.TcpConn) => Promise<T>,
): Promise<T> {
  let opened: Deno.TcpConn | undefined;
  let isLate = false;
  const close = () => {
    try {
      opened?.close();
    } catch {
      // Closed by a failed read.
    }
  };
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      isLate = true;
      reject(new Error(`no answer in ${address.timeoutMs} ms`));
    }, address.timeoutMs);
  });
  const work = (async () => {
    opened = await Deno.connect({ hostname: address.ip, port: address.port });
    if (isLate) close();
    return await use(opened);
  })();
  work.catch(() => undefined);
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
    close();
  }
}
