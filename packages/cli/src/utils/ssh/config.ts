import { ConnectionError, type Process } from "@jiji/core/runtime";
import type { ServerConnection, ServerSsh } from "../../types/server_connection.ts";

/** What ssh_config says of a host. */
export interface SshConfigSettings {
  readonly hostName?: string;
  readonly port?: number;
  readonly user?: string;
  /** In order; `~/` is expanded, files may be missing. */
  readonly identityFiles: readonly string[];
  readonly identitiesOnly: boolean;
  readonly proxyJump?: string;
  readonly proxyCommand?: string;
}

/** Limit of `ssh -G`, which only reads files (but may run `Match exec`). */
const SSH_G_TIMEOUT_MS = 10_000;

/** Settings among the output of `ssh -G`: one lower-case keyword and its value a line. Pure. */
export function parseSshConfig(output: string, home: string): SshConfigSettings {
  const values = new Map<string, string[]>();
  for (const line of output.split("\n")) {
    const space = line.indexOf(" ");
    if (space < 1) continue;
    const keyword = line.slice(0, space).toLowerCase();
    values.set(keyword, [...values.get(keyword) ?? [], line.slice(space + 1).trim()]);
  }
  const first = (keyword: string): string | undefined => {
    const value = values.get(keyword)?.[0];
    return value === undefined || value === "" || value === "none" ? undefined : value;
  };
  const port = Number(first("port"));
  const hostName = first("hostname");
  const user = first("user");
  const proxyJump = first("proxyjump");
  const proxyCommand = first("proxycommand");
  return {
    ...(hostName === undefined ? {} : { hostName }),
    ...(port >= 1 && port <= 65535 ? { port } : {}),
    ...(user === undefined ? {} : { user }),
    identityFiles: (values.get("identityfile") ?? [])
      .filter((file) => file !== "none")
      .map((file) => file.startsWith("~/") ? `${home}${file.slice(1)}` : file),
    identitiesOnly: first("identitiesonly") === "yes",
    ...(proxyJump === undefined ? {} : { proxyJump }),
    ...(proxyCommand === undefined ? {} : { proxyCommand }),
  };
}

/** The server with ssh_config's settings where jiji's own configuration says nothing. Pure. */
export function withSshConfig(
  server: ServerConnection,
  settings: SshConfigSettings,
): ServerConnection {
  const { ssh } = server;
  const named = ssh.keyPaths.length > 0 || ssh.keyData.length > 0;
  const routed = ssh.jump !== undefined || ssh.proxyCommand !== undefined;
  return {
    name: server.name,
    host: settings.hostName ?? server.host,
    ssh: {
      ...ssh,
      user: ssh.userGiven ? ssh.user : settings.user ?? ssh.user,
      port: ssh.portGiven ? ssh.port : settings.port ?? ssh.port,
      keyPaths: named ? ssh.keyPaths : settings.identityFiles,
      keysOnly: ssh.keysOnly || settings.identitiesOnly,
      ...(!routed && settings.proxyJump !== undefined ? { jump: settings.proxyJump } : {}),
      ...(!routed && settings.proxyJump === undefined && settings.proxyCommand !== undefined
        ? { proxyCommand: settings.proxyCommand }
        : {}),
    },
  };
}

/**
 * Asks ssh(1) itself what its configuration files say, so that Include and Match mean the same.
 *
 * @throws {ConnectionError} when ssh is not installed or refuses the files.
 */
export async function readSshConfig(
  server: ServerConnection,
  options: { readonly process: Process; readonly home: string },
): Promise<SshConfigSettings> {
  const includes = server.ssh.sshConfigFiles.map((file) => `Include "${file}"\n`).join("");
  const login = server.ssh.userGiven ? ["-l", server.ssh.user] : [];
  const result = await options.process.run(
    ["ssh", "-G", "-F", "/dev/stdin", ...login, "--", server.host],
    { timeoutMs: SSH_G_TIMEOUT_MS, stdin: includes },
  );
  if (result.exitCode !== 0) {
    throw new ConnectionError(
      `${server.name}: ssh_config can't be read: ${result.stderr.trim().slice(0, 300)}`,
      {
        host: server.host,
        phase: "auth",
        hint: "mend the file, install the ssh program, or leave `ssh.config` out",
      },
    );
  }
  return parseSshConfig(result.stdout, options.home);
}

/**
 * The last jump host before a server; those before it become its own jump hosts. It is logged in
 * to with the server's keys. Undefined when the text is not `[user@]host[:port]`, joined by commas.
 * Pure.
 */
export function parseJumps(server: ServerConnection, text: string): ServerConnection | undefined {
  const hops = text.split(",");
  const match = /^(?:([\w.-]+)@)?([\w.-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?$/i
    .exec(hops.at(-1)?.trim() ?? "");
  const port = match?.[3] === undefined ? 22 : Number(match[3]);
  if (match?.[2] === undefined || !(port >= 1 && port <= 65535)) return undefined;
  const { jump: _jump, proxyCommand: _proxyCommand, ...rest } = server.ssh;
  const ssh: ServerSsh = {
    ...rest,
    user: match[1] ?? server.ssh.user,
    port,
    sshConfigFiles: [],
    ...(hops.length > 1 ? { jump: hops.slice(0, -1).join(",") } : {}),
  };
  return {
    name: `${server.name}'s jump host`,
    host: match[2].replace(/^\[|\]$/g, ""),
    ssh,
  };
}
