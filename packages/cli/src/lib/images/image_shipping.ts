import { join } from "node:path";
import type { Process } from "@jiji/core";
import type { Configuration } from "../configuration/configuration.ts";
import type { ServiceConfiguration } from "../configuration/service.ts";
import type { Emit } from "../output/events.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { registryHostOf } from "../registry/registry_commands.ts";
import { loginHere, loginOn, logoutOn } from "../registry/registry_login.ts";
import { BuildService, imageName } from "../services/build_service.ts";
import type { ServiceImage } from "../deployment/desired_services.ts";
import { ImageStore } from "./image_store.ts";
import { type RunningRegistry, startImageRegistry } from "./image_registry.ts";
import { leadPort } from "./stale_forwards.ts";

/** What shipping images needs. */
export interface ShippingOptions {
  readonly configuration: Configuration;
  readonly process: Process;
  readonly version: string;
  /** Build and push; otherwise the version must have been shipped before. */
  readonly build: boolean;
  /** Leave what was built in this machine's engine; for trying a build. Default: push. */
  readonly push?: boolean;
  readonly cache: boolean;
  readonly signal: AbortSignal;
  readonly emit: Emit;
  readonly now: () => number;
}

/**
 * Gets images to where servers can pull them. With a local registry this process is the registry,
 * and each server reaches it through its own SSH connection, on loopback at both ends. With a remote
 * one, engines log in, and servers forget the login once they have pulled.
 */
export class ImageShipping implements AsyncDisposable {
  readonly #options: ShippingOptions;
  readonly #store: ImageStore;
  readonly #folder: string;
  #registry: RunningRegistry | undefined;
  readonly #undo: (() => PromiseLike<void>)[] = [];
  /** Servers that pull from the remote registry. */
  #pullingHosts = new Set<string>();

  /** @param cacheFolder where this machine keeps pushed layers between deploys. */
  constructor(options: ShippingOptions, cacheFolder: string) {
    this.#options = options;
    this.#folder = registryFolder(cacheFolder);
    this.#store = new ImageStore(this.#folder);
  }

  /**
   * Builds what must be built and tells each service's image.
   *
   * @throws {RegistryError} when the remote registry does not let us in; {JijiError} when a build or
   * push fails.
   */
  async prepare(services: readonly ServiceConfiguration[]): Promise<Map<string, ServiceImage>> {
    const built = services.filter((service) => service.build !== undefined);
    const { configuration, version } = this.#options;
    await this.#openRegistry(built);
    const builder = new BuildService(this.#options);
    const images = new Map<string, ServiceImage>();
    for (const service of services) {
      if (service.build === undefined) {
        const name = service.image!;
        images.set(service.name, { name, identity: name, version: tagOf(name) });
        continue;
      }
      const name = imageName(configuration, service, version);
      if (this.#options.build) await builder.build(service);
      const identity = await this.#digest(name) ?? await builder.imageId(name) ?? name;
      images.set(service.name, { name, identity, version });
    }
    this.#pullingHosts = hostsPulling(services, images, configuration.builder.registry.server);
    return images;
  }

  async #openRegistry(built: readonly ServiceConfiguration[]): Promise<void> {
    const { configuration, process, signal, build, push = true } = this.#options;
    const { registry, engine } = configuration.builder;
    if (built.length === 0 || !push) return;
    if (registry.type === "local") {
      this.#registry = startImageRegistry({ folder: this.#folder, port: registry.port });
      return;
    }
    const login = registry.login();
    if (login !== undefined && build) await loginHere(login, { process, engine, signal });
  }

  /** The manifest's digest, so that a rebuilt but equal image is no change. */
  async #digest(name: string): Promise<string | undefined> {
    if (this.#registry === undefined) return undefined;
    const path = name.slice(name.indexOf("/") + 1);
    const colon = path.lastIndexOf(":");
    const manifest = await this.#store.getManifest(path.slice(0, colon), path.slice(colon + 1));
    return manifest?.digest;
  }

  /**
   * Lets servers reach the registry while their images are pulled.
   *
   * @throws {RegistryError} when the remote registry does not let a server in.
   */
  async connect(hosts: Iterable<RemoteHost>): Promise<void> {
    const { configuration, signal } = this.#options;
    const { registry, engine } = configuration.builder;
    const local = this.#registry;
    const { project } = configuration;
    const chosen = [...hosts];
    if (local !== undefined) {
      const forwards = await Promise.all(
        chosen.map((host) =>
          leadPort(host, { remote: registry.port, local: local.readOnlyPort }, signal)
        ),
      );
      for (const forward of forwards) this.#undo.push(() => forward[Symbol.asyncDispose]());
      return;
    }
    const pulling = chosen.filter((host) => this.#pullingHosts.has(host.name));
    const login = pulling.length > 0 ? registry.login() : undefined;
    if (login === undefined) return;
    const attempts = await Promise.allSettled(pulling.map(async (host) => {
      const kept = await loginOn(host, login, { engine, project, keep: false, signal });
      if (!kept) this.#undo.push(() => logoutOn(host, project));
    }));
    const failed = attempts.find((attempt) => attempt.status === "rejected");
    if (failed) throw failed.reason;
  }

  /** Ends forwards and registry; servers forget the logins they got for this deploy. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#undo.map((undo) => undo()));
    await this.#registry?.[Symbol.asyncDispose]();
  }
}

/** Where this machine keeps the layers it has shipped through the local registry. */
export function registryFolder(cacheFolder: string): string {
  return join(cacheFolder, "registry");
}

/** Servers that pull an image, built or not, from this registry. */
function hostsPulling(
  services: readonly ServiceConfiguration[],
  images: ReadonlyMap<string, ServiceImage>,
  server: string | undefined,
): Set<string> {
  const from = services.filter(({ name }) => registryHostOf(images.get(name)!.name) === server);
  return new Set(from.flatMap((service) => service.hosts));
}

/** Tag of an image reference: `latest` when none is written, the digest's start when one is. */
export function tagOf(image: string): string {
  const digest = /@sha256:([a-f0-9]{12})/.exec(image);
  if (digest) return digest[1]!;
  const last = image.slice(image.lastIndexOf("/") + 1);
  const colon = last.indexOf(":");
  return colon < 0 ? "latest" : last.slice(colon + 1);
}
