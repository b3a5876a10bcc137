import {
  type Argv,
  CONTAINER_NETWORK,
  type ContainerLabels,
  LABELS,
  macOf,
  renderContainerLabels,
} from "@jiji/core";
import type { EngineName } from "./engine_commands.ts";

/** A port mapping as the engine takes it. */
export interface PublishedPort {
  readonly hostIp?: string;
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: "tcp" | "udp";
}

/** Everything that makes a service's container, before name and address. */
export interface ContainerSpec {
  readonly image: string;
  readonly command: readonly string[];
  readonly published: readonly PublishedPort[];
  /** Mounts in the engine's own text form. */
  readonly volumes: readonly string[];
  readonly networkMode: string;
  readonly restart: string;
  readonly cpus?: string;
  readonly memory?: string;
  readonly gpus?: string;
  readonly devices: readonly string[];
  readonly privileged: boolean;
  readonly capAdd: readonly string[];
  /** The user's own labels. */
  readonly labels: Readonly<Record<string, string>>;
  readonly stopGraceSeconds: number;
  /** Absent: Docker's own kind with a limit, Podman's own choice. */
  readonly logging?: {
    readonly driver: string;
    readonly options: Readonly<Record<string, string>>;
  };
}

/** Where and under which name a container starts. */
export interface ContainerPlace {
  readonly engine: EngineName;
  readonly name: string;
  /** Server name, becomes part of the container's host name. */
  readonly dnsServer: string;
  readonly serviceDomain: string;
  /** Path on the server of a 0600 file with every environment variable. */
  readonly envFile: string;
  readonly jijiLabels: ContainerLabels;
}

/** Whether a container of this mode sits on jiji's network. */
export function isOnJijiNetwork(networkMode: string): boolean {
  return networkMode === "bridge";
}

/** `docker run` of a service's container: detached, labelled, with a pinned address. */
export function argvRun(spec: ContainerSpec, place: ContainerPlace): Argv {
  return [
    place.engine,
    "run",
    "--detach",
    "--name",
    place.name,
    ...networkFlags(spec, place),
    "--restart",
    spec.restart,
    "--stop-timeout",
    String(spec.stopGraceSeconds),
    ...logFlags(place.engine, spec.logging),
    ...spec.published.flatMap((port) => ["--publish", renderPublished(port)]),
    ...resourceFlags(spec, place),
    ...labelFlags({ ...spec.labels, ...renderContainerLabels(place.jijiLabels) }),
    spec.image,
    ...spec.command,
  ];
}

/**
 * `docker run` of a one-off command with what the service's containers have, but their ports: it
 * stays in the foreground and is gone when it ends.
 */
export function argvRunOnce(
  spec: ContainerSpec,
  place: ContainerPlace & { readonly command: readonly string[] },
): Argv {
  const role = { [LABELS.role]: "release" };
  return [
    place.engine,
    "run",
    "--rm",
    "--name",
    place.name,
    ...networkFlags(spec, place),
    ...resourceFlags(spec, place),
    ...labelFlags({ ...spec.labels, ...renderContainerLabels(place.jijiLabels), ...role }),
    spec.image,
    ...place.command,
  ];
}

function resourceFlags(spec: ContainerSpec, place: ContainerPlace): string[] {
  return [
    "--env-file",
    place.envFile,
    ...spec.volumes.flatMap((volume) => ["--volume", volume]),
    ...optional("--cpus", spec.cpus),
    ...optional("--memory", spec.memory),
    ...gpuFlags(place.engine, spec.gpus),
    ...spec.devices.flatMap((device) => ["--device", device]),
    ...(spec.privileged ? ["--privileged"] : []),
    ...spec.capAdd.flatMap((capability) => ["--cap-add", capability]),
  ];
}

/**
 * Flags that pin a container's address. Podman makes up a hardware address for each container, and
 * neighbours would send to the former one's for half a minute when an address is given out again;
 * Docker keeps neighbours right by itself. Source: arp(7), docker-run(1), podman-run(1).
 */
export function argvPinned(engine: EngineName, address: string): string[] {
  return ["--ip", address, ...(engine === "podman" ? ["--mac-address", macOf(address)] : [])];
}

function networkFlags(spec: ContainerSpec, place: ContainerPlace): string[] {
  if (!isOnJijiNetwork(spec.networkMode)) return ["--network", spec.networkMode];
  return [
    "--network",
    CONTAINER_NETWORK,
    ...argvPinned(place.engine, place.jijiLabels.address),
    "--dns",
    place.dnsServer,
    // `api` inside its own project, then `{project}-{service}` of any.
    "--dns-search",
    `${place.jijiLabels.project}.${place.serviceDomain}`,
    "--dns-search",
    place.serviceDomain,
    "--dns-option",
    "ndots:1",
  ];
}

/**
 * Docker keeps whatever a container ever wrote unless it is told a limit; Podman writes to the
 * journal, which has its own. Source: docs.docker.com "JSON File logging driver", podman-run(1).
 */
const DOCKER_LOGGING: NonNullable<ContainerSpec["logging"]> = {
  driver: "json-file",
  options: { "max-file": "3", "max-size": "10m" },
};

function logFlags(engine: EngineName, wanted: ContainerSpec["logging"]): string[] {
  const logging = wanted ?? (engine === "docker" ? DOCKER_LOGGING : undefined);
  if (logging === undefined) return [];
  const options = Object.keys(logging.options).sort();
  return [
    "--log-driver",
    logging.driver,
    ...options.flatMap((name) => ["--log-opt", `${name}=${logging.options[name]}`]),
  ];
}

/**
 * Docker reads `--gpus` as a CSV line, so a list of devices stands in quotes. Podman has no such
 * flag; it takes CDI device names. Source: docker-run(1), `--gpus`; podman-run(1), `--device`.
 */
function gpuFlags(engine: EngineName, gpus: string | undefined): string[] {
  if (gpus === undefined) return [];
  if (engine === "docker") return ["--gpus", gpus.includes(",") ? `"${gpus}"` : gpus];
  const devices = gpus.startsWith("device=")
    ? gpus.slice("device=".length).split(",")
    : /^\d+$/.test(gpus)
    ? Array.from({ length: Number(gpus) }, (_, index) => String(index))
    : [gpus];
  return devices.flatMap((device) => ["--device", `nvidia.com/gpu=${device}`]);
}

function optional(flag: string, value: string | undefined): string[] {
  return value === undefined ? [] : [flag, value];
}

function labelFlags(labels: Readonly<Record<string, string>>): string[] {
  return Object.keys(labels).sort().flatMap((key) => ["--label", `${key}=${labels[key]}`]);
}

/** `[ip:]host:container/protocol`. */
export function renderPublished(port: PublishedPort): string {
  const host = port.hostIp === undefined ? "" : `${port.hostIp}:`;
  return `${host}${port.hostPort}:${port.containerPort}/${port.protocol}`;
}
