import type { Duplex } from "node:stream";
import { join } from "node:path";
import pLimit from "p-limit";
import type { Client } from "ssh2";
import {
  type Clock,
  ConnectionError,
  InvariantError,
  type Logger,
  messageOf,
  type Process,
  systemClock,
  systemProcess,
} from "@jiji/core/runtime";
import type { RemoteHost } from "../types/remote_host.ts";
import type { ServerConnection } from "../types/server_connection.ts";
import { parseJumps, readSshConfig, withSshConfig } from "./ssh/config.ts";
import { addressOf, describeServer, login } from "./ssh/connect.ts";
import { openSocket, withDeadline } from "./ssh/socket.ts";
import { SshHost } from "./ssh/transport.ts";

/** How the pool connects. */
export interface SSHConnectionPoolOptions {
  /** Logins under way at once; default 30. */
  readonly maxConcurrentStarts?: number;
  /** Default `~/.ssh/known_hosts`. */
  readonly knownHostsPath?: string;
  /** Read only; default `/etc/ssh/ssh_known_hosts`. */
  readonly globalKnownHostsPath?: string;
  /** Default: the environment of this process. HOME and SSH_AUTH_SOCK are read. */
  readonly env?: Readonly<Record<string, string>>;
  readonly clock?: Clock;
  /** Runs `ssh -G`. */
  readonly process?: Process;
  /** Pause between two questions to a silent server, milliseconds; default 15,000. */
  readonly keepaliveIntervalMs?: number;
  /** Told once for each host key that was recorded. */
  onNotice?(text: string): void;
}

/** Outcome of one item of {@link SSHConnectionPool.executeConcurrent}, in the order given. */
export type Outcome<Item, Result> =
  | { readonly ok: true; readonly item: Item; readonly value: Result }
  | { readonly ok: false; readonly item: Item; readonly error: unknown };

/** Limit of asking sudo whether it wants a password. */
const SUDO_TIMEOUT_MS = 20_000;

/** One connection a server, made when it is first asked for and closed with the pool. */
export class SSHConnectionPool implements AsyncDisposable {
  readonly #servers: ReadonlyMap<string, ServerConnection>;
  readonly #options: SSHConnectionPoolOptions;
  readonly #clock: Clock;
  readonly #env: Readonly<Record<string, string>>;
  readonly #limit: ReturnType<typeof pLimit>;
  readonly #hosts = new Map<string, Promise<SshHost>>();
  readonly #jumpClients = new Set<Client>();

  /** @param servers that may be asked for. */
  constructor(servers: Iterable<ServerConnection>, options: SSHConnectionPoolOptions = {}) {
    this.#servers = new Map([...servers].map((server) => [server.name, server]));
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#env = options.env ?? Deno.env.toObject();
    this.#limit = pLimit(options.maxConcurrentStarts ?? 30);
  }

  /**
   * The connection to a server: made at the first call, kept, made anew after it was lost.
   *
   * @throws {ConnectionError} saying which phase failed, what was tried and what to do.
   */
  connect(name: string): Promise<RemoteHost> {
    const server = this.#servers.get(name);
    if (server === undefined) throw new InvariantError(`${name} is not a server of this pool`);
    const kept = this.#hosts.get(name);
    if (kept !== undefined) return kept;
    const opening = this.#limit(() => this.#open(server));
    this.#hosts.set(name, opening);
    opening.catch(() => this.#forget(name, opening));
    return opening;
  }

  /** Does the work for every item, as many at once as logins are allowed; failures are values. */
  executeConcurrent<Item, Result>(
    items: Iterable<Item>,
    work: (item: Item) => Promise<Result>,
  ): Promise<Outcome<Item, Result>[]> {
    const limit = pLimit(this.#options.maxConcurrentStarts ?? 30);
    return Promise.all([...items].map((item) =>
      limit(async (): Promise<Outcome<Item, Result>> => {
        try {
          return { ok: true, item, value: await work(item) };
        } catch (error) {
          return { ok: false, item, error };
        }
      })
    ));
  }

  /** Does a clean-up; a failure is logged, and the result says that it happened. */
  async executeBestEffort(
    what: string,
    work: () => Promise<unknown>,
    logger: Logger,
  ): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      logger.warn(`${what} failed, going on`, { error: messageOf(error) });
      return false;
    }
  }

  /** Closes every connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    const hosts = await Promise.allSettled(this.#hosts.values());
    await Promise.all(
      hosts.map((outcome) => outcome.status === "fulfilled" ? outcome.value.dispose() : undefined),
    );
    for (const client of this.#jumpClients) client.end();
    this.#jumpClients.clear();
    this.#hosts.clear();
  }

  #forget(name: string, connection: Promise<SshHost>): void {
    if (this.#hosts.get(name) === connection) this.#hosts.delete(name);
  }

  async #open(configured: ServerConnection): Promise<SshHost> {
    const server = await this.#withSshConfig(configured);
    const client = await this.#login(server);
    const host: SshHost = new SshHost(client, {
      name: server.name,
      address: addressOf(server),
      clock: this.#clock,
      sudo: server.ssh.user !== "root",
      onClose: () => {
        const kept = this.#hosts.get(server.name);
        kept?.then((other) => other === host && this.#forget(server.name, kept), () => undefined);
      },
    });
    if (server.ssh.user !== "root") await this.#checkSudo(host, server);
    return host;
  }

  #withSshConfig(server: ServerConnection): Promise<ServerConnection> {
    if (server.ssh.sshConfigFiles.length === 0) return Promise.resolve(server);
    const home = this.#env["HOME"] ?? "";
    return readSshConfig(server, { process: this.#options.process ?? systemProcess, home })
      .then((settings) => withSshConfig(server, settings));
  }

  #login(server: ServerConnection): Promise<Client> {
    return withDeadline((signal) =>
      login(server, () => this.#socket(server, signal), {
        clock: this.#clock,
        env: this.#env,
        knownHostsPath: this.#options.knownHostsPath ??
          join(this.#env["HOME"] ?? "/", ".ssh", "known_hosts"),
        globalKnownHostsPath: this.#options.globalKnownHostsPath ?? "/etc/ssh/ssh_known_hosts",
        ...(this.#options.keepaliveIntervalMs === undefined
          ? {}
          : { keepaliveIntervalMs: this.#options.keepaliveIntervalMs }),
        onNotice: (text) => this.#options.onNotice?.(text),
        signal,
      }), {
      clock: this.#clock,
      timeoutMs: server.ssh.connectTimeoutMs,
      onTimeout: () => timeoutError(server),
    });
  }

  /** Straight, or through the jump hosts, each with the server's own keys. */
  async #socket(server: ServerConnection, signal: AbortSignal): Promise<Duplex> {
    const { jump } = server.ssh;
    if (jump === undefined) return openSocket(server, { clock: this.#clock, signal });
    const via = parseJumps(server, jump);
    if (via === undefined) {
      throw new ConnectionError(`${server.name}: ${jump} is not a jump host`, {
        host: server.host,
        phase: "tcp",
        hint: "write [USER@]HOST[:PORT]",
      });
    }
    const client = await this.#login(via);
    this.#jumpClients.add(client);
    client.once("close", () => this.#jumpClients.delete(client));
    signal.addEventListener("abort", () => client.end(), { once: true });
    return await new Promise<Duplex>((resolve, reject) => {
      client.forwardOut("127.0.0.1", 0, server.host, server.ssh.port, (error, channel) => {
        if (error === undefined) {
          channel.once("close", () => client.end());
          resolve(channel);
          return;
        }
        client.end();
        reject(
          new ConnectionError(
            `${server.name} can't be reached through ${addressOf(via)}: ${error.message}`,
            { host: server.host, phase: "tcp", hint: "check that the jump host reaches it" },
          ),
        );
      });
    });
  }

  async #checkSudo(host: SshHost, server: ServerConnection): Promise<void> {
    const { user } = server.ssh;
    const result = await host.run(["true"], { timeoutMs: SUDO_TIMEOUT_MS });
    if (result.exitCode === 0) return;
    await host.dispose();
    const said = result.stderr.trim().split("\n").slice(-1)[0] ?? "";
    throw new ConnectionError(
      `${describeServer(server)}: ${user} can't use sudo without a password: ${said.slice(0, 200)}`,
      {
        host: server.host,
        phase: "auth",
        hint: `log in as root, or add \`${user} ALL=(ALL) NOPASSWD: ALL\` with visudo there`,
      },
    );
  }
}

function timeoutError(server: ServerConnection): ConnectionError {
  const seconds = server.ssh.connectTimeoutMs / 1_000;
  return new ConnectionError(
    `${server.name} can't be reached: ${addressOf(server)} did not answer in ${seconds} s`,
    {
      host: server.host,
      phase: "timeout",
      hint: "check the address, the port and firewalls between, or raise ssh.connect_timeout",
    },
  );
}
