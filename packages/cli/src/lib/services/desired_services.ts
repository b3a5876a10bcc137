import {
  type ContainerLabels,
  type ProxyRoute,
  proxyTargetName,
  type Secret,
  SERVER_PATHS,
} from "@jiji/core";
import type { DesiredService, ShippedFile } from "../../types/deployment.ts";
import type { HealthCheckSettings, ProxyTarget } from "../configuration/config_types.ts";
import type { Configuration } from "../configuration/configuration.ts";
import type { ServiceConfiguration } from "../configuration/service.ts";
import type { ContainerSpec } from "../engine/container_run.ts";
import { sha256OfText } from "../network/artifacts.ts";
import { listLocalFiles } from "../../utils/local_files.ts";

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

/** Digits of a hash that go into a label; enough to tell versions apart, too few to look back. */
const HASH_DIGITS = 16;

function shortHash(value: unknown): string {
  return sha256OfText(JSON.stringify(value)).slice(0, HASH_DIGITS);
}

/**
 * What a service should be, from configuration, image and environment. The environment goes in only
 * as one hash, salted with the project's and service's name.
 */
export async function desiredService(
  configuration: Configuration,
  service: ServiceConfiguration,
  facts: { readonly image: ServiceImage; readonly environment: ReadonlyMap<string, string> },
): Promise<DesiredService> {
  const { project } = configuration;
  const { files, mounts } = await shippedFiles(project, service);
  const spec = containerSpec(configuration, service, { image: facts.image.name, mounts });
  const routes = (service.proxy?.targets ?? []).map((target) =>
    proxyRoute(configuration, service, target)
  );
  const health = healthLabel(service.healthcheck, service.proxy?.targets[0]?.hosts[0]);
  const ports = service.ports.map((port) => `${port.containerPort}/${port.protocol}`);
  const { image: _, ...options } = spec;
  return {
    project,
    service: service.name,
    version: facts.image.version,
    hosts: service.hosts,
    spec,
    fingerprint: {
      image: shortHash(facts.image.identity),
      environment: shortHash([project, service.name, [...facts.environment].sort()]),
      options: shortHash([options, routes, health, ports]),
    },
    health,
    healthTimeoutMs: service.healthcheck.deployTimeoutMs,
    routes,
    ports,
    stopFirst: service.stopFirst || service.ports.some((port) => port.hostPort !== undefined),
    drainTimeoutMs: configuration.deploy.drainTimeoutMs,
    retain: service.retain,
    files,
    built: service.build !== undefined,
    pull: service.build === undefined ? "missing" : "always",
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

/** Go duration text. Source: Go `time.ParseDuration`. */
function goDuration(durationMs: number): string {
  return durationMs % 1000 === 0 ? `${durationMs / 1000}s` : `${durationMs}ms`;
}

/**
 * The route as kamal-proxy takes it. A check that is not HTTP is ours to make: the health gate ran
 * before, so the proxy is told to believe it (`--force`). Source: kamal-proxy 0.9.2 `deploy --help`.
 */
function proxyRoute(
  configuration: Configuration,
  service: ServiceConfiguration,
  target: ProxyTarget,
): ProxyRoute {
  const { healthcheck } = target;
  const host = target.hosts.find((name) => !name.startsWith("*"));
  const flags = [
    ...target.hosts.map((name) => `--host=${name}`),
    ...(target.pathPrefix === undefined ? [] : [`--path-prefix=${target.pathPrefix}`]),
    ...(target.ssl === true && target.pathPrefix === undefined ? ["--tls"] : []),
    ...(target.responseTimeoutMs === undefined
      ? []
      : [`--target-timeout=${goDuration(target.responseTimeoutMs)}`]),
    ...(healthcheck.kind === "http"
      ? [
        `--health-check-path=${healthcheck.path}`,
        `--health-check-interval=${goDuration(healthcheck.intervalMs)}`,
        `--health-check-timeout=${goDuration(healthcheck.timeoutMs)}`,
        ...(host === undefined ? [] : [`--health-check-host=${host}`]),
      ]
      : ["--force"]),
  ];
  const key = { project: configuration.project, service: service.name };
  return {
    name: proxyTargetName(key, target.appPort),
    app_port: target.appPort,
    flags: flags.sort(),
  };
}

/**
 * Files and directories of a service with the place on the server that names their content, and the
 * mounts that lead there.
 */
async function shippedFiles(
  project: string,
  service: ServiceConfiguration,
): Promise<{ files: ShippedFile[]; mounts: string[] }> {
  const files: ShippedFile[] = [];
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
    for (const file of local) {
      files.push({
        local: file.path,
        remote: [base, place, file.relative].filter(Boolean).join("/"),
        mode: mounted.mode === undefined ? 0o644 : parseInt(mounted.mode, 8),
        owner: mounted.owner,
      });
    }
    const options = mounted.options === undefined ? "" : `:${mounted.options}`;
    mounts.push(`${base}/${place}:${mounted.remote}${options}`);
  }
  return { files, mounts };
}
