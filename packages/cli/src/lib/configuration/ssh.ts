import { isAbsolute, join } from "node:path";
import * as v from "valibot";
import { Secret } from "@jiji/core/runtime";
import type { ServerSsh } from "../../types/server_connection.ts";
import { BaseConfiguration, type ConfigContext, type Report } from "./base.ts";
import type { ConfigPath } from "./format/config_path.ts";
import {
  duration,
  flag,
  keys,
  list,
  matching,
  port,
  problem,
  quote,
  REFERENCE_NAME,
  text,
  variableName,
  wholeNumber,
} from "./format/schema_parts.ts";

/** A jump host, `[user@]host[:port]`, several joined by commas. */
const JUMP = /^([\w.-]+@)?[\w.-]+(:\d{1,5})?(,([\w.-]+@)?[\w.-]+(:\d{1,5})?)*$/;

/** POSIX user names as useradd(8) takes them. */
const USER = /^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/;

/** Keys that `ssh` and a server share. */
export const LOGIN_ENTRIES = {
  user: v.optional(matching(USER, "a user name", "e.g. root or deploy")),
  port: v.optional(port()),
  key_path: v.optional(text("the path of a private key")),
  key_passphrase: v.optional(text("a passphrase or the name of a secret")),
  keys: v.optional(list(text("the path of a private key"))),
  key_data: v.optional(list(variableName())),
};

/** Values of {@link LOGIN_ENTRIES}. */
export type LoginValues = v.InferOutput<v.ObjectSchema<typeof LOGIN_ENTRIES, undefined>>;

/** A whole number of seconds, or a length of time with its unit; milliseconds. */
function seconds(defaultMs: number): v.GenericSchema<unknown, number> {
  return v.pipe(
    v.unknown(),
    v.transform((input) =>
      input === undefined ? `${defaultMs}ms` : Number.isInteger(input) ? `${input}s` : input
    ),
    duration({ minMs: 1_000, maxMs: 86_400_000 }),
  );
}

const POOLED = "has no meaning here: connections live as long as the command";

/** Schema of `ssh`. */
export const SSHSchema = keys({
  ...LOGIN_ENTRIES,
  keys_only: v.optional(flag(), false),
  connect_timeout: v.optional(seconds(30_000), 30),
  proxy: v.optional(matching(JUMP, "a jump host", "[USER@]HOST[:PORT]")),
  proxy_command: v.optional(v.pipe(
    text("a command"),
    v.check(
      (command) => command.includes("%h") && command.includes("%p"),
      problem("the command must contain %h and %p", "e.g. `nc %h %p`"),
    ),
  )),
  max_concurrent_starts: v.optional(
    wholeNumber("a number of logins", { min: 1, max: 1_000 }),
    30,
  ),
  config: v.optional(
    v.union([v.boolean(), v.string(), v.array(v.string())], (issue) =>
      problem(
        `${quote(issue.input)} is neither true, a path nor a list of paths`,
        "`true` reads ~/.ssh/config",
      )),
    false,
  ),
}, {
  options: "ssh options are not supported; put them into an ssh_config file and set `config`",
  command_timeout: "command_timeout has no meaning here: every step has a limit of its own",
  pool_idle_timeout: `pool_idle_timeout ${POOLED}`,
  dns_retries: "dns_retries has no meaning here: names are looked up until connect_timeout",
  log_level: "log_level has no meaning here; use --verbose",
});

type SSHValues = v.InferOutput<typeof SSHSchema>;

/** How to log in to the servers. */
export class SSHConfiguration extends BaseConfiguration<SSHValues> {
  /** @param context with the document that holds `ssh`. */
  constructor(context: ConfigContext) {
    super(context, ["ssh"], SSHSchema);
  }

  /** Logins under way at once. */
  get maxConcurrentStarts(): number {
    return this.values.max_concurrent_starts;
  }

  /**
   * The settings of one server: its own `login` values laid over these.
   *
   * @param path of the server in the file, for errors.
   * @throws {ConfigError} when a key or passphrase names a secret that is not set.
   */
  resolve(login: LoginValues, path: ConfigPath): ServerSsh {
    const values = this.values;
    const ownKeys = login.key_path !== undefined || login.keys !== undefined ||
      login.key_data !== undefined;
    const source = ownKeys ? login : values;
    const passphrase = login.key_passphrase ?? values.key_passphrase;
    const paths = [
      ...(source.key_path === undefined ? [] : [source.key_path]),
      ...(source.keys ?? []),
    ];
    const files = this.#configFiles(values.config);
    return {
      user: login.user ?? values.user ?? "root",
      port: login.port ?? values.port ?? 22,
      keyPaths: paths.map((path) => this.#absolute(path)),
      keyData: (source.key_data ?? []).map((name) => this.#secret(name, path)),
      ...(passphrase === undefined ? {} : { passphrase: this.#passphrase(passphrase, path) }),
      keysOnly: values.keys_only,
      connectTimeoutMs: values.connect_timeout,
      ...(values.proxy === undefined ? {} : { jump: values.proxy }),
      ...(values.proxy_command === undefined ? {} : { proxyCommand: values.proxy_command }),
      sshConfigFiles: files,
      userGiven: (login.user ?? values.user) !== undefined,
      portGiven: (login.port ?? values.port) !== undefined,
    };
  }

  /** Names of secrets that a login needs and that are not set. */
  missingSecrets(login: LoginValues): readonly string[] {
    const ownKeys = login.key_path !== undefined || login.keys !== undefined ||
      login.key_data !== undefined;
    const passphrase = login.key_passphrase ?? this.values.key_passphrase;
    const names = [
      ...((ownKeys ? login : this.values).key_data ?? []),
      ...(passphrase !== undefined && REFERENCE_NAME.test(passphrase) ? [passphrase] : []),
    ];
    return names.filter((name) =>
      this.context.secrets.find(name, { alwaysHost: true }) === undefined
    );
  }

  protected override check(values: SSHValues, report: Report): void {
    if (values.proxy !== undefined && values.proxy_command !== undefined) {
      report(["proxy_command"], "proxy and proxy_command exclude each other", { pointer: "key" });
    }
  }

  #configFiles(config: boolean | string | readonly string[]): string[] {
    if (config === false) return [];
    if (config === true) return [this.#absolute("~/.ssh/config"), "/etc/ssh/ssh_config"];
    return [config].flat().map((path) => this.#absolute(path));
  }

  #absolute(path: string): string {
    const { home, projectRoot } = this.context;
    if (path.startsWith("~/") && home !== undefined) return join(home, path.slice(2));
    return isAbsolute(path) ? path : join(projectRoot, path);
  }

  #secret(name: string, path: ConfigPath): Secret {
    const { document, secrets } = this.context;
    const secret = secrets.find(name, { alwaysHost: true });
    if (secret === undefined) throw secrets.missingError([name], document.positionOf(path));
    return secret;
  }

  #passphrase(value: string, path: ConfigPath): Secret {
    return REFERENCE_NAME.test(value) ? this.#secret(value, path) : new Secret(value);
  }
}
