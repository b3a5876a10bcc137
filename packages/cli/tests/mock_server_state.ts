import { PROXY_CONTAINER, type ServerConfig } from "@jiji/core";

/** A container in the small engine of a {@link MockServerState}. */
export interface MockContainer {
  readonly id: string;
  name: string;
  readonly image: string;
  running: boolean;
  exitCode: number;
  readonly createdAtMs: number;
  readonly labels: Readonly<Record<string, string>>;
  /** Pinned address; held while it runs. */
  readonly address: string;
  /** Ports of the server, `8080/tcp`. */
  readonly hostPorts: readonly string[];
  /** Text of the environment file it was started with. */
  readonly environment: string;
}

/** A file that was uploaded. */
export interface MockFile {
  readonly bytes: Uint8Array;
  readonly mode: number;
  owner: string;
}

/**
 * Images by name decide how a container behaves: `crashes` ends at once, `unhealthy` runs and never
 * answers, `unstartable` can't be run, `missing` can't be pulled,
 * `unmigratable` fails its release command.
 */
export function behaves(
  image: string,
  as: "crashes" | "unhealthy" | "unstartable" | "missing" | "unmigratable",
) {
  return image.includes(as);
}

/** A server: its containers, images, files and the routes of its proxy. */
export class MockServerState {
  readonly name: string;
  readonly config: ServerConfig;
  readonly cluster: MockCluster;
  readonly containers: MockContainer[] = [];
  readonly images = new Set<string>();
  readonly files = new Map<string, MockFile>();
  readonly folders = new Set<string>();
  /** Last words of release commands that ran. */
  readonly released: string[] = [];
  /** Targets by route. */
  readonly routes = new Map<string, string[]>();
  /** Whether the volume of the proxy exists. */
  proxyVolume = false;
  /** kamal-proxy says it switched and did not. */
  proxyLies = false;
  /** kamal-proxy refuses every switch. */
  proxyRefuses = false;
  /** jiji-dns does not follow. */
  dnsFrozen = false;

  /** @param index gives the server its block. */
  constructor(cluster: MockCluster, name: string, index: number) {
    this.cluster = cluster;
    this.name = name;
    this.config = {
      format: 1,
      server_id: name,
      engine: cluster.engine,
      cluster_cidr: "10.210.0.0/16",
      block: `10.210.${index}.0/24`,
      management_ip: `fdcc::${index + 1}`,
      wireguard_public_key: "A".repeat(42) + "8=",
      wireguard_port: 31820,
      endpoints: [],
      service_domain: "jiji",
    };
  }

  /** The container of this name, running or not. */
  find(name: string): MockContainer | undefined {
    return this.containers.find((container) => container.name === name || container.id === name);
  }

  /** Whether a container answers at this address. */
  answersAt(address: string): boolean {
    return this.containers.some((container) =>
      container.running && container.address === address && !behaves(container.image, "unhealthy")
    );
  }

  /** Whether requests to a route get an answer. */
  serves(route: string): boolean {
    const targets = this.routes.get(route) ?? [];
    return this.find(PROXY_CONTAINER)?.running === true && targets.length > 0 &&
      targets.every((target) => this.answersAt(target.split(":")[0]!));
  }
}

/** Servers that know each other. Disposed, it fails the test for what must never happen. */
export class MockCluster implements Disposable {
  readonly engine: "docker" | "podman";
  readonly servers = new Map<string, MockServerState>();
  /** Commands that the mocks do not know. */
  readonly unknown: string[] = [];
  /** Moments at which a route that had served did not. */
  readonly violations: string[] = [];
  /** Set for services that are stopped first. */
  mayBeDown = false;
  readonly #served = new Set<string>();
  #tick = 0;

  /** @param names of the servers. */
  constructor(names: readonly string[], engine: "docker" | "podman" = "docker") {
    this.engine = engine;
    names.forEach((name, index) => {
      this.servers.set(name, new MockServerState(this, name, index));
    });
  }

  /** The server of this name. */
  server(name: string): MockServerState {
    const state = this.servers.get(name);
    if (state === undefined) throw new Error(`there is no server ${name}`);
    return state;
  }

  /** A new instant; later calls give later ones. */
  nextMs(): number {
    return 1_764_000_000_000 + this.#tick++;
  }

  /**
   * What jiji-dns answers for `{project}-{service}`: of each server's instances the newest healthy
   * container that is not about to go, as the daemons there would report it.
   */
  resolve(label: string): string[] {
    return [...this.servers.values()].flatMap((state) => {
      const own = state.containers
        .filter((container) =>
          `${container.labels["jiji.project"]}-${container.labels["jiji.service"]}` === label &&
          container.running && !behaves(container.image, "unhealthy") &&
          !/_leaving_\d+$/.test(container.name)
        )
        .sort((a, b) => b.createdAtMs - a.createdAtMs);
      const instances = new Set(own.map((container) => container.labels["jiji.instance"]));
      return [...instances].flatMap((instance) =>
        own.find((container) => container.labels["jiji.instance"] === instance)?.address || []
      );
    });
  }

  /** Looks after every command whether what served still serves. */
  inspect(after: string): void {
    for (const state of this.servers.values()) {
      for (const route of state.routes.keys()) {
        const key = `${route} on ${state.name}`;
        if (state.serves(route)) this.#served.add(key);
        else if (this.#served.has(key) && !this.mayBeDown) {
          this.violations.push(`${key} does not answer after: ${after}`);
        }
      }
    }
  }

  /** @throws {Error} when a command was unknown or a route had stopped serving. */
  [Symbol.dispose](): void {
    const problems = [
      ...this.unknown.map((text) => `unknown command: ${text}`),
      ...this.violations,
    ];
    if (problems.length > 0) throw new Error(problems.join("\n"));
  }
}
