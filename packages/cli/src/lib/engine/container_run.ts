import {
  type Argv,
  CONTAINER_NETWORK,
  type ContainerLabels,
  LABELS,
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
  /** Values that are not secret; secrets go into {@link ContainerPlace.envFile}. */
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
  const { engine } = place;
  return [
    engine,
    "run",
    "--detach",
    "--name",
    place.name,
    ...networkFlags(spec, place),
    "--restart",
    spec.restart,
    "--stop-timeout",
    String(spec.stopGraceSeconds),
    "--env-file",
    place.envFile,
    ...spec.published.flatMap((port) => ["--publish", renderPublished(port)]),
    ...spec.volumes.flatMap((volume) => ["--volume", volume]),
    ...optional("--cpus", spec.cpus),
    ...optional("--memory", spec.memory),
    ...gpuFlags(engine, spec.gpus),
    ...spec.devices.flatMap((device) => ["--device", device]),
    ...(spec.privileged ? ["--privileged"] : []),
    ...spec.capAdd.flatMap((capability) => ["--cap-add", capability]),
    ...labelFlags({ ...spec.labels, ...renderContainerLabels(place.jijiLabels) }),
    spec.image,
    ...spec.command,
  ];
}

function networkFlags(spec: ContainerSpec, place: ContainerPlace): string[] {
  if (!isOnJijiNetwork(spec.networkMode)) return ["--network", spec.networkMode];
  return [
    "--network",
    CONTAINER_NETWORK,
    "--ip",
    place.jijiLabels.address,
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

/** Podman has no `--gpus`; it takes CDI device names. Source: podman-run(1), `--device`. */
function gpuFlags(engine: EngineName, gpus: string | undefined): string[] {
  if (gpus === undefined) return [];
  return engine === "docker" ? ["--gpus", gpus] : ["--device", `nvidia.com/gpu=${gpus}`];
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

/** Labels a user may not set: they are jiji's. */
export function isReservedLabel(key: string): boolean {
  return key.startsWith("jiji.") || Object.values(LABELS).includes(key as never);
}
