import { type ContainerLabels, type Secret, SERVER_PATHS } from "@jiji/core";
import type { DesiredService, ShippedFile, ShippedFolder } from "../../types/deployment.ts";
import type { HealthCheckSettings } from "../configuration/config_types.ts";
import type { Configuration } from "../configuration/configuration.ts";
import type { ServiceConfiguration } from "../configuration/service.ts";
import type { ContainerSpec } from "../engine/container_run.ts";
import { certificatePath, type ServiceCertificates } from "../proxy/certificates.ts";
import { proxyRoute } from "../proxy/proxy_route.ts";
import { fingerprintOf, shortHash } from "./fingerprints.ts";
import { listLocalFiles } from "../../utils/local_files.ts";
import { registryAuthFolder, registryHostOf } from "../registry/registry_commands.ts";

/** An image as a container is made from it. */
export interface ServiceImage {
  /** Name that the server's engine pulls. */
  readonly name: string;
  /** What identifies its content: a digest, or the name when there is none. */
  readonly identity: string;
  readonly version: string;
}

/** A service's whole environment: clear values and secrets. */
export function serviceEnvironment(
  service: ServiceConfiguration,
  secrets: ReadonlyMap<string, Secret>,
): Map<string, string> {
  const environment = new Map(Object.entries(service.environment.clear));
  for (const name of service.environment.secretNames) {
    const secret = secrets.get(name);
    if (secret) environment.set(name, secret.reveal());
  }
  return environment;
}

/**
 * What a service should be, from configuration, image and environment. The environment goes in only
 * as one hash, salted with the project's and service's name.
 */
export async function desiredService(
  configuration: Configuration,
  service: ServiceConfiguration,
  facts: {
    readonly image: ServiceImage;
    readonly environment: ReadonlyMap<string, string>;
    readonly certificates?: ServiceCertificates | undefined;
  },
): Promise<DesiredService> {
  const { project } = configuration;
  const { files, folders, mounts } = await shippedFiles(project, service);
  const spec = containerSpec(configuration, service, { image: facts.image.name, mounts });
  const routes = (service.proxy?.targets ?? []).map((target) => {
    const certificate = facts.certificates?.get(target.appPort);
    const path = certificate && certificatePath(certificate);
    return proxyRoute(configuration, service, { target, certificate: path });
  });
  const health = healthLabel(service.healthcheck, service.proxy?.targets[0]?.hosts[0]);
  const ports = service.ports.map((port) => `${port.containerPort}/${port.protocol}`);
  const { image: _, volumes: __, ...options } = spec;
  return {
    project,
    service: service.name,
    version: facts.image.version,
    hosts: service.hosts,
    scale: service.scale,
    release: service.releaseCommand,
    spec,
    fingerprint: fingerprintOf({
      salt: [project, service.name],
      image: facts.image.identity,
      environment: facts.environment,
      options: {
        ...options,
        volumes: service.volumes,
        files: mounts,
        proxy: routes,
        health,
        ports,
      },
    }),
    health,
    healthTimeoutMs: service.healthcheck.deployTimeoutMs,
    routes,
    ports,
    stopFirst: service.stopFirst || service.ports.some((port) => port.hostPort !== undefined),
    drainTimeoutMs: service.drainTimeoutMs ?? configuration.deploy.drainTimeoutMs,
    retain: service.retain,
    files,
    folders,
    certificates: [...facts.certificates?.values() ?? []],
    secretNames: service.environment.secretNames,
    built: service.build !== undefined,
    pull: service.build === undefined ? "missing" : "always",
    ...(facts.image.identity.startsWith("sha256:") ? { imageDigest: facts.image.identity } : {}),
    ...(registryHostOf(facts.image.name) === configuration.builder.registry.server
      ? { authFolder: registryAuthFolder(project) }
      : {}),
  };
}

function containerSpec(
  configuration: Configuration,
  service: ServiceConfiguration,
  facts: { readonly image: string; readonly mounts: readonly string[] },
): ContainerSpec {
  const podman = configuration.builder.engine === "podman";
  return {
    image: facts.image,
    command: service.command ?? [],
    published: service.ports.flatMap((port) =>
      port.hostPort === undefined ? [] : [{
        ...(port.hostIp === undefined ? {} : { hostIp: port.hostIp }),
        hostPort: port.hostPort,
        containerPort: port.containerPort,
        protocol: port.protocol,
      }]
    ),
    volumes: [...service.volumes, ...facts.mounts],
    networkMode: service.networkMode,
    // podman-restart.service brings back only `always` after a reboot. Source: podman-run(1).
    restart: podman && service.restart === "unless-stopped" ? "always" : service.restart,
    ...(service.cpus === undefined ? {} : { cpus: String(service.cpus) }),
    ...(service.memory === undefined ? {} : { memory: service.memory }),
    ...(service.gpus === undefined ? {} : { gpus: service.gpus }),
    devices: service.devices,
    privileged: service.privileged,
    capAdd: service.capAdd,
    labels: service.labels,
    stopGraceSeconds: service.stopGraceSeconds,
    ...(service.logging === undefined ? {} : { logging: service.logging }),
  };
}

function healthLabel(
  settings: HealthCheckSettings,
  host: string | undefined,
): ContainerLabels["health"] {
  const times = { interval_ms: settings.intervalMs, timeout_ms: settings.timeoutMs };
  switch (settings.kind) {
    case "http":
      return {
        kind: "http",
        port: settings.port,
        path: settings.path,
        ...(host === undefined || host.startsWith("*") ? {} : { host }),
        ...times,
      };
    case "tcp":
      return { kind: "tcp", port: settings.port, ...times };
    case "command":
      return { kind: "command", command: settings.command, ...times };
    case "engine":
      return { kind: "engine", ...times };
  }
}

/**
 * Files and directories of a service with the place on the server that names their content, and the
 * mounts that lead there.
 */
async function shippedFiles(
  project: string,
  service: ServiceConfiguration,
): Promise<{ files: ShippedFile[]; folders: ShippedFolder[]; mounts: string[] }> {
  const files: ShippedFile[] = [];
  const folders: ShippedFolder[] = [];
  const mounts: string[] = [];
  const wanted = [
    ...service.files.map((mounted) => ({ mounted, place: "file" })),
    ...service.directories.map((mounted) => ({ mounted, place: "tree" })),
  ];
  for (const { mounted, place } of wanted) {
    const local = await listLocalFiles(mounted.local);
    // Without their places on this machine: another laptop must come to the same name.
    const contents = local.map(({ relative, sha256 }) => ({ relative, sha256 }));
    const hash = shortHash([contents, mounted.mode, mounted.owner]);
    const base = `${SERVER_PATHS.projects}/${project}/files/${service.name}/${hash}`;
    const mode = mounted.mode === undefined ? undefined : parseInt(mounted.mode, 8);
    if (place === "tree") {
      // Who may read a file of a folder may enter the folder.
      const folderMode = mode === undefined ? 0o755 : mode | ((mode & 0o444) >> 2);
      folders.push({ remote: `${base}/${place}`, mode: folderMode, owner: mounted.owner });
    }
    for (const file of local) {
      files.push({
        local: file.path,
        remote: [base, place, file.relative].filter(Boolean).join("/"),
        mode: mode ?? 0o644,
        owner: mounted.owner,
      });
    }
    const options = mounted.options === undefined ? "" : `:${mounted.options}`;
    mounts.push(`${base}/${place}:${mounted.remote}${options}`);
  }
  return { files, folders, mounts };
}
