import type { Clock, Logger } from "@jiji/core/runtime";
import type { RemoteHost } from "../types/remote_host.ts";
import type { ServerConnection } from "../types/server_connection.ts";

/** How the pool connects. */
export interface SSHConnectionPoolOptions {
  /** Logins under way at once; default 30. */
  readonly maxConcurrentStarts?: number;
  /** Default `~/.ssh/known_hosts`. */
  readonly knownHostsPath?: string;
  /** Default: the environment of this process. HOME, SSH_AUTH_SOCK and PATH are read. */
  readonly env?: Readonly<Record<string, string>>;
  readonly clock?: Clock;
  /** Told once for each host key that was recorded. */
  onNotice?(text: string): void;
}

/** Outcome of one item of {@link SSHConnectionPool.executeConcurrent}, in the order given. */
export type Outcome<Item, Result> =
  | { readonly ok: true; readonly item: Item; readonly value: Result }
  | { readonly ok: false; readonly item: Item; readonly error: unknown };

/** One connection a server. */
export declare class SSHConnectionPool implements AsyncDisposable {
  constructor(servers: Iterable<ServerConnection>, options?: SSHConnectionPoolOptions);
  /** The connection to a server, made at the first call. */
  connect(server: string): Promise<RemoteHost>;
  executeConcurrent<Item, Result>(
    items: Iterable<Item>,
    work: (item: Item) => Promise<Result>,
  ): Promise<Outcome<Item, Result>[]>;
  /** Runs a clean-up; a failure is logged and not thrown. */
  executeBestEffort(what: string, work: () => Promise<unknown>, logger: Logger): Promise<boolean>;
  [Symbol.asyncDispose](): Promise<void>;
}
