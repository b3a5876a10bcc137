/** Engine of the laptop and of the servers. */
export type EngineName = "docker" | "podman";

/** A published or exposed port of a container. */
export interface PortMapping {
  /** Address of the server to bind; every address when absent. */
  readonly hostIp?: string;
  /** Port of the server; absent for a port that is only reachable inside the mesh. */
  readonly hostPort?: number;
  readonly containerPort: number;
  readonly protocol: "tcp" | "udp";
  /** As written. */
  readonly text: string;
}

/** A file or directory of the project that is put on the server and mounted into the container. */
export interface MountedPath {
  /** Absolute path on this machine. */
  readonly local: string;
  /** Path as written, relative to the project; names its staging place on the server. */
  readonly localText: string;
  /** Absolute path in the container. */
  readonly remote: string;
  /** Octal text such as `0640`. */
  readonly mode?: string;
  /** `user:group`, names or numbers. */
  readonly owner?: string;
  /** Mount options for the engine, e.g. `ro`, `z`. */
  readonly options?: string;
}

/** How an image is built on this machine. */
export interface BuildSettings {
  /** Absolute path. */
  readonly context: string;
  /** Absolute path; the engine's own default when absent. */
  readonly dockerfile?: string;
  readonly args: Readonly<Record<string, string>>;
  /** Names of secrets that steps of the build may read; they do not stay in the image. */
  readonly secrets: readonly string[];
  readonly target?: string;
}

/** Rhythm and limits of a health check. */
export interface HealthCheckTimes {
  readonly intervalMs: number;
  /** Limit of one try. */
  readonly timeoutMs: number;
  /** How long a new container may take to become healthy. */
  readonly deployTimeoutMs: number;
}

/** How to tell that a container is fit to serve. */
export type HealthCheckSettings =
  & HealthCheckTimes
  & (
    | { readonly kind: "http"; readonly port: number; readonly path: string }
    | { readonly kind: "tcp"; readonly port: number }
    | { readonly kind: "command"; readonly command: string }
    | { readonly kind: "engine" }
  );

/** Names of secrets that hold a certificate chain and its key in PEM form. */
export interface CertificateNames {
  readonly certificatePem: string;
  readonly privateKeyPem: string;
}

/** One route of the proxy to a service. */
export interface ProxyTarget {
  readonly appPort: number;
  /** Host names, lower case, `*.` allowed in front; empty answers any host. */
  readonly hosts: readonly string[];
  /** Starts with `/`, does not end with one. */
  readonly pathPrefix?: string;
  /** `true` asks for certificates automatically (ACME). */
  readonly ssl: boolean | CertificateNames;
  readonly healthcheck: HealthCheckSettings;
  /** The proxy gives up on an answer that has not begun after this long. */
  readonly responseTimeoutMs?: number;
  /** `false` answers plain HTTP too instead of redirecting it to HTTPS. */
  readonly sslRedirect?: boolean;
  readonly buffering?: BufferingSettings;
  /** Whether `X-Forwarded-*` of the client are passed on. */
  readonly forwardHeaders?: boolean;
  /** One of `hosts` that requests to the others are redirected to. */
  readonly canonicalHost?: string;
  /** Whether the service sees paths without `pathPrefix`. */
  readonly stripPathPrefix?: boolean;
  readonly logHeaders?: {
    readonly request: readonly string[];
    readonly response: readonly string[];
  };
}

/** Whether the proxy takes whole bodies before it passes them on, and their limits in bytes. */
export interface BufferingSettings {
  readonly requests: boolean;
  readonly responses: boolean;
  readonly maxRequestBytes?: number;
  readonly maxResponseBytes?: number;
  /** Of one body; what is beyond goes to a file. */
  readonly memoryBytes?: number;
}

/** Where the output of a container goes. */
export interface LoggingSettings {
  readonly driver: string;
  readonly options: Readonly<Record<string, string>>;
}

/** When a container is started again after it ended. */
export type RestartPolicy = "unless-stopped" | "always" | "on-failure" | "no";

/** What happens to servers that had switched when another fails. */
export type OnFailure = "rollback" | "keep";
