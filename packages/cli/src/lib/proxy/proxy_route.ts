/** Routes as kamal-proxy takes them; pure. Source of every flag: kamal-proxy 0.9.2, `deploy.go`. */
import { type ProxyRoute, proxyTargetName, VOUCHED_FLAGS } from "@jiji/core";
import type {
  BufferingSettings,
  HealthCheckSettings,
  ProxyTarget,
} from "../configuration/config_types.ts";
import type { Configuration } from "../configuration/configuration.ts";
import type { ServiceConfiguration } from "../configuration/service.ts";

/** Go duration text. Source: Go `time.ParseDuration`. */
function goDuration(durationMs: number): string {
  return durationMs % 1000 === 0 ? `${durationMs / 1000}s` : `${durationMs}ms`;
}

/** A flag, unless it has no value: then it keeps kamal-proxy's default. */
function flag(name: string, value: string | number | boolean | undefined): string[] {
  return value === undefined ? [] : [`--${name}=${value}`];
}

/**
 * The route of a target. `certificate` is the path in the proxy's container of a certificate that
 * the user brought.
 */
export function proxyRoute(
  configuration: Configuration,
  service: ServiceConfiguration,
  options: { readonly target: ProxyTarget; readonly certificate: string | undefined },
): ProxyRoute {
  const { target } = options;
  const key = { project: configuration.project, service: service.name };
  const flags = [
    ...target.hosts.flatMap((name) => flag("host", name)),
    ...flag("canonical-host", target.canonicalHost),
    ...flag("path-prefix", target.pathPrefix),
    ...flag("strip-path-prefix", target.stripPathPrefix),
    ...tlsFlags(target, options.certificate),
    ...flag("forward-headers", forwardHeaders(configuration, target)),
    ...flag(
      "target-timeout",
      target.responseTimeoutMs === undefined ? undefined : goDuration(target.responseTimeoutMs),
    ),
    ...bufferingFlags(target.buffering),
    ...(target.logHeaders?.request ?? []).flatMap((name) => flag("log-request-header", name)),
    ...(target.logHeaders?.response ?? []).flatMap((name) => flag("log-response-header", name)),
    ...healthFlags(target, target.healthcheck),
  ];
  return {
    name: proxyTargetName(key, target.appPort),
    app_port: target.appPort,
    flags: flags.sort(),
  };
}

/** Below a path prefix kamal-proxy takes TLS from the service at the root path of the same host. */
function tlsFlags(target: ProxyTarget, certificate: string | undefined): string[] {
  if (target.ssl === false || target.pathPrefix !== undefined) return [];
  return [
    "--tls",
    ...flag("tls-redirect", target.sslRedirect),
    // One file holds both: Go picks the blocks of the kind it looks for.
    ...flag("tls-certificate-path", certificate),
    ...flag("tls-private-key-path", certificate),
  ];
}

/**
 * kamal-proxy believes the client's `X-Forwarded-*` unless the service itself has TLS, which one
 * below a path prefix has only by inheritance: it would believe what nobody checked.
 */
function forwardHeaders(configuration: Configuration, target: ProxyTarget): boolean | undefined {
  if (target.forwardHeaders !== undefined || target.pathPrefix === undefined) {
    return target.forwardHeaders;
  }
  const inherits = [...configuration.services.values()]
    .flatMap((service) => service.proxy?.targets ?? [])
    .some((other) =>
      other.ssl !== false && other.pathPrefix === undefined &&
      other.hosts.some((host) => target.hosts.includes(host))
    );
  return inherits ? false : undefined;
}

function bufferingFlags(buffering: BufferingSettings | undefined): string[] {
  if (buffering === undefined) return [];
  return [
    ...(buffering.requests ? ["--buffer-requests"] : []),
    ...(buffering.responses ? ["--buffer-responses"] : []),
    ...flag("buffer-memory", buffering.memoryBytes),
    ...flag("max-request-body", buffering.maxRequestBytes),
    ...flag("max-response-body", buffering.maxResponseBytes),
  ];
}

/**
 * The proxy makes a check by HTTP itself. Any other is ours to make: the health gate ran before, and
 * jiji-daemon vouches for the target while the route is set.
 */
function healthFlags(target: ProxyTarget, check: HealthCheckSettings): string[] {
  if (check.kind !== "http") return [...VOUCHED_FLAGS];
  return [
    ...flag("health-check-path", check.path),
    ...flag("health-check-port", check.port === target.appPort ? undefined : check.port),
    ...flag("health-check-interval", goDuration(check.intervalMs)),
    ...flag("health-check-timeout", goDuration(check.timeoutMs)),
    ...flag("health-check-host", target.hosts.find((name) => !name.startsWith("*"))),
  ];
}
