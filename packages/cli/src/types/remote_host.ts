import type { Argv, CommandResult, RunOptions } from "@jiji/core/runtime";

/** Limits, input and listeners of a command whose output is shown while it runs. */
export interface RemoteStreamOptions {
  readonly signal?: AbortSignal;
  /** Written to its standard input, then closed. */
  readonly stdin?: Uint8Array | string;
  /** The command is given up after this long, milliseconds. */
  readonly timeoutMs: number;
  /** Pieces of standard output as they come; not cut at line ends. */
  onStdout(text: string): void;
  /** Pieces of standard error as they come; not cut at line ends. */
  onStderr(text: string): void;
}

/** How a streamed command ended. */
export interface RemoteStreamResult {
  /** Exit code; undefined when a signal or the time limit ended it. */
  readonly exitCode: number | undefined;
}

/** What to write on the server: bytes, or a file of this machine. */
export type UploadContent = Uint8Array | { readonly path: string };

/** Mode, limit and progress of an upload. */
export interface UploadOptions {
  /** Permission bits of the file, e.g. `0o600`. */
  readonly mode: number;
  /** The upload is given up after this long, milliseconds. */
  readonly timeoutMs: number;
  /** Bytes sent so far. */
  onProgress?(bytes: number): void;
}

/** A server that we hold a connection to. */
export interface RemoteHost {
  /** The server's name in the configuration. */
  readonly name: string;
  /** `user@host:port`, for messages. */
  readonly address: string;
  /**
   * Runs a command to its end. The argument list is quoted once, here; a non-zero exit is a value.
   * Users other than root run it through `sudo -n`.
   *
   * @throws {ConnectionError} phase `lost` when the connection goes away.
   */
  run(argv: Argv, options: RunOptions): Promise<CommandResult>;
  /**
   * Runs a command and hands on its output while it runs.
   *
   * @throws {ConnectionError} phase `lost` when the connection goes away.
   */
  stream(argv: Argv, options: RemoteStreamOptions): Promise<RemoteStreamResult>;
  /**
   * Writes a file whole or not at all: to a temporary name beside it, with its mode, then renamed.
   *
   * @throws {ConnectionError} phase `lost` when the connection goes away.
   */
  upload(content: UploadContent, remotePath: string, options: UploadOptions): Promise<void>;
  /**
   * Makes 127.0.0.1:`remotePort` of the server lead to 127.0.0.1:`localPort` of this machine until
   * it is disposed.
   */
  reverseForward(remotePort: number, localPort: number): Promise<AsyncDisposable>;
  /** Closes the connection. */
  dispose(): Promise<void>;
}
