import type {
  Argv,
  ContainerLabels,
  ProxyRoute,
  ProxyState,
  Secret,
  ServerConfig,
} from "@jiji/core";
import type { ContainerSpec } from "../lib/engine/container_run.ts";
import type { HostPort, ObservedContainer } from "../lib/engine/inspect.ts";
import type { ProxyClaim } from "../lib/engine/proxy_commands.ts";

/** What one round trip tells of a server before a deploy. */
export interface ObservedHost {
  readonly name: string;
  readonly config: ServerConfig;
  readonly containers: readonly ObservedContainer[];
  /** Undefined when the state file could not be read or is half written. */
  readonly proxyState: ProxyState | undefined;
  /** Folder of the proxy's state file; undefined when it has none yet. */
  readonly proxyFolder?: string | undefined;
  /** Names of the project's images there, newest first. */
  readonly images: readonly string[];
  /** Digest under which each of them was pulled; absent for images that were not. */
  readonly imageDigests?: ReadonlyMap<string, string> | undefined;
  /** Images of the releases that are kept there; of each service the newest first. */
  readonly releaseImages: readonly string[];
  /** What the proxy's routes answer; undefined as {@link proxyState}. */
  readonly claims?: readonly ProxyClaim[] | undefined;
  /** Its processor; undefined when it is none that jiji knows. */
  readonly arch?: "amd64" | "arm64" | undefined;
  /** Version of its jiji-daemon; undefined when it does not tell. */
  readonly version?: string | undefined;
  /** What listens on it; undefined when nobody could look. */
  readonly sockets?: readonly HostSocket[] | undefined;
}

/** A socket of a server's own network that takes connections or datagrams. */
export interface HostSocket extends HostPort {
  /** Name of the program; "" when unknown. */
  readonly program: string;
}

/** A file to put on a server before a container that mounts it starts. */
export interface ShippedFile {
  /** Absolute path on this machine. */
  readonly local: string;
  /** Absolute path on the server; names the content, so that it never changes under a container. */
  readonly remote: string;
  readonly mode: number;
  /** `user:group`, or undefined to leave it root's. */
  readonly owner: string | undefined;
}

/** A folder to make on a server; what is in it gets its owner too. */
export interface ShippedFolder {
  /** Absolute path on the server. */
  readonly remote: string;
  readonly mode: number;
  /** `user:group`, or undefined to leave it root's. */
  readonly owner: string | undefined;
}

/** A certificate that the proxy of a server must have. */
export interface ShippedCertificate {
  /** File name; it tells the content, so that a file never changes under the proxy. */
  readonly name: string;
  /** Chain and key. No longer a secret's value when the wish was read back from a release. */
  readonly pem: Secret;
}

/** A service as it should run, the same on every server. */
export interface DesiredService {
  readonly project: string;
  readonly service: string;
  readonly version: string;
  /** Servers by name. */
  readonly hosts: readonly string[];
  /** Instances on each server; more than one are told apart by a number. */
  readonly scale: number;
  /** Runs once in the new image before any container is replaced. */
  readonly release: ReleaseCommand | undefined;
  readonly spec: ContainerSpec;
  /** Hashes of what makes the container: image, environment, options. */
  readonly fingerprint: Fingerprint;
  readonly health: ContainerLabels["health"];
  readonly healthTimeoutMs: number;
  readonly routes: readonly ProxyRoute[];
  readonly ports: readonly string[];
  readonly stopFirst: boolean;
  readonly drainTimeoutMs: number;
  readonly retain: number;
  readonly files: readonly ShippedFile[];
  /** Folders of mounted directories. Absent in releases of older versions, as what follows. */
  readonly folders?: readonly ShippedFolder[];
  /** Certificates that its routes name. */
  readonly certificates?: readonly ShippedCertificate[];
  /** Names of the variables in its environment that are secret. */
  readonly secretNames?: readonly string[];
  /** Whether the image is ours, so that old ones are pruned. */
  readonly built: boolean;
  /** `always` asks the registry for a tag that may have moved; `missing` takes what is there. */
  readonly pull: "always" | "missing";
  /** Digest of the image in its registry, where it is known: a server that has it pulls nothing. */
  readonly imageDigest?: string | undefined;
  /** Folder on the servers with the login of the image's registry; absent when it needs none. */
  readonly authFolder?: string;
}

/** A one-off command such as a migration of the database. */
export interface ReleaseCommand {
  readonly command: readonly string[];
  readonly timeoutMs: number;
}

/** Hashes that tell why a container must be replaced, never with what. */
export interface Fingerprint {
  readonly image: string;
  readonly environment: string;
  readonly options: string;
  /** A few digits for each variable and option, so that a change can be told by name. */
  readonly parts: FingerprintParts;
}

/** Hashes by name; too short to guess a value from. */
export interface FingerprintParts {
  readonly environment: Readonly<Record<string, string>>;
  readonly options: Readonly<Record<string, string>>;
}

/** One atomic thing to do on one server. */
export type DeployStep =
  | { readonly kind: "installProxy"; readonly address: string }
  | {
    readonly kind: "pullImage";
    readonly image: string;
    readonly always: boolean;
    readonly authFolder?: string;
  }
  | {
    readonly kind: "shipFiles";
    readonly files: readonly ShippedFile[];
    readonly folders?: readonly ShippedFolder[];
  }
  | { readonly kind: "shipCertificates"; readonly certificates: readonly ShippedCertificate[] }
  | { readonly kind: "renameContainer"; readonly from: string; readonly to: string }
  | {
    readonly kind: "startContainer";
    readonly name: string;
    readonly argv: Argv;
    readonly envFile: string;
  }
  | { readonly kind: "resumeContainer"; readonly name: string }
  | {
    readonly kind: "healthGate";
    readonly name: string;
    readonly timeoutMs: number;
    /** The daemon's word on the container of this deployment will do; absent: probe it anew. */
    readonly deployment?: string | undefined;
  }
  | {
    readonly kind: "routeProxy";
    readonly route: ProxyRoute;
    readonly targets: readonly string[];
    readonly drainTimeoutMs: number;
  }
  | {
    readonly kind: "removeRoute";
    readonly route: string;
    /** Requests under way may take this long; nothing new gets in meanwhile. */
    readonly drainTimeoutMs: number;
  }
  | { readonly kind: "stopContainer"; readonly name: string; readonly graceSeconds: number }
  | { readonly kind: "removeContainer"; readonly name: string }
  | {
    readonly kind: "runRelease";
    readonly name: string;
    readonly argv: Argv;
    readonly envFile: string;
    readonly timeoutMs: number;
  }
  | { readonly kind: "removeImages"; readonly images: readonly string[]; readonly bestEffort: true }
  | { readonly kind: "keepRelease"; readonly file: string; readonly bestEffort: true }
  | { readonly kind: "writeAudit"; readonly message: string; readonly bestEffort: true };

/** What every jiji-dns must answer before the old container may go. */
export interface NameExpectation {
  /** Full name, e.g. `shop-api.jiji`. */
  readonly name: string;
  /** Undefined when something only goes. */
  readonly has: string | undefined;
  /** Undefined when nothing was replaced. */
  readonly lacks: string | undefined;
}

/** What happens to one service on one server. Phases run in the order of the fields. */
export interface InstancePlan {
  readonly service: string;
  readonly host: string;
  readonly action: "as is" | "create" | "replace" | "scale" | "route" | "remove";
  readonly causes: readonly string[];
  /** Finishes or undoes what an earlier run left. */
  readonly recover: readonly DeployStep[];
  readonly prepare: readonly DeployStep[];
  /** The one-off command, on one of the servers, once every server has the image. */
  readonly release: readonly DeployStep[];
  readonly start: readonly DeployStep[];
  readonly switch: readonly DeployStep[];
  readonly expect: readonly NameExpectation[];
  readonly retire: readonly DeployStep[];
  /** Puts back what `start` and `switch` did, whatever part of them was done. */
  readonly undo: readonly DeployStep[];
  /** Version that serves when this plan is not carried out or undone; undefined when none does. */
  readonly before: string | undefined;
}

/** A whole deploy: services in the order of the configuration, instances by server name. */
export interface DeploymentPlan {
  readonly deployment: string;
  readonly services: readonly {
    readonly service: DesiredService;
    readonly instances: readonly InstancePlan[];
  }[];
}
