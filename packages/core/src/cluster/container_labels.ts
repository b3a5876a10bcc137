import * as v from "valibot";
import { parseIpv4 } from "../net/ip.ts";
import { PROJECT_NAME, SERVICE_NAME } from "./names.ts";

/** Label keys on every container that jiji starts: the containers are the truth. */
export const LABELS = {
  project: "jiji.project",
  service: "jiji.service",
  instance: "jiji.instance",
  version: "jiji.version",
  deployment: "jiji.deployment",
  /** Hash of everything that makes the container what it is; equal hash, nothing to do. */
  config: "jiji.config",
  /** JSON of {@link ContainerParts}: says by name what changed. */
  parts: "jiji.parts",
  /** Set on containers that are none of a service's instances, e.g. a release command's. */
  role: "jiji.role",
  /** JSON of {@link HealthCheck}. */
  health: "jiji.health",
  /** JSON list of {@link ProxyRoute}. */
  proxy: "jiji.proxy",
  /** JSON list of container ports, e.g. `["3000/tcp"]`. */
  ports: "jiji.ports",
  /** The container's pinned address in the server's block; known also while it is stopped. */
  address: "jiji.address",
} as const;

const PortNumber = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535));
const Ms = v.pipe(v.number(), v.integer(), v.minValue(1));

const HealthCheckSchema = v.variant("kind", [
  v.object({
    kind: v.literal("http"),
    port: PortNumber,
    path: v.pipe(v.string(), v.regex(/^\/[^\s]*$/)),
    /** Host header to send; the container's address when absent. */
    host: v.optional(v.pipe(v.string(), v.regex(/^[A-Za-z0-9.-]+$/))),
    interval_ms: Ms,
    timeout_ms: Ms,
  }),
  v.object({ kind: v.literal("tcp"), port: PortNumber, interval_ms: Ms, timeout_ms: Ms }),
  v.object({
    kind: v.literal("command"),
    /** Run inside the container with `/bin/sh -c`. */
    command: v.string(),
    interval_ms: Ms,
    timeout_ms: Ms,
  }),
  /** The image's HEALTHCHECK when it has one, else running is healthy. */
  v.object({ kind: v.literal("engine"), interval_ms: Ms, timeout_ms: Ms }),
]);

/** How to tell that a container is fit to serve. */
export type HealthCheck = v.InferOutput<typeof HealthCheckSchema>;

const ProxyRouteSchema = v.object({
  /** Name in kamal-proxy, `{project}-{service}-{app_port}`. */
  name: v.pipe(v.string(), v.regex(/^[a-z0-9][a-z0-9_.-]*$/)),
  app_port: PortNumber,
  /** Every further flag of `kamal-proxy deploy`, without `--target`, sorted. */
  flags: v.array(v.pipe(v.string(), v.regex(/^--[a-z-]+(=[^\0]*)?$/))),
});

/** A route that the server's proxy must have while the container lives. */
export type ProxyRoute = v.InferOutput<typeof ProxyRouteSchema>;

const PartsSchema = v.object({
  environment: v.record(v.string(), v.string()),
  options: v.record(v.string(), v.string()),
});

/** A few digits of a hash for each variable and option of a container. */
export type ContainerParts = v.InferOutput<typeof PartsSchema>;

/** What jiji's labels say of a container. */
export interface ContainerLabels {
  readonly project: string;
  readonly service: string;
  readonly instance: string;
  readonly version: string;
  readonly deployment: string;
  readonly config: string;
  readonly parts: ContainerParts;
  readonly health: HealthCheck;
  readonly proxy: readonly ProxyRoute[];
  readonly ports: readonly string[];
  /** Pinned address, or "" when the container is not on jiji's network. */
  readonly address: string;
}

const DEFAULT_HEALTH: HealthCheck = { kind: "engine", interval_ms: 5_000, timeout_ms: 5_000 };

/** Labels as the engine stores them. */
export function renderContainerLabels(labels: ContainerLabels): Record<string, string> {
  return {
    [LABELS.project]: labels.project,
    [LABELS.service]: labels.service,
    [LABELS.instance]: labels.instance,
    [LABELS.version]: labels.version,
    [LABELS.deployment]: labels.deployment,
    [LABELS.config]: labels.config,
    [LABELS.parts]: JSON.stringify(labels.parts),
    [LABELS.health]: JSON.stringify(labels.health),
    [LABELS.proxy]: JSON.stringify(labels.proxy),
    [LABELS.ports]: JSON.stringify(labels.ports),
    [LABELS.address]: labels.address,
  };
}

/**
 * jiji's labels among an engine's, or undefined when the container is no instance of a service of
 * ours. Parts that do not parse fall back to the safest meaning (engine health, no routes), since
 * anyone can set a label.
 */
export function parseContainerLabels(
  raw: Readonly<Record<string, string>>,
): ContainerLabels | undefined {
  const project = raw[LABELS.project] ?? "";
  const service = raw[LABELS.service] ?? "";
  if (!PROJECT_NAME.test(project) || !SERVICE_NAME.test(service)) return undefined;
  if (raw[LABELS.role] !== undefined) return undefined;
  const instance = raw[LABELS.instance] ?? "";
  return {
    project,
    service,
    instance: /^[a-z0-9-]{0,63}$/.test(instance) ? instance : "",
    version: raw[LABELS.version] ?? "",
    deployment: raw[LABELS.deployment] ?? "",
    config: raw[LABELS.config] ?? "",
    parts: parseJson(raw[LABELS.parts], PartsSchema) ?? { environment: {}, options: {} },
    health: parseJson(raw[LABELS.health], HealthCheckSchema) ?? DEFAULT_HEALTH,
    proxy: parseJson(raw[LABELS.proxy], v.array(ProxyRouteSchema)) ?? [],
    ports: parseJson(raw[LABELS.ports], v.array(v.string())) ?? [],
    address: parseIpv4(raw[LABELS.address] ?? "") === undefined ? "" : raw[LABELS.address] ?? "",
  };
}

function parseJson<T>(
  text: string | undefined,
  schema: v.GenericSchema<unknown, T>,
): T | undefined {
  if (text === undefined) return undefined;
  try {
    const parsed = v.safeParse(schema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/** A container in the file of those that are healthy: the deployment that made it, and its name. */
export function renderHealthyLine(
  container: { readonly deployment: string; readonly name: string },
): string {
  return `${container.deployment} ${container.name}`;
}
