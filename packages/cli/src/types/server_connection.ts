import type { Secret } from "@jiji/core/runtime";

/** How to log in to a server: `ssh` of the configuration with the server's own keys laid over it. */
export interface ServerSsh {
  readonly user: string;
  /** 1–65535. */
  readonly port: number;
  /** Private key files, absolute, in the order to try. */
  readonly keyPaths: readonly string[];
  /** Private keys in PEM or OpenSSH form that came from the environment. */
  readonly keyData: readonly Secret[];
  /** Opens encrypted keys. */
  readonly passphrase?: Secret;
  /** Leave the agent and the default identities alone. */
  readonly keysOnly: boolean;
  /** Until the login is done. */
  readonly connectTimeoutMs: number;
  /** Jump hosts, `[user@]host[:port]`, joined by commas as in ssh(1) -J. */
  readonly jump?: string;
  /** A command whose standard streams are the connection; `%h`, `%p`, `%r` are filled in. */
  readonly proxyCommand?: string;
  /** ssh_config files to ask with `ssh -G`; empty means that none is read. */
  readonly sshConfigFiles: readonly string[];
  /** Whether `user` was written in jiji's configuration, so that ssh_config must not change it. */
  readonly userGiven: boolean;
  /** Whether `port` was written in jiji's configuration. */
  readonly portGiven: boolean;
}

/** What a connection needs to know of a server. */
export interface ServerConnection {
  readonly name: string;
  /** Host name or address. */
  readonly host: string;
  readonly ssh: ServerSsh;
}
