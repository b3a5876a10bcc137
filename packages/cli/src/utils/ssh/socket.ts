import { spawn } from "node:child_process";
import { connect } from "node:net";
import { Duplex } from "node:stream";
import {
  backoffMs,
  type Clock,
  ConnectionError,
  type ConnectionPhase,
  systemRandom,
} from "@jiji/core/runtime";
import type { ServerConnection } from "../../types/server_connection.ts";

/** Tries of a connection that was refused or a name that could not be looked up just now. */
const TRIES_MAX = 3;
const BACKOFF = { firstMs: 250, maxMs: 2_000, jitterMs: 100 };

/** What is needed to open a socket. */
export interface SocketOptions {
  readonly clock: Clock;
  /** Closes what was opened. */
  readonly signal: AbortSignal;
}

/**
 * A byte stream to a server's SSH port: TCP, or the standard streams of `proxy_command`. Refused
 * connections and names that are unknown for the moment are tried again.
 *
 * @throws {ConnectionError} phase `dns` or `tcp`.
 */
export async function openSocket(
  server: ServerConnection,
  options: SocketOptions,
): Promise<Duplex> {
  const { proxyCommand } = server.ssh;
  if (proxyCommand !== undefined) return openCommand(server, proxyCommand, options.signal);
  for (let attempt = 1;; attempt++) {
    try {
      return await openTcp(server, options.signal);
    } catch (error) {
      const code = (error as { code?: string }).code ?? "";
      options.signal.throwIfAborted();
      if (attempt === TRIES_MAX || !["EAI_AGAIN", "ECONNREFUSED", "ECONNRESET"].includes(code)) {
        throw socketError(server, error, attempt);
      }
      await options.clock.sleep(backoffMs(BACKOFF, attempt, systemRandom), {
        signal: options.signal,
      });
    }
  }
}

function openTcp(server: ServerConnection, signal: AbortSignal): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: server.host, port: server.ssh.port, noDelay: true });
    const onAbort = () => socket.destroy();
    signal.addEventListener("abort", onAbort, { once: true });
    socket.once("error", (error) => {
      signal.removeEventListener("abort", onAbort);
      socket.destroy();
      reject(error);
    });
    socket.once("connect", () => {
      socket.removeAllListeners("error");
      signal.removeEventListener("abort", onAbort);
      resolve(socket);
    });
    socket.once("close", () => reject(signal.reason ?? new Error("the socket was closed")));
  });
}

/** Source: ssh_config(5), section TOKENS. */
function openCommand(server: ServerConnection, command: string, signal: AbortSignal): Duplex {
  const tokens: Readonly<Record<string, string>> = {
    "%h": server.host,
    "%p": String(server.ssh.port),
    "%r": server.ssh.user,
    "%%": "%",
  };
  const line = command.replace(/%[hpr%]/g, (token) => tokens[token] ?? token);
  const child = spawn("/bin/sh", ["-c", `exec ${line}`], { stdio: ["pipe", "pipe", "ignore"] });
  const stream = Duplex.from({ writable: child.stdin, readable: child.stdout });
  const stop = () => child.kill("SIGTERM");
  signal.addEventListener("abort", stop, { once: true });
  stream.once("close", stop);
  child.once("error", (error) => stream.destroy(error));
  return stream;
}

/** The failure in words, with what to look at. */
function socketError(server: ServerConnection, error: unknown, tries: number): ConnectionError {
  const { code = "", message } = error as { code?: string; message: string };
  const at = `${server.host}:${server.ssh.port}`;
  const again = tries > 1 ? ` (${tries} tries)` : "";
  const [phase, what, hint] = describe(code, message, at);
  return new ConnectionError(`${server.name} can't be reached: ${what}${again}`, {
    host: at,
    phase,
    hint,
    cause: error,
  });
}

function describe(
  code: string,
  message: string,
  at: string,
): [phase: ConnectionPhase, what: string, hint: string] {
  if (code === "ENOTFOUND" || code === "EAI_AGAIN" || code === "EAI_NODATA") {
    return ["dns", `the name of ${at} is not known`, "check `host` of the server, and your DNS"];
  }
  if (code === "ECONNREFUSED") {
    return ["tcp", `${at} refused the connection`, "check that sshd runs there, on this port"];
  }
  if (code === "EHOSTUNREACH" || code === "ENETUNREACH") {
    return ["tcp", `there is no route to ${at}`, "check the address and your network"];
  }
  return ["tcp", `${at}: ${message}`, "check the address, the port and firewalls between"];
}

/** A limit on a piece of work. */
export interface DeadlineOptions {
  readonly clock: Clock;
  readonly timeoutMs: number;
  /** Made when the time is over. */
  onTimeout(): Error;
}

/**
 * Gives the work its time, then rejects with `onTimeout()` and aborts the signal the work was
 * given, so that it can close what it opened.
 */
export async function withDeadline<T>(
  work: (signal: AbortSignal) => Promise<T>,
  options: DeadlineOptions,
): Promise<T> {
  const finished = new AbortController();
  const late = new AbortController();
  const timer = options.clock.sleep(options.timeoutMs, { signal: finished.signal }).then(() => {
    const error = options.onTimeout();
    late.abort(error);
    throw error;
  });
  timer.catch(() => undefined);
  const running = work(late.signal);
  running.catch(() => undefined);
  try {
    return await Promise.race([running, timer]);
  } finally {
    finished.abort();
  }
}
