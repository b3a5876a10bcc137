import type { Secret } from "@jiji/core/runtime";
import type { Cidr } from "@jiji/core/net";
import type { ServerSsh } from "../../types/server_connection.ts";
import type {
  BuildSettings,
  EngineName,
  HealthCheckSettings,
  MountedPath,
  OnFailure,
  PortMapping,
  ProxyTarget,
  RestartPolicy,
} from "./config_types.ts";

/** @internal */
export interface RegistryConfiguration {
  readonly type: "local" | "remote";
  readonly port: number;
  readonly server?: string;
  readonly username?: string;
  readonly password?: Secret;
  readonly imagePrefix: string;
}
/** @internal */
export interface BuilderConfiguration {
  readonly engine: EngineName;
  readonly local: boolean;
  readonly cache: boolean;
  readonly registry: RegistryConfiguration;
}
/** @internal */
export interface ServerConfiguration {
  readonly name: string;
  readonly host: string;
  readonly arch: "amd64" | "arm64";
  readonly ssh: ServerSsh;
}
/** @internal */
export interface SSHConfiguration {
  readonly maxConcurrentStarts: number;
}
/** @internal */
export interface NetworkConfiguration {
  readonly enabled: boolean;
  readonly clusterCidr: Cidr;
  readonly clusterCidrText: string;
  readonly blockPrefix: number;
  readonly serviceDomain: "jiji";
  readonly wireguardPort: number;
  /** Path or URL of a Corrosion binary. */
  readonly corrosion?: string;
}
/** @internal */
export interface DeployConfiguration {
  readonly maxParallel: number;
  readonly onFailure: OnFailure;
  readonly healthTimeoutMs: number;
  readonly drainTimeoutMs: number;
}
/** @internal */
export interface EnvironmentConfiguration {
  readonly clear: Readonly<Record<string, string>>;
  readonly secretNames: readonly string[];
  resolveSecrets(): Map<string, Secret>;
}
/** @internal */
export interface ProxyConfiguration {
  readonly targets: readonly ProxyTarget[];
}
/** @internal */
export interface ServiceConfiguration {
  readonly name: string;
  readonly image?: string;
  readonly build?: BuildSettings;
  readonly hosts: readonly string[];
  readonly ports: readonly PortMapping[];
  /** Text that the engine takes after `--volume`. */
  readonly volumes: readonly string[];
  readonly files: readonly MountedPath[];
  readonly directories: readonly MountedPath[];
  readonly environment: EnvironmentConfiguration;
  readonly command?: readonly string[];
  readonly networkMode: string;
  readonly cpus?: number;
  readonly memory?: string;
  readonly gpus?: string;
  readonly devices: readonly string[];
  readonly privileged: boolean;
  readonly capAdd: readonly string[];
  readonly stopFirst: boolean;
  readonly restart: RestartPolicy;
  readonly retain: number;
  readonly stopGraceSeconds: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly proxy?: ProxyConfiguration;
  /** Of the container; for a proxied service that of its first target. */
  readonly healthcheck: HealthCheckSettings;
  /** `.jiji/deploy.yml:31:17` of a key of this service, for error texts. */
  positionOf(path?: readonly (string | number)[]): string;
}
/** @internal */
export interface Configuration {
  readonly project: string;
  readonly projectRoot: string;
  readonly file: string;
  readonly environmentName?: string;
  readonly builder: BuilderConfiguration;
  readonly servers: ReadonlyMap<string, ServerConfiguration>;
  readonly ssh: SSHConfiguration;
  readonly network: NetworkConfiguration;
  readonly deploy: DeployConfiguration;
  readonly services: ReadonlyMap<string, ServiceConfiguration>;
  /** Secrets by name. Throws one ConfigError that names every missing one. */
  resolveSecrets(names: Iterable<string>): Map<string, Secret>;
  positionOf(path?: readonly (string | number)[]): string;
  validate(): void;
}
