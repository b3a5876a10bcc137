import * as v from "valibot";
import { SERVER_NAME } from "@jiji/core/cluster";
import { normalizeIp } from "@jiji/core/net";
import type { ServerSsh } from "../../types/server_connection.ts";
import { BaseConfiguration, type ConfigContext, type Report } from "./base.ts";
import { keys, mapOf, oneOf, quote, REFERENCE_NAME, text } from "./format/schema_parts.ts";
import { LOGIN_ENTRIES, type SSHConfiguration } from "./ssh.ts";

/** Schema of one server. */
export const ServerSchema = keys({
  host: text("a host name or address"),
  arch: v.optional(oneOf(["amd64", "arm64"]), "amd64"),
  ...LOGIN_ENTRIES,
}, { name: "a server is named by its key in `servers`" });

type ServerValues = v.InferOutput<typeof ServerSchema>;

/** Host names as RFC 1123 section 2.1 has them; a trailing dot is not taken. */
const HOST_NAME =
  /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i;

/** A server and how to log in to it. */
export class ServerConfiguration extends BaseConfiguration<ServerValues> {
  /** Name in the configuration; also its instance name in DNS. */
  readonly name: string;
  readonly #ssh: SSHConfiguration;

  /** @param ssh settings that the server's own are laid over. */
  constructor(context: ConfigContext, name: string, ssh: SSHConfiguration) {
    super(context, ["servers", name], ServerSchema);
    this.name = name;
    this.#ssh = ssh;
  }

  /** Host name or address; a name in capitals is looked up in the env file and the environment. */
  get host(): string {
    return this.memo("host", () => this.#resolveHost(this.values.host) ?? this.values.host);
  }

  /** Processor of the server. */
  get arch(): "amd64" | "arm64" {
    return this.values.arch;
  }

  /** How to log in. */
  get ssh(): ServerSsh {
    return this.memo("ssh", () => this.#ssh.resolve(this.values, this.path));
  }

  /** Names of secrets that its login needs and that are not set. */
  missingSecrets(): readonly string[] {
    return this.#ssh.missingSecrets(this.values);
  }

  protected override check(values: ServerValues, report: Report): void {
    if (!SERVER_NAME.test(this.name)) {
      report([], `${quote(this.name)} is not a server name`, {
        fix: "lower-case letters, digits and hyphens, at most 63, no hyphen at the ends",
        pointer: "key",
      });
    }
    const host = this.#resolveHost(values.host);
    if (host === undefined) {
      report(["host"], `${values.host} is not set`, {
        fix: `set it in ${this.context.secrets.lookedIn()} or export it`,
      });
    } else if (normalizeIp(host) === undefined && !HOST_NAME.test(host)) {
      report(["host"], `${quote(host)} is not a host name or address`, {
        fix: "without user or port; these are `user` and `port` beside it",
      });
    }
  }

  #resolveHost(host: string): string | undefined {
    if (!REFERENCE_NAME.test(host)) return host;
    return this.context.secrets.find(host, { alwaysHost: true })?.reveal();
  }
}

/** Schema of `servers`. */
export const ServersSchema = mapOf(v.unknown());

/** The servers, in the order of the file. */
export class ServersConfiguration extends BaseConfiguration<Record<string, unknown>> {
  readonly #ssh: SSHConfiguration;

  /** @param ssh settings that every server starts from. */
  constructor(context: ConfigContext, ssh: SSHConfiguration) {
    super(context, ["servers"], ServersSchema);
    this.#ssh = ssh;
  }

  /** Servers by name. */
  get all(): ReadonlyMap<string, ServerConfiguration> {
    return this.memo("all", () => {
      const names = Object.keys(this.values);
      return new Map(
        names.map((name) => [name, new ServerConfiguration(this.context, name, this.#ssh)]),
      );
    });
  }

  protected override check(values: Record<string, unknown>, report: Report): void {
    const names = Object.keys(values);
    if (names.length === 0) {
      report([], "no server is named", { fix: "add `s1:` with `host: ADDRESS` below it" });
    }
    const seen = new Map<string, string>();
    for (const name of names) {
      const host = this.context.document.at(["servers", name, "host"]);
      if (typeof host !== "string") continue;
      const normal = normalizeIp(host) ?? host.toLowerCase();
      const other = seen.get(normal);
      if (other === undefined) seen.set(normal, name);
      else report([name, "host"], `${host} is the host of ${other} already`);
    }
  }
}
