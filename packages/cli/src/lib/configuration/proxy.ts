import * as v from "valibot";
import { BaseConfiguration, type ConfigContext, type Report } from "./base.ts";
import type { HealthCheckSettings, PortMapping, ProxyTarget } from "./config_types.ts";
import type { ConfigPath } from "./format/config_path.ts";
import {
  byteSize,
  duration,
  flag,
  keys,
  list,
  matching,
  port,
  problem,
  quote,
  text,
  variableName,
} from "./format/schema_parts.ts";

/** Rhythm of checks that send something, unless written otherwise. */
const CHECK_INTERVAL_MS = 1_000;
/** Rhythm of asking the engine, unless written otherwise. */
const ENGINE_INTERVAL_MS = 5_000;
const CHECK_TIMEOUT_MS = 5_000;

/** Schema of a health check. */
export const HealthCheckSchema = keys({
  path: v.optional(
    matching(/^\/[^\s\0]*$/, "a path", "starts with /, e.g. /up; no blanks"),
  ),
  cmd: v.optional(text("a command")),
  tcp: v.optional(flag()),
  engine: v.optional(flag()),
  port: v.optional(port()),
  interval: v.optional(duration({ minMs: 1_000, maxMs: 3_600_000 })),
  timeout: v.optional(duration({ minMs: 1, maxMs: 3_600_000 })),
  deploy_timeout: v.optional(duration({ minMs: 1_000, maxMs: 3_600_000 })),
}, {
  cmd_runtime: "the command runs in the container by the server's engine; remove this",
  command: "unknown key, did you mean cmd?",
});

/** Values of {@link HealthCheckSchema}. */
export type HealthCheckValues = v.InferOutput<typeof HealthCheckSchema>;

const CHECK_KINDS = ["path", "cmd", "tcp", "engine"] as const;

/** Problems of a health check that its schema can't see. */
export function checkHealthCheck(
  values: HealthCheckValues,
  path: ConfigPath,
  report: Report,
): void {
  const kinds = CHECK_KINDS.filter((kind) => values[kind] !== undefined && values[kind] !== false);
  if (kinds.length > 1) {
    report([...path, kinds[1]!], `${kinds[0]} and ${kinds[1]} exclude each other`, {
      pointer: "key",
    });
  }
  if (values.port !== undefined && (kinds[0] === "cmd" || kinds[0] === "engine")) {
    report([...path, "port"], `a check by ${kinds[0]} has no port`, { pointer: "key" });
  }
}

/** What a health check falls back to. */
export interface HealthCheckDefaults {
  /** Kind when none is written. */
  readonly kind: "http" | "engine";
  /** Port when none is written; undefined when the service has none. */
  readonly port: number | undefined;
  readonly deployTimeoutMs: number;
}

/** A health check with everything filled in. */
export function healthCheckSettings(
  values: HealthCheckValues,
  defaults: HealthCheckDefaults,
): HealthCheckSettings {
  const port = values.port ?? defaults.port;
  const engineOnly = values.engine === true || port === undefined ||
    (defaults.kind === "engine" && values.path === undefined && values.tcp !== true &&
      values.port === undefined);
  const times = {
    timeoutMs: values.timeout ?? CHECK_TIMEOUT_MS,
    deployTimeoutMs: values.deploy_timeout ?? defaults.deployTimeoutMs,
  };
  const intervalMs = values.interval ?? CHECK_INTERVAL_MS;
  if (values.cmd !== undefined) {
    return { kind: "command", command: values.cmd, intervalMs, ...times };
  }
  if (engineOnly) {
    return { kind: "engine", intervalMs: values.interval ?? ENGINE_INTERVAL_MS, ...times };
  }
  return values.tcp === true
    ? { kind: "tcp", port, intervalMs, ...times }
    : { kind: "http", port, path: values.path ?? "/up", intervalMs, ...times };
}

/** A host name for the proxy, `*.` allowed in front. */
function hostPattern(): v.GenericSchema<unknown, string> {
  return matching(
    /^(?=.{1,253}$)(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i,
    "a host name",
    "e.g. shop.example.com or *.example.com; no scheme, port or path",
  );
}

/** Schema of `buffering`. */
export const BufferingSchema = keys({
  requests: v.optional(flag(), false),
  responses: v.optional(flag(), false),
  max_request_body: v.optional(byteSize()),
  max_response_body: v.optional(byteSize()),
  memory: v.optional(byteSize()),
});

/** Names of HTTP headers. Source: RFC 9110 section 5.6.2, without what shells and lists may take. */
function headerName(): v.GenericSchema<unknown, string> {
  return matching(/^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$/, "a header name", "e.g. User-Agent");
}

/** Schema of `log_headers`. */
export const LogHeadersSchema = keys({
  request: v.optional(list(headerName()), []),
  response: v.optional(list(headerName()), []),
});

const TARGET_ENTRIES = {
  app_port: v.optional(port()),
  host: v.optional(hostPattern()),
  hosts: v.optional(list(hostPattern())),
  ssl: v.optional(
    v.union([
      v.boolean(),
      v.strictObject({ certificate_pem: variableName(), private_key_pem: variableName() }),
    ], (issue) =>
      problem(
        `${quote(issue.input)} is neither true, false nor a pair of certificate names`,
        "true, or certificate_pem and private_key_pem with names of secrets",
      )),
    false,
  ),
  path_prefix: v.optional(
    matching(/^\/[^<>"|?*\s\0]*$/, "a path", 'starts with /, none of <>"|?*'),
  ),
  healthcheck: v.optional(HealthCheckSchema),
  response_timeout: v.optional(duration()),
  ssl_redirect: v.optional(flag()),
  buffering: v.optional(BufferingSchema),
  forward_headers: v.optional(flag()),
  canonical_host: v.optional(hostPattern()),
  strip_path_prefix: v.optional(flag()),
  log_headers: v.optional(LogHeadersSchema),
};

const TARGET_NOTES = {
  port: "unknown key, did you mean app_port?",
  server: "unknown key, did you mean hosts?",
  max_request_body: "write it below `buffering`",
  error_pages: "error pages of your own are not supported; put them into the application",
};

/** Schema of one target of `proxy.targets`. */
export const TargetSchema = keys(TARGET_ENTRIES, TARGET_NOTES);

/** Schema of `proxy`. */
export const ProxySchema = keys(
  { ...TARGET_ENTRIES, targets: v.optional(list(TargetSchema)) },
  TARGET_NOTES,
);

type TargetValues = v.InferOutput<typeof TargetSchema>;
type ProxyValues = v.InferOutput<typeof ProxySchema>;

/** What a service tells its proxy section. */
export interface ProxyOwner {
  /** Undefined when they have problems of their own. */
  ports(): readonly PortMapping[] | undefined;
  /** Default of `deploy_timeout`. */
  healthTimeoutMs(): number;
}

/** Routes of the proxy to a service. */
export class ProxyConfiguration extends BaseConfiguration<ProxyValues> {
  readonly #owner: ProxyOwner;

  /** @param owner asked only when the section is used, so that errors stay apart. */
  constructor(context: ConfigContext, path: ConfigPath, owner: ProxyOwner) {
    super(context, path, ProxySchema);
    this.#owner = owner;
  }

  /** The routes, in the order of the file; at least one. */
  get targets(): readonly ProxyTarget[] {
    const values = this.values;
    return this.memo("targets", () => this.#targets(values).map((target) => this.#target(target)));
  }

  /** Path of a target in the file, below this section. */
  pathOf(index: number): ConfigPath {
    return Array.isArray(this.context.document.at([...this.path, "targets"]))
      ? ["targets", index]
      : [];
  }

  protected override check(values: ProxyValues, report: Report): void {
    if (values.targets !== undefined) {
      for (const key of Object.keys(TARGET_ENTRIES)) {
        if (this.context.document.at([...this.path, key]) === undefined) continue;
        report([key], `${key} and targets exclude each other`, {
          fix: "move it into the targets",
          pointer: "key",
        });
      }
      if (values.targets.length === 0) report(["targets"], "the list is empty");
    }
    const seenPorts = new Set<number>();
    this.#targets(values).forEach((target, index) => {
      this.#checkTarget(target, this.pathOf(index), report);
      if (target.app_port === undefined) return;
      if (seenPorts.has(target.app_port)) {
        report(
          [...this.pathOf(index), "app_port"],
          `another target of this service has app_port ${target.app_port} already`,
          { fix: "list all host names in one target; for paths apart, make another service" },
        );
      }
      seenPorts.add(target.app_port);
    });
  }

  #checkTarget(target: TargetValues, path: ConfigPath, report: Report): void {
    const known = this.#owner.ports()?.filter((mapping) => mapping.protocol === "tcp")
      .map((mapping) => mapping.containerPort);
    const choice = known !== undefined && known.length > 0
      ? `one of its ports: ${known.join(", ")}`
      : "add it to `ports`";
    if (target.app_port === undefined) {
      report(path, "app_port is missing", { fix: `add \`app_port:\`, ${choice}` });
    } else if (known?.includes(target.app_port) === false) {
      report(
        [...path, "app_port"],
        `${target.app_port} is not a container port of this service`,
        { fix: choice },
      );
    }
    if (target.host !== undefined && target.hosts !== undefined) {
      report([...path, "host"], "host and hosts exclude each other", { pointer: "key" });
    }
    const hosts = target.hosts ?? (target.host === undefined ? [] : [target.host]);
    const folded = hosts.map((host) => host.toLowerCase());
    folded.forEach((host, index) => {
      if (folded.indexOf(host) < index) {
        report([...path, "hosts", index], `${host} is listed twice`);
      }
    });
    this.#checkSsl(target, folded, path, report);
    checkOptions(target, folded, path, report);
    if (target.healthcheck !== undefined) {
      checkHealthCheck(target.healthcheck, [...path, "healthcheck"], report);
    }
  }

  #checkSsl(
    target: TargetValues,
    hosts: readonly string[],
    path: ConfigPath,
    report: Report,
  ): void {
    if (target.ssl === false) {
      if (target.ssl_redirect === undefined) return;
      report([...path, "ssl_redirect"], "ssl_redirect means nothing without ssl", {
        fix: "add `ssl: true`, or remove this",
        pointer: "key",
      });
      return;
    }
    if (hosts.length === 0) {
      report([...path, "ssl"], "ssl needs a host name", { fix: "add `host:`" });
    }
    if (target.ssl === true && hosts.some((host) => host.startsWith("*."))) {
      report([...path, "ssl"], "no certificate can be had automatically for a wildcard host", {
        fix: "list the host names one by one, or bring a certificate of your own",
      });
    }
    if (normalPrefix(target.path_prefix) !== undefined) {
      report(
        [...path, "ssl"],
        "a target with path_prefix takes its certificate from the root path",
        {
          fix: "write ssl at the service that has the same host without path_prefix",
        },
      );
    }
  }

  #targets(values: ProxyValues): readonly TargetValues[] {
    return values.targets ?? [values];
  }

  #target(values: TargetValues): ProxyTarget {
    const prefix = normalPrefix(values.path_prefix);
    const appPort = values.app_port ?? 0;
    return {
      appPort,
      hosts: (values.hosts ?? (values.host === undefined ? [] : [values.host]))
        .map((host) => host.toLowerCase()),
      ...(prefix === undefined ? {} : { pathPrefix: prefix }),
      ssl: typeof values.ssl === "boolean" ? values.ssl : {
        certificatePem: values.ssl.certificate_pem,
        privateKeyPem: values.ssl.private_key_pem,
      },
      healthcheck: healthCheckSettings(values.healthcheck ?? {}, {
        kind: "http",
        port: appPort,
        deployTimeoutMs: this.#owner.healthTimeoutMs(),
      }),
      ...targetOptions(values),
    };
  }
}

/** Problems of the further keys of a target. */
function checkOptions(
  target: TargetValues,
  hosts: readonly string[],
  path: ConfigPath,
  report: Report,
): void {
  const canonical = target.canonical_host?.toLowerCase();
  if (canonical !== undefined && (!hosts.includes(canonical) || canonical.startsWith("*."))) {
    const named = hosts.filter((host) => !host.startsWith("*."));
    report([...path, "canonical_host"], `${canonical} is not one of the target's hosts`, {
      fix: named.length === 0 ? "add it to `hosts`" : `one of: ${named.join(", ")}`,
    });
  }
  if (target.strip_path_prefix !== undefined && normalPrefix(target.path_prefix) === undefined) {
    report([...path, "strip_path_prefix"], "there is no path_prefix to strip", { pointer: "key" });
  }
  const { buffering } = target;
  if (buffering === undefined) return;
  for (
    const [limit, needed] of [["max_request_body", "requests"], [
      "max_response_body",
      "responses",
    ]] as const
  ) {
    if (buffering[limit] === undefined || buffering[needed]) continue;
    report([...path, "buffering", limit], `${limit} holds only for bodies that are buffered`, {
      fix: `add \`${needed}: true\``,
      pointer: "key",
    });
  }
  if (buffering.memory !== undefined && !buffering.requests && !buffering.responses) {
    report([...path, "buffering", "memory"], "nothing is buffered", {
      fix: "add `requests: true` or `responses: true`",
      pointer: "key",
    });
  }
}

/** The further keys of a target, only those that are written. */
function targetOptions(values: TargetValues): Partial<ProxyTarget> {
  const { buffering, log_headers: headers } = values;
  const limits = buffering && {
    maxRequestBytes: buffering.max_request_body,
    maxResponseBytes: buffering.max_response_body,
    memoryBytes: buffering.memory,
  };
  return written({
    responseTimeoutMs: values.response_timeout,
    sslRedirect: values.ssl_redirect,
    forwardHeaders: values.forward_headers,
    canonicalHost: values.canonical_host?.toLowerCase(),
    stripPathPrefix: values.strip_path_prefix,
    logHeaders: headers,
    buffering: buffering && {
      requests: buffering.requests,
      responses: buffering.responses,
      ...written(limits ?? {}),
    },
  });
}

/** An object without the keys that have no value. */
function written<T extends object>(
  values: T,
): { [Key in keyof T]?: Exclude<T[Key], undefined> } {
  return Object.fromEntries(
    Object.entries(values).filter(([, value]) => value !== undefined),
  ) as { [Key in keyof T]?: Exclude<T[Key], undefined> };
}

/** A prefix without slash at its end; undefined for the root. */
function normalPrefix(prefix: string | undefined): string | undefined {
  const trimmed = prefix?.replace(/\/+$/, "");
  return trimmed === "" ? undefined : trimmed;
}
