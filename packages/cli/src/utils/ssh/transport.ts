import { createReadStream } from "node:fs";
import pLimit from "p-limit";
import type { Client, ClientChannel } from "ssh2";
import {
  type Argv,
  backoffMs,
  type Clock,
  type CommandResult,
  ConnectionError,
  OUTPUT_BYTES_MAX,
  RemoteCommandError,
  type RunOptions,
  systemRandom,
} from "@jiji/core/runtime";
import type {
  RemoteHost,
  RemoteStreamOptions,
  RemoteStreamResult,
  UploadContent,
  UploadOptions,
} from "../../types/remote_host.ts";
import { ReverseForwards } from "./forward.ts";
import { argvReceiveFile, argvSudo, renderCommandLine } from "./quote.ts";

/** sshd's MaxSessions default is 10; two stay free for the operator. Source: sshd_config(5). */
export const SSH_CHANNELS_MAX = 8;

/**
 * A session may be refused although one has just ended: sshd counts it until it has reaped the
 * process. Seen with 30 commands at once; it was free again within milliseconds.
 */
const OPEN_TRIES_MAX = 8;
const OPEN_BACKOFF = { firstMs: 10, maxMs: 500, jitterMs: 10 };

/** A file is read and sent in pieces of this size: larger ones are not faster. */
const UPLOAD_PIECE_BYTES = 256 * 1024;

/** How a connection ends in good order at most this late, milliseconds. */
const CLOSE_TIMEOUT_MS = 2_000;

/** What a host is made of. */
export interface SshHostOptions {
  readonly name: string;
  /** `user@host:port`. */
  readonly address: string;
  readonly clock: Clock;
  /** Commands run through `sudo -n`. */
  readonly sudo: boolean;
  /** Called once when the connection is gone. */
  onClose?(): void;
}

/** How a command on a channel is run. */
interface ChannelWork {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  feed(channel: ClientChannel): void;
  onStdout(bytes: Uint8Array): void;
  onStderr(bytes: Uint8Array): void;
}

interface ChannelEnd {
  readonly exitCode: number | undefined;
  readonly signal: string | undefined;
}

/** The server opened no session for a command. */
class SessionRefused {
  readonly error: Error;

  constructor(error: Error) {
    this.error = error;
  }
}

/** A server over one SSH connection. */
export class SshHost implements RemoteHost {
  readonly name: string;
  readonly address: string;
  readonly #client: Client;
  readonly #options: SshHostOptions;
  readonly #limit = pLimit(SSH_CHANNELS_MAX);
  readonly #forwards: ReverseForwards;
  readonly #onLost = new Set<(error: ConnectionError) => void>();
  #lost: ConnectionError | undefined;
  #lastError: Error | undefined;
  #disposing = false;

  /** @param client logged in. */
  constructor(client: Client, options: SshHostOptions) {
    this.name = options.name;
    this.address = options.address;
    this.#client = client;
    this.#options = options;
    this.#forwards = new ReverseForwards(client, options.name);
    client.on("error", (error) => this.#lastError = error);
    client.once("close", () => this.#lose());
  }

  /** Whether the connection is gone. */
  get isLost(): boolean {
    return this.#lost !== undefined;
  }

  /** See {@link RemoteHost.run}. Output over {@link OUTPUT_BYTES_MAX} is cut. */
  async run(argv: Argv, options: RunOptions): Promise<CommandResult> {
    const startedMs = this.#options.clock.monotonicMs();
    const stdout = new OutputBuffer();
    const stderr = new OutputBuffer();
    const end = await this.#execute(argv, {
      timeoutMs: options.timeoutMs,
      signal: options.signal,
      feed: (channel) => channel.end(options.stdin ?? ""),
      onStdout: (bytes) => stdout.add(bytes),
      onStderr: (bytes) => stderr.add(bytes),
    });
    return {
      ...end,
      stdout: stdout.text(),
      stderr: stderr.text(),
      durationMs: this.#options.clock.monotonicMs() - startedMs,
    };
  }

  /** See {@link RemoteHost.stream}. */
  async stream(argv: Argv, options: RemoteStreamOptions): Promise<RemoteStreamResult> {
    const decoders = [new TextDecoder(), new TextDecoder()] as const;
    const end = await this.#execute(argv, {
      timeoutMs: options.timeoutMs,
      signal: options.signal,
      feed: (channel) => channel.end(options.stdin ?? ""),
      onStdout: (bytes) => options.onStdout(decoders[0].decode(bytes, { stream: true })),
      onStderr: (bytes) => options.onStderr(decoders[1].decode(bytes, { stream: true })),
    });
    return { exitCode: end.exitCode };
  }

  /**
   * See {@link RemoteHost.upload}. The bytes go into a command's standard input rather than through
   * SFTP: it needs no SFTP server, works through sudo, and costs one round trip.
   *
   * @throws {RemoteCommandError} when the server can't write the file.
   */
  async upload(content: UploadContent, remotePath: string, options: UploadOptions): Promise<void> {
    const bytes = content instanceof Uint8Array
      ? content.length
      : (await Deno.stat(content.path)).size;
    const startedMs = this.#options.clock.monotonicMs();
    const argv = argvReceiveFile(remotePath, { mode: options.mode, bytes });
    const stderr = new OutputBuffer();
    let readError: Error | undefined;
    const end = await this.#execute(argv, {
      timeoutMs: options.timeoutMs,
      feed: (channel) =>
        sendContent(content, channel, {
          onProgress: options.onProgress,
          onError: (error) => readError = error,
        }),
      onStdout: () => undefined,
      onStderr: (piece) => stderr.add(piece),
    });
    if (readError !== undefined) throw readError;
    if (end.exitCode === 0) return;
    throw new RemoteCommandError(`writing ${remotePath} on ${this.name} failed`, {
      host: this.address,
      argv: ["upload", remotePath],
      exitCode: end.exitCode,
      ...(end.signal === undefined ? {} : { signal: end.signal }),
      stderrTail: stderr.text(),
      durationMs: this.#options.clock.monotonicMs() - startedMs,
    });
  }

  /** See {@link RemoteHost.reverseForward}. */
  reverseForward(remotePort: number, localPort: number): Promise<AsyncDisposable> {
    if (this.#lost !== undefined) return Promise.reject(this.#lost);
    return this.#forwards.open(remotePort, localPort);
  }

  /** Closes the connection; commands under way are given up. */
  async dispose(): Promise<void> {
    if (this.#lost !== undefined) return;
    this.#disposing = true;
    this.#forwards.closeAll();
    const stopWaiting = new AbortController();
    const closed = new Promise<void>((resolve) => this.#onLost.add(() => resolve()));
    this.#client.end();
    const limit = this.#options.clock.sleep(CLOSE_TIMEOUT_MS, { signal: stopWaiting.signal })
      .then(() => this.#client.destroy(), () => undefined);
    await Promise.race([closed, limit]);
    stopWaiting.abort();
    await limit;
  }

  #execute(argv: Argv, work: ChannelWork): Promise<ChannelEnd> {
    const command = renderCommandLine(this.#options.sudo ? argvSudo(argv) : argv);
    return this.#limit(async () => {
      for (let attempt = 1;; attempt++) {
        const end = await this.#onChannel(command, work);
        if (!(end instanceof SessionRefused)) return end;
        if (attempt === OPEN_TRIES_MAX) throw this.#refusedError(end);
        await this.#options.clock.sleep(
          backoffMs(OPEN_BACKOFF, attempt, systemRandom),
          work.signal === undefined ? {} : { signal: work.signal },
        );
      }
    });
  }

  /** A refused session is a value: nothing has run, so that it may be tried again. */
  #onChannel(command: string, work: ChannelWork): Promise<ChannelEnd | SessionRefused> {
    return new Promise((resolve, reject) => {
      if (this.#lost !== undefined) return reject(this.#lost);
      if (work.signal?.aborted) return reject(work.signal.reason);
      let channel: ClientChannel | undefined;
      const timer = new AbortController();
      const settle = (act: () => void) => {
        timer.abort();
        this.#onLost.delete(onLost);
        work.signal?.removeEventListener("abort", onAbort);
        channel?.close();
        act();
      };
      const onLost = (error: ConnectionError) => settle(() => reject(error));
      const onAbort = () => settle(() => reject(work.signal?.reason));
      this.#onLost.add(onLost);
      work.signal?.addEventListener("abort", onAbort, { once: true });
      this.#options.clock.sleep(work.timeoutMs, { signal: timer.signal }).then(
        () => settle(() => resolve({ exitCode: undefined, signal: undefined })),
        () => undefined,
      );
      this.#exec(command, (error, opened) => {
        if (error !== undefined) {
          const refused = /open failed|administratively prohibited/i.test(error.message);
          return settle(() =>
            refused ? resolve(new SessionRefused(error)) : reject(this.#lostError(error))
          );
        }
        if (timer.signal.aborted) return opened.close();
        channel = opened;
        watch(
          opened,
          work,
          (end) => settle(() => end === undefined ? reject(this.#lostError()) : resolve(end)),
        );
      });
    });
  }

  #exec(
    command: string,
    opened: (...outcome: [Error, undefined] | [undefined, ClientChannel]) => void,
  ): void {
    try {
      this.#client.exec(
        command,
        (error, channel) => error ? opened(error, undefined) : opened(undefined, channel),
      );
    } catch (error) {
      opened(error instanceof Error ? error : new Error(String(error)), undefined);
    }
  }

  #refusedError({ error }: SessionRefused): ConnectionError {
    return new ConnectionError(
      `${this.name} (${this.address}) opened no session: ${error.message}`,
      {
        host: this.address,
        phase: "lost",
        hint: "sshd there allows too few sessions: MaxSessions in sshd_config, 10 is its default",
        cause: error,
      },
    );
  }

  #lose(): void {
    this.#lost = this.#lostError();
    this.#forwards.closeAll();
    for (const listener of [...this.#onLost]) listener(this.#lost);
    this.#onLost.clear();
    this.#options.onClose?.();
  }

  #lostError(cause: Error | undefined = this.#lastError): ConnectionError {
    if (this.#lost !== undefined) return this.#lost;
    const why = this.#disposing
      ? "it was closed"
      : cause === undefined || /not connected|no response/i.test(cause.message)
      ? "the server closed it"
      : cause.message;
    return new ConnectionError(
      `${this.name} (${this.address}): the SSH connection was lost: ${why}`,
      {
        host: this.address,
        phase: "lost",
        hint: "run the command again; it goes on where this one stopped",
        ...(cause === undefined ? {} : { cause }),
      },
    );
  }
}

/** Hands on output and tells the end; `undefined` when the channel closed without exit status. */
function watch(
  channel: ClientChannel,
  work: ChannelWork,
  ended: (end: ChannelEnd | undefined) => void,
): void {
  let end: ChannelEnd | undefined;
  channel.on("data", (bytes: Uint8Array) => work.onStdout(bytes));
  channel.stderr.on("data", (bytes: Uint8Array) => work.onStderr(bytes));
  channel.on("exit", (code: number | null, signal?: string) => {
    end = code === null
      ? { exitCode: undefined, signal: signal ?? "SIGKILL" }
      : { exitCode: code, signal: undefined };
  });
  channel.on("error", () => undefined);
  channel.once("close", () => ended(end));
  work.feed(channel);
}

interface SendOptions {
  readonly onProgress: ((bytes: number) => void) | undefined;
  onError(error: Error): void;
}

function sendContent(content: UploadContent, channel: ClientChannel, options: SendOptions): void {
  let sent = 0;
  const source = content instanceof Uint8Array
    ? piecesOf(content)
    : createReadStream(content.path, { highWaterMark: UPLOAD_PIECE_BYTES });
  const pump = async () => {
    for await (const piece of source) {
      if (channel.destroyed || !channel.writable) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      const free = channel.write(piece);
      if (!free) {
        channel.once("drain", resolve);
        channel.once("close", resolve);
        await promise;
        channel.off("drain", resolve);
        channel.off("close", resolve);
      }
      sent += (piece as Uint8Array).length;
      options.onProgress?.(sent);
    }
    channel.end();
  };
  pump().catch((error) => {
    options.onError(error instanceof Error ? error : new Error(String(error)));
    channel.close();
  });
}

function* piecesOf(content: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < content.length; at += UPLOAD_PIECE_BYTES) {
    yield content.subarray(at, at + UPLOAD_PIECE_BYTES);
  }
}

/** Collects output up to a limit. */
class OutputBuffer {
  readonly #pieces: Uint8Array[] = [];
  #bytes = 0;

  add(piece: Uint8Array): void {
    const room = OUTPUT_BYTES_MAX - this.#bytes;
    if (room <= 0) return;
    this.#pieces.push(piece.subarray(0, room));
    this.#bytes += Math.min(piece.length, room);
  }

  text(): string {
    const decoder = new TextDecoder();
    const parts = this.#pieces.map((piece) => decoder.decode(piece, { stream: true }));
    return parts.join("") + decoder.decode();
  }
}
