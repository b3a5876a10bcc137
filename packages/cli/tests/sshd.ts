import { join } from "node:path";
import type { ServerConnection, ServerSsh } from "../src/types/server_connection.ts";
import { SSHConnectionPool, type SSHConnectionPoolOptions } from "../src/utils/ssh_pool.ts";

/** Whether this machine can run a real sshd, and why not. */
export const SSHD: { readonly path: string; readonly missing: boolean } = {
  path: "/usr/sbin/sshd",
  missing: !exists("/usr/sbin/sshd") || Deno.uid() !== 0,
};
if (SSHD.missing) {
  // deno-lint-ignore no-console
  console.warn("SKIPPED: contract tests against sshd (no /usr/sbin/sshd here, or not root)");
}

/** A test against a real sshd; skipped, with a word, where there is none. */
export function contract(name: string, run: () => Promise<void>): void {
  Deno.test({ name, ignore: SSHD.missing, fn: run });
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** Kinds of keys that ssh-keygen makes. */
export type KeyKind = "ed25519" | "ecdsa" | "rsa";

/** A real sshd on loopback with keys and files of its own; disposed, it leaves nothing behind. */
export class TestSshd implements AsyncDisposable {
  readonly folder: string;
  readonly port: number;
  #child: Deno.ChildProcess | undefined;

  private constructor(folder: string, port: number) {
    this.folder = folder;
    this.port = port;
  }

  /** Starts it and waits until it answers. */
  static async start(
    options: { readonly hostKeys?: readonly KeyKind[]; readonly path?: string } = {},
  ): Promise<TestSshd> {
    const folder = await Deno.makeTempDir({ prefix: "jiji-sshd-" });
    const sshd = new TestSshd(folder, freePort());
    await sshd.makeKey("login", "ed25519");
    await Deno.copyFile(join(folder, "login.pub"), join(folder, "authorized_keys"));
    for (const kind of options.hostKeys ?? ["ed25519"]) await sshd.makeKey(`host_${kind}`, kind);
    await sshd.run(options.hostKeys ?? ["ed25519"], options.path);
    return sshd;
  }

  /** Makes a key pair in the folder. */
  async makeKey(name: string, kind: KeyKind, passphrase = ""): Promise<string> {
    const path = join(this.folder, name);
    const bits = kind === "rsa" ? ["-b", "2048"] : [];
    const { success, stderr } = await new Deno.Command("ssh-keygen", {
      args: ["-q", "-t", kind, ...bits, "-N", passphrase, "-C", name, "-f", path],
      stderr: "piped",
    }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    return path;
  }

  /** Lets a further public key in. */
  async authorize(path: string): Promise<void> {
    const key = await Deno.readTextFile(`${path}.pub`);
    await Deno.writeTextFile(join(this.folder, "authorized_keys"), key, { append: true });
  }

  /** Starts sshd with these host keys; `path` becomes PATH of its sessions. */
  async run(hostKeys: readonly KeyKind[], path?: string): Promise<void> {
    await Deno.mkdir("/run/sshd", { recursive: true, mode: 0o755 });
    const config = join(this.folder, "sshd_config");
    await Deno.writeTextFile(
      config,
      [
        `Port ${this.port}`,
        "ListenAddress 127.0.0.1",
        ...hostKeys.map((kind) => `HostKey ${join(this.folder, `host_${kind}`)}`),
        `AuthorizedKeysFile ${join(this.folder, "authorized_keys")}`,
        `PidFile ${join(this.folder, "pid")}`,
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "PermitRootLogin prohibit-password",
        "MaxStartups 100",
        // Keeps bash from reading ~/.bashrc, which may take longer than the command itself.
        `SetEnv SHLVL=2${path === undefined ? "" : ` PATH=${path}`}`,
        "",
      ].join("\n"),
    );
    this.#child = new Deno.Command(SSHD.path, {
      args: ["-D", "-e", "-f", config],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    await waitForPort(this.port);
  }

  /** Ends sshd and every session of it. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    for (const pid of await descendantsOf(child.pid)) killQuietly(pid);
    killQuietly(child.pid);
    await child.status;
  }

  /** Ends the sessions, not the listener: what a cut connection looks like. */
  async cutSessions(): Promise<void> {
    for (const pid of await descendantsOf(this.#child?.pid ?? -1)) killQuietly(pid);
  }

  /** Freezes the sessions: what a dead network looks like. Thaw before disposing. */
  async freezeSessions(signal: "SIGSTOP" | "SIGCONT"): Promise<void> {
    for (const pid of await descendantsOf(this.#child?.pid ?? -1)) killQuietly(pid, signal);
  }

  /** A server entry that leads here. */
  server(ssh: Partial<ServerSsh> = {}, name = "s1"): ServerConnection {
    return {
      name,
      host: "127.0.0.1",
      ssh: {
        user: "root",
        port: this.port,
        keyPaths: [join(this.folder, "login")],
        keyData: [],
        keysOnly: false,
        connectTimeoutMs: 10_000,
        sshConfigFiles: [],
        userGiven: true,
        portGiven: true,
        ...ssh,
      },
    };
  }

  /** A pool whose known_hosts is in the folder. */
  pool(
    servers: readonly ServerConnection[] = [this.server()],
    options: SSHConnectionPoolOptions = {},
  ): SSHConnectionPool {
    return new SSHConnectionPool(servers, {
      knownHostsPath: this.knownHostsPath,
      globalKnownHostsPath: join(this.folder, "no_such_file"),
      env: { HOME: this.folder, PATH: Deno.env.get("PATH") ?? "" },
      ...options,
    });
  }

  /** Not there before the first connection. */
  get knownHostsPath(): string {
    return join(this.folder, "ssh", "known_hosts");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** A port of loopback that was free a moment ago. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

async function waitForPort(port: number): Promise<void> {
  const deadlineMs = performance.now() + 10_000;
  while (performance.now() < deadlineMs) {
    try {
      const connection = await Deno.connect({ hostname: "127.0.0.1", port });
      connection.close();
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  throw new Error(`sshd does not answer on port ${port}`);
}

async function descendantsOf(pid: number): Promise<number[]> {
  const children = await childrenOf(pid);
  const deeper = await Promise.all(children.map(descendantsOf));
  return [...children, ...deeper.flat()];
}

async function childrenOf(pid: number): Promise<number[]> {
  try {
    const text = await Deno.readTextFile(`/proc/${pid}/task/${pid}/children`);
    return text.trim().split(" ").filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

function killQuietly(pid: number, signal: Deno.Signal = "SIGKILL"): void {
  try {
    Deno.kill(pid, signal);
  } catch {
    // It had ended already.
  }
}
