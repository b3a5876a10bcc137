import { join } from "node:path";
import type { Process } from "@jiji/core";
import type { Configuration } from "../configuration/configuration.ts";
import type { ServiceConfiguration } from "../configuration/service.ts";
import type { Emit } from "../output/events.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { BuildService, imageName } from "../services/build_service.ts";
import type { ServiceImage } from "../services/desired_services.ts";
import { ImageStore } from "./image_store.ts";
import { type RunningRegistry, startImageRegistry } from "./image_registry.ts";

/** What shipping images needs. */
export interface ShippingOptions {
  readonly configuration: Configuration;
  readonly process: Process;
  readonly version: string;
  /** Build and push; otherwise the version must have been shipped before. */
  readonly build: boolean;
  readonly cache: boolean;
  readonly signal: AbortSignal;
  readonly emit: Emit;
  readonly now: () => number;
}

/**
 * Gets images to where servers can pull them. The `registry` transport: this process is the
 * registry, and each server reaches it through its own SSH connection, on loopback at both ends.
 */
export class ImageShipping implements AsyncDisposable {
  readonly #options: ShippingOptions;
  readonly #store: ImageStore;
  readonly #folder: string;
  #registry: RunningRegistry | undefined;
  readonly #forwards: AsyncDisposable[] = [];

  /** @param cacheFolder where this machine keeps pushed layers between deploys. */
  constructor(options: ShippingOptions, cacheFolder: string) {
    this.#options = options;
    this.#folder = join(cacheFolder, "registry");
    this.#store = new ImageStore(this.#folder);
  }

  /**
   * Builds what must be built and tells each service's image.
   *
   * @throws {JijiError} when a build or push fails.
   */
  async prepare(services: readonly ServiceConfiguration[]): Promise<Map<string, ServiceImage>> {
    const built = services.filter((service) => service.build !== undefined);
    const { configuration, version } = this.#options;
    if (built.length > 0 && configuration.builder.registry.type === "local") {
      this.#registry = startImageRegistry({
        folder: this.#folder,
        port: configuration.builder.registry.port,
      });
    }
    const builder = new BuildService(this.#options);
    const images = new Map<string, ServiceImage>();
    for (const service of services) {
      if (service.build === undefined) {
        const name = service.image!;
        images.set(service.name, { name, identity: name, version: tagOf(name) });
        continue;
      }
      const name = imageName(configuration, service, version);
      if (this.#options.build) await builder.buildAndPush(service);
      images.set(service.name, { name, identity: await this.#digest(name), version });
    }
    return images;
  }

  /** The manifest's digest, so that a rebuilt but equal image is no change. */
  async #digest(name: string): Promise<string> {
    if (this.#registry === undefined) return name;
    const path = name.slice(name.indexOf("/") + 1);
    const colon = path.lastIndexOf(":");
    const manifest = await this.#store.getManifest(path.slice(0, colon), path.slice(colon + 1));
    return manifest?.digest ?? name;
  }

  /** Lets servers reach the registry while their images are pulled. */
  async connect(hosts: Iterable<RemoteHost>): Promise<void> {
    const registry = this.#registry;
    if (registry === undefined) return;
    const { port } = this.#options.configuration.builder.registry;
    const forwards = await Promise.all(
      [...hosts].map((host) => host.reverseForward(port, registry.readOnlyPort)),
    );
    this.#forwards.push(...forwards);
  }

  /** Ends forwards and registry. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#forwards.map((forward) => forward[Symbol.asyncDispose]()));
    await this.#registry?.[Symbol.asyncDispose]();
  }
}

/** Tag of an image reference: `latest` when none is written, the digest's start when one is. */
export function tagOf(image: string): string {
  const digest = /@sha256:([a-f0-9]{12})/.exec(image);
  if (digest) return digest[1]!;
  const last = image.slice(image.lastIndexOf("/") + 1);
  const colon = last.indexOf(":");
  return colon < 0 ? "latest" : last.slice(colon + 1);
}
