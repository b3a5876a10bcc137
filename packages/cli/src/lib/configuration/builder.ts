import * as v from "valibot";
import { REGISTRY_PORT } from "@jiji/core/cluster";
import { BaseConfiguration, type ConfigContext } from "./base.ts";
import type { EngineName } from "./config_types.ts";
import { flag, keys, oneOf, port, problem } from "./format/schema_parts.ts";

const REMOTE = "a remote registry is not supported yet; jiji brings images to the servers itself";

/** Schema of `builder.registry`. */
export const RegistrySchema = keys({
  type: v.optional(
    v.pipe(
      oneOf(["local", "remote"]),
      v.check((type) => type === "local", problem(REMOTE, "remove it, or write local")),
    ),
    "local",
  ),
  port: v.optional(port(), REGISTRY_PORT),
}, { server: REMOTE, username: REMOTE, password: REMOTE });

type RegistryValues = v.InferOutput<typeof RegistrySchema>;

/** Where built images are kept. */
export class RegistryConfiguration extends BaseConfiguration<RegistryValues> {
  /** @param context with the document that holds `builder.registry`. */
  constructor(context: ConfigContext) {
    super(context, ["builder", "registry"], RegistrySchema);
  }

  /** `local`: the CLI itself, reached over SSH; the only kind so far. */
  get type(): "local" | "remote" {
    return this.values.type;
  }

  /** Loopback port of the local registry, on this machine and on the servers. */
  get port(): number {
    return this.values.port;
  }

  /** First part of image names, e.g. `localhost:31270`. */
  get imagePrefix(): string {
    return `localhost:${this.port}`;
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
