import type { Duplex } from "node:stream";
import { Client, type ConnectConfig, type ServerHostKeyAlgorithm } from "ssh2";
import { type Clock, ConnectionError } from "@jiji/core/runtime";
import type { ServerConnection } from "../../types/server_connection.ts";
import {
  fingerprint,
  judgeHostKey,
  keyTypeOf,
  type KnownHost,
  knownHostName,
  readKnownHosts,
  recordedKeyTypes,
  recordHostKey,
} from "./known_hosts.ts";
import { type AuthPlan, planAuth } from "./auth.ts";

/** A silent connection is asked this often, milliseconds. */
const KEEPALIVE_INTERVAL_MS = 15_000;
/** After this many unanswered questions the connection counts as lost. */
const KEEPALIVE_MISSES_MAX = 3;

/** What a login needs of its surroundings. */
export interface LoginOptions {
  readonly clock: Clock;
  readonly env: Readonly<Record<string, string>>;
  /** Unknown keys are recorded here. */
  readonly knownHostsPath: string;
  /** Asked too, never written. */
  readonly globalKnownHostsPath: string;
  readonly keepaliveIntervalMs?: number;
  onNotice?(text: string): void;
  /** Closes what was opened. */
  readonly signal: AbortSignal;
}

/** Signature algorithms that prove a key of a type. Source: RFC 8332 section 3, RFC 5656. */
const ALGORITHMS: Readonly<Record<string, readonly ServerHostKeyAlgorithm[]>> = {
  "ssh-ed25519": ["ssh-ed25519"],
  "ecdsa-sha2-nistp256": ["ecdsa-sha2-nistp256"],
  "ecdsa-sha2-nistp384": ["ecdsa-sha2-nistp384"],
  "ecdsa-sha2-nistp521": ["ecdsa-sha2-nistp521"],
  "ssh-rsa": ["rsa-sha2-512", "rsa-sha2-256"],
};

/** Host key algorithms to offer: those of the recorded keys, or all when there are none. Pure. */
export function hostKeyAlgorithms(recordedTypes: readonly string[]): ServerHostKeyAlgorithm[] {
  const known = recordedTypes.flatMap((type) => ALGORITHMS[type] ?? []);
  return known.length > 0 ? known : Object.values(ALGORITHMS).flat();
}

/** How messages name a server: `s1 (root@203.0.113.11:22)`. */
export function describeServer(server: ServerConnection): string {
  return `${server.name} (${addressOf(server)})`;
}

/** `user@host:port`. */
export function addressOf(server: ServerConnection): string {
  const host = server.host.includes(":") ? `[${server.host}]` : server.host;
  return `${server.ssh.user}@${host}:${server.ssh.port}`;
}

/**
 * Reads the keys, opens a byte stream, verifies the host key over it and logs in. The stream comes
 * last, so that the server's greeting never waits for our files.
 *
 * @throws {ConnectionError} phase `dns`, `tcp`, `hostkey` or `auth`.
 */
export async function login(
  server: ServerConnection,
  openStream: () => Promise<Duplex>,
  options: LoginOptions,
): Promise<Client> {
  const files = [options.knownHostsPath, options.globalKnownHostsPath];
  const [auth, known] = await Promise.all([
    planAuth(server, options.env),
    readKnownHosts(files),
  ]);
  const socket = await openStream();
  const client = new Client();
  const verifier = new HostKeyVerifier(server, known, options);
  const config: ConnectConfig = {
    sock: socket,
    username: server.ssh.user,
    authHandler: [...auth.methods],
    readyTimeout: 0,
    keepaliveInterval: options.keepaliveIntervalMs ?? KEEPALIVE_INTERVAL_MS,
    keepaliveCountMax: KEEPALIVE_MISSES_MAX,
    algorithms: {
      serverHostKey: hostKeyAlgorithms(
        recordedKeyTypes(known, { host: server.host, port: server.ssh.port }),
      ),
    },
    hostVerifier: (key: Uint8Array) => verifier.verify(key),
  };
  await ready(client, config, {
    signal: options.signal,
    explain: (error) => verifier.error ?? loginError(server, auth, error),
  });
  client.setNoDelay(true);
  return client;
}

interface ReadyOptions {
  readonly signal: AbortSignal;
  explain(error: SshError): ConnectionError;
}

/** Errors of ssh2 say which part of it failed. */
type SshError = Error & { level?: string };

function ready(client: Client, config: ConnectConfig, options: ReadyOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => fail(options.signal.reason);
    const fail = (reason: unknown) => {
      options.signal.removeEventListener("abort", onAbort);
      client.destroy();
      reject(reason);
    };
    options.signal.addEventListener("abort", onAbort, { once: true });
    client.on("error", (error: SshError) => {
      // An agent that does not answer: the next method is tried by itself.
      if (error.level !== "agent") fail(options.explain(error));
    });
    client.once(
      "close",
      () => fail(options.explain(new Error("the server closed the connection"))),
    );
    client.once("ready", () => {
      options.signal.removeEventListener("abort", onAbort);
      client.removeAllListeners("close");
      resolve();
    });
    client.connect(config);
  });
}

/**
 * Judges the presented key before any login is tried; keeps the reason of a refusal. Synchronous,
 * recording included: with a verdict that comes later, ssh2 1.17 sometimes never sends its NEWKEYS
 * (the verdict may arrive inside its own `finish`, which then ends twice and sends nothing).
 */
class HostKeyVerifier {
  /** Why the key was refused. */
  error: ConnectionError | undefined;
  readonly #server: ServerConnection;
  readonly #known: readonly KnownHost[];
  readonly #options: LoginOptions;

  constructor(server: ServerConnection, known: readonly KnownHost[], options: LoginOptions) {
    this.#server = server;
    this.#known = known;
    this.#options = options;
  }

  verify(blob: Uint8Array): boolean {
    const { host, ssh: { port } } = this.#server;
    const verdict = judgeHostKey(this.#known, { host, port, blob });
    if (verdict.kind === "known") return true;
    if (verdict.kind !== "unknown") {
      this.error = keyError(this.#server, verdict.entry, {
        revoked: verdict.kind === "revoked",
        blob,
      });
      return false;
    }
    try {
      recordHostKey(this.#options.knownHostsPath, { host, port, blob });
    } catch (error) {
      this.error = new ConnectionError(
        `${describeServer(this.#server)}: its host key can't be recorded in ` +
          `${this.#options.knownHostsPath}: ${(error as Error).message}`,
        { host, phase: "hostkey", hint: "make the file writable for you", cause: error },
      );
      return false;
    }
    this.#options.onNotice?.(
      `${this.#server.name}: host key of ${knownHostName(host, port)} recorded: ` +
        `${fingerprint(blob)} (${keyTypeOf(blob)})`,
    );
    return true;
  }
}

function keyError(
  server: ServerConnection,
  entry: KnownHost,
  options: { readonly revoked: boolean; readonly blob: Uint8Array },
): ConnectionError {
  const { host, ssh: { port } } = server;
  const place = `${entry.file}:${entry.line}`;
  const now = `${fingerprint(options.blob)} (${keyTypeOf(options.blob)})`;
  const message = options.revoked
    ? `${describeServer(server)} presents a revoked host key: ${now}, revoked in ${place}`
    : `${describeServer(server)}: the host key has changed: recorded ` +
      `${fingerprint(entry.key)} (${entry.keyType}) in ${place}, now ${now}`;
  return new ConnectionError(message, {
    host,
    phase: "hostkey",
    hint: options.revoked
      ? "give the server a new host key; do not log in to it before"
      : "someone may be reading along. If you know that the server was reinstalled, forget the " +
        `old key: ssh-keygen -R '${knownHostName(host, port)}' -f ${entry.file}`,
    serving: "Nothing was done on any server.",
  });
}

function loginError(server: ServerConnection, auth: AuthPlan, error: SshError): ConnectionError {
  const who = describeServer(server);
  if (error.level === "client-authentication" || /authentication fail/i.test(error.message)) {
    const unusable = auth.unusable.length > 0 ? `; not usable: ${auth.unusable.join("; ")}` : "";
    return new ConnectionError(
      `${who} refused the login; tried ${auth.tried.join(", ")}${unusable}`,
      {
        host: server.host,
        phase: "auth",
        hint: `put a public key into ~/.ssh/authorized_keys of ${server.ssh.user} there, ` +
          "or name another with ssh.key_path",
        cause: error,
      },
    );
  }
  if (/no matching host key/i.test(error.message)) {
    return new ConnectionError(
      `${who}: the server no longer has a host key of the type that is recorded for it`,
      {
        host: server.host,
        phase: "hostkey",
        hint: "if you know that it was reinstalled, forget the old key: " +
          `ssh-keygen -R '${knownHostName(server.host, server.ssh.port)}'`,
        serving: "Nothing was done on any server.",
        cause: error,
      },
    );
  }
  return new ConnectionError(`${who}: no SSH connection: ${error.message}`, {
    host: server.host,
    phase: "tcp",
    hint: "check that an SSH server answers on this port",
    cause: error,
  });
}
