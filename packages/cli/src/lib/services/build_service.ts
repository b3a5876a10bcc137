import { type CommandResult, isOk, JijiError, type Process } from "@jiji/core";
import { ENGINE_TIMEOUT_MS, PULL_TIMEOUT_MS } from "../../constants.ts";
import type { BuildSettings } from "../configuration/config_types.ts";
import type { Configuration } from "../configuration/configuration.ts";
import type { ServiceConfiguration } from "../configuration/service.ts";
import { argvPush, type EngineName } from "../engine/engine_commands.ts";
import type { Emit } from "../output/events.ts";
import { classifyRegistryFailure, registryError } from "../registry/registry_commands.ts";

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
  return `${imageRepository(configuration, service)}:${version}`;
}

/** `{registry}/{project}-{service}`. */
export function imageRepository(
  configuration: Configuration,
  service: ServiceConfiguration,
): string {
  const { imagePrefix } = configuration.builder.registry;
  return `${imagePrefix}/${configuration.project}-${service.name}`;
}

/**
 * The engine's build command. Build args are visible to all by nature; secrets are named only, the
 * engine takes their values from its environment. Source: docker-build(1), podman-build(1),
 * `--secret`.
 */
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
    ...build.secrets.flatMap((name) => ["--secret", `id=${name},env=${name}`]),
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
  /** Default: push. */
  readonly push?: boolean;
  readonly signal: AbortSignal;
  readonly emit: Emit;
  /** Monotonic milliseconds. */
  readonly now: () => number;
}

/** Builds images on this machine and pushes them to the project's registry. */
export class BuildService {
  readonly #options: BuildOptions;

  /** Nothing runs before {@link BuildService.build}. */
  constructor(options: BuildOptions) {
    this.#options = options;
  }

  /**
   * Builds one service's image, and pushes it unless told otherwise.
   *
   * @returns the image's name.
   * @throws {RegistryError} when the registry refuses; {JijiError} with the engine's last lines when
   * a step fails; {ConfigError} when a build secret is not set.
   */
  async build(service: ServiceConfiguration): Promise<string> {
    const { configuration, version, push = true } = this.#options;
    const { engine } = configuration.builder;
    const image = imageName(configuration, service, version);
    const architectures = new Set(
      service.hosts.map((name) => configuration.servers.get(name)?.arch ?? "amd64"),
    );
    const build = service.build!;
    await this.#step(service, "build", {
      argv: argvBuild({
        engine,
        image,
        build,
        // The engine's own architecture needs no flag, and old engines refuse it.
        architectures: [...architectures].filter((arch) => arch !== hostArchitecture()).sort(),
        cache: this.#options.cache && configuration.builder.cache,
      }),
      env: this.#secretEnvironment(build.secrets),
    });
    if (push) await this.#step(service, "push", { argv: argvPush(engine, image), env: {} });
    return image;
  }

  /** Id of an image that this machine's engine has: equal content, equal id. */
  async imageId(name: string): Promise<string | undefined> {
    const { configuration, process, signal } = this.#options;
    const { engine } = configuration.builder;
    const argv = [engine, "image", "inspect", "--format", "{{.Id}}", name] as const;
    const inspected = await process.run(argv, { timeoutMs: ENGINE_TIMEOUT_MS, signal });
    return isOk(inspected) ? inspected.stdout.trim() || undefined : undefined;
  }

  /** Docker 20.10 knows secrets only with BuildKit. Source: docker-build(1), DOCKER_BUILDKIT. */
  #secretEnvironment(names: readonly string[]): Record<string, string> {
    if (names.length === 0) return {};
    const secrets = this.#options.configuration.resolveSecrets(names);
    const values = [...secrets].map(([name, secret]) => [name, secret.reveal()] as const);
    return { ...Object.fromEntries(values), DOCKER_BUILDKIT: "1" };
  }

  async #step(
    service: ServiceConfiguration,
    title: "build" | "push",
    command: {
      readonly argv: readonly [string, ...string[]];
      readonly env: Readonly<Record<string, string>>;
    },
  ): Promise<void> {
    const { emit, now, process, signal } = this.#options;
    const startedMs = now();
    const lane = `${title} ${service.name}`;
    emit({ kind: "started", lane, title: title === "build" ? "building" : "pushing" });
    const { argv, env } = command;
    const result = await process.run(argv, { timeoutMs: PULL_TIMEOUT_MS, signal, env });
    signal.throwIfAborted();
    const durationMs = now() - startedMs;
    if (isOk(result)) {
      const summary = title === "build" ? "built" : "pushed";
      return emit({ kind: "done", lane, summary, durationMs });
    }
    emit({ kind: "failed", lane, title, message: `exit ${result.exitCode ?? result.signal}` });
    throw this.#failure(service, title, { argv, result });
  }

  #failure(
    service: ServiceConfiguration,
    title: "build" | "push",
    failed: { readonly argv: readonly string[]; readonly result: CommandResult },
  ): JijiError {
    const { builder } = this.#options.configuration;
    const { argv, result } = failed;
    const output = result.stderr || result.stdout;
    const login = title === "push" ? builder.registry.login() : undefined;
    if (login !== undefined && classifyRegistryFailure(output) !== "other") {
      return registryError({
        ...{ engine: builder.engine, result, where: "this machine" },
        what: `push of ${service.name} to ${login.server}`,
        ...{ server: login.server, username: login.username, position: login.position },
      });
    }
    const tail = output.trim().split("\n").slice(-20).join("\n  ");
    return new JijiError(
      `${title} of ${service.name} failed (${service.positionOf(["build"])})\n  ${tail}`,
      {
        serving: "nothing was changed on the servers",
        hint: result.exitCode === 127 || /daemon/.test(tail)
          ? `${argv[0]} must run on this machine, as builder.engine says`
          : "mend the build and run this again",
      },
    );
  }
}

function hostArchitecture(): string {
  return Deno.build.arch === "aarch64" ? "arm64" : "amd64";
}
