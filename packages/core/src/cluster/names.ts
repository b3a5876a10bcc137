/** Names of projects: lower-case words joined by `-` or `_`, 1–50 characters. */
export const PROJECT_NAME: RegExp = /^(?=.{1,50}$)[a-z0-9]+([_-][a-z0-9]+)*$/;
/** Names of services: as projects, so that `{project}-{service}` is a DNS label. */
export const SERVICE_NAME: RegExp = /^(?=.{1,50}$)[a-z0-9]+([_-][a-z0-9]+)*$/;
/** Names of servers: DNS labels (RFC 1123 section 2.1), lower case. */
export const SERVER_NAME: RegExp = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** What identifies a service. Two projects may have services of the same name. */
export interface ServiceKey {
  readonly project: string;
  readonly service: string;
}

/** `{project}-{service}`: the container's name and the first DNS label. */
export function serviceLabel(key: ServiceKey): string {
  return `${key.project}-${key.service}`;
}

/**
 * Container name of instance `index` (1 = first): `{project}-{service}`, later ones with `-2`, `-3`.
 */
export function containerName(key: ServiceKey, index = 1): string {
  return index === 1 ? serviceLabel(key) : `${serviceLabel(key)}-${index}`;
}

/** Name of a container that is being replaced: `{name}_old_{epoch ms}`. */
export function oldContainerName(name: string, nowMs: number): string {
  return `${name}_old_${nowMs}`;
}

/** Name of a container that is about to go without a successor: `{name}_leaving_{epoch ms}`. */
export function leavingContainerName(name: string, nowMs: number): string {
  return `${name}_leaving_${nowMs}`;
}

/** Whether a container is about to go: nobody is to find it by name or route any more. */
export function isLeavingName(name: string): boolean {
  return /_leaving_\d+$/.test(name);
}

/** Name of instance `index` of a service on a server: the server's, later ones with `-2`, `-3`. */
export function instanceName(server: string, index = 1): string {
  return index === 1 ? server : `${server}-${index}`;
}

/** Name of a route in kamal-proxy: `{project}-{service}-{app_port}`. */
export function proxyTargetName(key: ServiceKey, appPort: number): string {
  return `${serviceLabel(key)}-${appPort}`;
}

/**
 * DNS names of a container, without the domain: `{project}-{service}` and
 * `{project}-{service}-{instance}`, lower case.
 */
export function dnsLabels(key: ServiceKey, instance: string): string[] {
  const label = serviceLabel(key).toLowerCase();
  return instance ? [label, `${label}-${instance.toLowerCase()}`] : [label];
}
