import * as v from "valibot";
import { REGISTRY_PORT } from "@jiji/core/cluster";
import type { Secret } from "@jiji/core/runtime";
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

/** Schema of `builder.registry`. */
export const RegistrySchema = keys({
  type: v.optional(oneOf(["local", "remote"])),
  port: v.optional(port()),
  server: v.optional(matching(
    /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?$/,
    "the name of a registry",
    "HOST or HOST:PORT, e.g. ghcr.io",
  )),
  username: v.optional(matching(/^[^\s:]+$/, "a user name", "without blanks and colons")),
  password: v.optional(text("a password, or the name of a secret in capitals")),
});

type RegistryValues = v.InferOutput<typeof RegistrySchema>;

/** Registries of many users, each with repositories below a name: `ghcr.io/ana/shop-web`. */
const SHARED_REGISTRIES = ["ghcr.io", "docker.io", "registry-1.docker.io", "index.docker.io"];

/** Keys of a registry that is reached with a login. */
const REMOTE_KEYS = ["server", "username", "password"] as const;

/** How to log in to a registry. */
export interface RegistryLogin {
  /** `HOST[:PORT]`, first part of image names. */
  readonly server: string;
  readonly username: string;
  readonly password: Secret;
  /** `deploy.yml:5:13`, where user name and password are written. */
  readonly position: string;
}

/** Where built images are kept. */
export class RegistryConfiguration extends BaseConfiguration<RegistryValues> {
  /** @param context with the document that holds `builder.registry`. */
  constructor(context: ConfigContext) {
    super(context, ["builder", "registry"], RegistrySchema);
  }

  /** `local`: jiji itself, reached over SSH; `remote`: a registry with a login. */
  get type(): "local" | "remote" {
    return typeOf(this.values);
  }

  /** Loopback port of the local registry, on this machine and on the servers. */
  get port(): number {
    return this.values.port ?? REGISTRY_PORT;
  }

  /** `HOST[:PORT]` of a remote registry. */
  get server(): string | undefined {
    return this.values.server;
  }

  /** First part of image names, e.g. `localhost:31270` or `ghcr.io/ana`. */
  get imagePrefix(): string {
    const { server, username } = this.values;
    if (this.type === "local" || server === undefined) return `localhost:${this.port}`;
    return SHARED_REGISTRIES.includes(server) && username !== undefined
      ? `${server}/${username.toLowerCase()}`
      : server;
  }

  /**
   * The remote registry's login; undefined when the registry is local.
   *
   * @throws {ConfigError} when the password names a secret that is not set.
   */
  login(): RegistryLogin | undefined {
    const { server, username, password } = this.values;
    if (this.type === "local" || server === undefined) return undefined;
    const position = this.positionOf(["password"]);
    const { secrets } = this.context;
    const value = password ?? "";
    const found = REFERENCE_NAME.test(value) ? secrets.find(value) : secrets.literal(value);
    if (found === undefined) throw secrets.missingError([value], position);
    return { server, username: username ?? "", password: found, position };
  }

  /** Name of the secret that is the password; undefined when it is written out. */
  get passwordName(): string | undefined {
    const { password } = this.values;
    return password !== undefined && REFERENCE_NAME.test(password) ? password : undefined;
  }

  protected override check(values: RegistryValues, report: Report): void {
    if (typeOf(values) === "local") {
      for (const key of REMOTE_KEYS) {
        if (values[key] === undefined) continue;
        report([key], `${key} belongs to a remote registry`, {
          fix: "write `type: remote`, or remove it",
          pointer: "key",
        });
      }
      return;
    }
    for (const key of REMOTE_KEYS) {
      if (values[key] === undefined) {
        report([], `${key} is missing`, { fix: `add \`${key}:\` here` });
      }
    }
    if (values.port !== undefined) {
      report(["port"], "port belongs to the local registry", {
        fix: "a remote one has its port in `server`: HOST:PORT",
        pointer: "key",
      });
    }
  }
}

function typeOf(values: RegistryValues): "local" | "remote" {
  return values.type ?? (values.server === undefined ? "local" : "remote");
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
