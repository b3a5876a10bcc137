import * as v from "valibot";
import { REGISTRY_PORT } from "@jiji/core/cluster";
import { Secret } from "@jiji/core/runtime";
import { BaseConfiguration, type ConfigContext, type Report } from "./base.ts";
import type { EngineName } from "./config_types.ts";
import {
  flag,
  keys,
  matching,
  oneOf,
  port,
  problem,
  REFERENCE_NAME,
  text,
} from "./format/schema_parts.ts";

/** Registries whose image names carry the account. */
const REGISTRIES_WITH_ACCOUNT = new Set([
  "ghcr.io",
  "docker.io",
  "registry-1.docker.io",
  "index.docker.io",
]);

/** Schema of `builder.registry`. */
export const RegistrySchema = keys({
  type: v.optional(oneOf(["local", "remote"]), "local"),
  port: v.optional(port()),
  server: v.optional(
    matching(/^[a-z0-9.-]+(:\d{1,5})?$/, "a registry address", "HOST or HOST:PORT, lower case"),
  ),
  username: v.optional(text("a user name")),
  password: v.optional(text("a password or the name of a secret")),
});

type RegistryValues = v.InferOutput<typeof RegistrySchema>;

/** Where built images are kept. */
export class RegistryConfiguration extends BaseConfiguration<RegistryValues> {
  /** @param context with the document that holds `builder.registry`. */
  constructor(context: ConfigContext) {
    super(context, ["builder", "registry"], RegistrySchema);
  }

  /** `local`: the CLI itself, reached over SSH; `remote`: a registry somewhere. */
  get type(): "local" | "remote" {
    return this.values.type;
  }

  /** Loopback port of the local registry, on this machine and on the servers. */
  get port(): number {
    return this.values.port ?? REGISTRY_PORT;
  }

  /** Address of the remote registry. */
  get server(): string | undefined {
    return this.values.server;
  }

  /** Account at the remote registry. */
  get username(): string | undefined {
    return this.values.username;
  }

  /**
   * Password for the remote registry: the value as written, or the secret it names.
   *
   * @throws {ConfigError} when the secret is not set.
   */
  get password(): Secret | undefined {
    const { password } = this.values;
    if (password === undefined || !REFERENCE_NAME.test(password)) {
      return password === undefined ? undefined : this.memo("password", () => new Secret(password));
    }
    return this.context.secrets.resolve([password], this.positionOf(["password"])).get(password);
  }

  /** First part of image names, e.g. `localhost:31270` or `ghcr.io/user`. */
  get imagePrefix(): string {
    const { type, server = "", username = "" } = this.values;
    if (type === "local") return `localhost:${this.port}`;
    return REGISTRIES_WITH_ACCOUNT.has(server) ? `${server}/${username.toLowerCase()}` : server;
  }

  protected override check(values: RegistryValues, report: Report): void {
    if (values.type === "local") {
      for (const key of ["server", "username", "password"] as const) {
        if (values[key] === undefined) continue;
        report([key], `only a remote registry has a ${key}`, {
          fix: "add `type: remote` or remove this",
          pointer: "key",
        });
      }
      return;
    }
    if (values.port !== undefined) {
      report(["port"], "only the local registry has a port", {
        fix: "write it behind the address: `server: HOST:PORT`",
        pointer: "key",
      });
    }
    for (const key of ["server", "username", "password"] as const) {
      if (values[key] === undefined) report([], `a remote registry needs ${key}`);
    }
  }
}

/** Schema of `builder`. */
export const BuilderSchema = keys({
  engine: oneOf(["docker", "podman"]),
  local: v.optional(
    v.pipe(
      flag(),
      v.check(
        (local) => local,
        problem("images are built on this machine; a remote builder is not supported yet"),
      ),
    ),
    true,
  ),
  cache: v.optional(flag(), true),
  registry: v.optional(v.unknown()),
}, { remote: "a remote builder is not supported yet; images are built on this machine" });

type BuilderValues = v.InferOutput<typeof BuilderSchema>;

/** How images are built, and the engine of this machine and of the servers. */
export class BuilderConfiguration extends BaseConfiguration<BuilderValues> {
  /** @param context with the document that holds `builder`. */
  constructor(context: ConfigContext) {
    super(context, ["builder"], BuilderSchema);
  }

  /** Engine of this machine and of the servers. */
  get engine(): EngineName {
    return this.values.engine;
  }

  /** Whether images are built on this machine; always so. */
  get local(): boolean {
    return this.values.local;
  }

  /** Whether the engine may reuse layers of earlier builds. */
  get cache(): boolean {
    return this.values.cache;
  }

  /** Where built images are kept. */
  get registry(): RegistryConfiguration {
    return this.memo("registry", () => new RegistryConfiguration(this.context));
  }
}
