import { isOk, JijiError, type Process } from "@jiji/core";
import { PULL_TIMEOUT_MS } from "../../constants.ts";
import type { BuildSettings } from "../configuration/config_types.ts";
import type { Configuration } from "../configuration/configuration.ts";
import type { ServiceConfiguration } from "../configuration/service.ts";
import { argvPush, type EngineName } from "../engine/engine_commands.ts";
import type { Emit } from "../output/events.ts";

/** An image as it is built. */
export interface BuildWish {
  readonly engine: EngineName;
  readonly image: string;
  readonly build: BuildSettings;
  /** `amd64`, `arm64`: architectures of the service's servers, sorted. */
  readonly architectures: readonly string[];
  readonly cache: boolean;
}

/** `{registry}/{project}-{service}:{version}`. */
export function imageName(
  configuration: Configuration,
  service: ServiceConfiguration,
  version: string,
): string {
  const { imagePrefix } = configuration.builder.registry;
  return `${imagePrefix}/${configuration.project}-${service.name}:${version}`;
}

/** The engine's build command, without secrets: build args are visible to all by nature. */
export function argvBuild(wish: BuildWish): readonly [string, ...string[]] {
  const { build } = wish;
  const args = Object.keys(build.args).sort().flatMap((name) => [
    "--build-arg",
    `${name}=${build.args[name]}`,
  ]);
  return [
    wish.engine,
    "build",
    "--tag",
    wish.image,
    ...(build.dockerfile === undefined ? [] : ["--file", build.dockerfile]),
    ...args,
    ...(build.target === undefined ? [] : ["--target", build.target]),
    ...wish.architectures.flatMap((arch) => ["--platform", `linux/${arch}`]),
    ...(wish.cache ? [] : ["--no-cache"]),
    build.context,
  ];
}

/** What building needs. */
export interface BuildOptions {
  readonly process: Process;
  readonly configuration: Configuration;
  readonly version: string;
  readonly cache: boolean;
  readonly signal: AbortSignal;
  readonly emit: Emit;
  /** Monotonic milliseconds. */
  readonly now: () => number;
}

/** Builds images on this machine and pushes them to the project's registry. */
export class BuildService {
  readonly #options: BuildOptions;

  /** Nothing runs before {@link BuildService.buildAndPush}. */
  constructor(options: BuildOptions) {
    this.#options = options;
  }

  /**
   * Builds and pushes one service's image.
   *
   * @throws {JijiError} with the engine's last lines when it fails.
   */
  async buildAndPush(service: ServiceConfiguration): Promise<string> {
    const { configuration, version } = this.#options;
    const { engine } = configuration.builder;
    const image = imageName(configuration, service, version);
    const architectures = new Set(
      service.hosts.map((name) => configuration.servers.get(name)?.arch ?? "amd64"),
    );
    await this.#step(
      service,
      "build",
      argvBuild({
        engine,
        image,
        build: service.build!,
        // The engine's own architecture needs no flag, and old engines refuse it.
        architectures: [...architectures].filter((arch) => arch !== hostArchitecture()).sort(),
        cache: this.#options.cache && configuration.builder.cache,
      }),
    );
    await this.#step(service, "push", argvPush(engine, image));
    return image;
  }

  async #step(
    service: ServiceConfiguration,
    title: "build" | "push",
    argv: readonly [string, ...string[]],
  ): Promise<void> {
    const { emit, now, process, signal } = this.#options;
    const startedMs = now();
    const lane = `${title} ${service.name}`;
    emit({ kind: "started", lane, title: title === "build" ? "building" : "pushing" });
    const result = await process.run(argv, { timeoutMs: PULL_TIMEOUT_MS, signal });
    signal.throwIfAborted();
    const durationMs = now() - startedMs;
    if (isOk(result)) {
      const summary = title === "build" ? "built" : "pushed";
      return emit({ kind: "done", lane, summary, durationMs });
    }
    const tail = (result.stderr || result.stdout).trim().split("\n").slice(-20).join("\n  ");
    emit({ kind: "failed", lane, title, message: `exit ${result.exitCode ?? result.signal}` });
    throw new JijiError(
      `${title} of ${service.name} failed (${service.positionOf(["build"])})\n  ${tail}`,
      {
        serving: "nothing was changed on the servers",
        hint: result.exitCode === 127 || /daemon/.test(tail)
          ? `${argv[0]} must run on this machine, as builder.engine says`
          : "mend the build and run jiji deploy again",
      },
    );
  }
}

function hostArchitecture(): string {
  return Deno.build.arch === "aarch64" ? "arm64" : "amd64";
}
