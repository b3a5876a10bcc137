/** What the duties share: ports, and the facts one duty finds out for another. */
import {
  type MeshSecret,
  meshSecretId,
  pairKey,
  type PeerSeed,
  type ServerConfig,
} from "@jiji/core/cluster";
import { managementIp } from "@jiji/core/net";
import type { CorrosionApi, ServerDoc, ServerRow } from "@jiji/core/corrosion";
import type { Argv, Clock, CommandResult, Logger, Process, Secret } from "@jiji/core/runtime";
import { isOk } from "@jiji/core/runtime";
import type { ClusterView } from "./state/cluster_view.ts";
import type { HealthState } from "./engine/container_health.ts";
import type { ObservedContainer } from "./engine/containers.ts";
import type { Routes } from "./mesh/path_mtu.ts";
import type { Conflict } from "./mesh/peer_reconciler.ts";
import type { WireguardState } from "./mesh/wg_show.ts";
import type { HostInterface } from "./mesh/own_addresses.ts";

/** Files as a port. */
export interface Files {
  /** Text of a file, undefined when it does not exist. */
  read(path: string): Promise<string | undefined>;
  /** Replaces a file in one step. */
  replace(
    path: string,
    text: string,
    options: {
      readonly mode: number;
      /** Whether owner, permissions and time of the file there stay. Default: no. */
      readonly keepFacts?: boolean;
    },
  ): Promise<void>;
}

/** Facts found by one duty and used by others. */
export interface DaemonFacts {
  /** The mesh's members but this server, as the topology duty sees them. */
  peers: readonly PeerSeed[];
  /** Claims of servers that were not granted, since others have what they claim. */
  conflicts?: readonly Conflict[];
  /** Whether the topology duty has looked: before that `peers` says nothing. */
  isMeshKnown?: boolean;
  /** `ip:port` where others reach this server now, best first; undefined before the first look. */
  endpoints?: readonly string[];
  /** Its interfaces, as last seen. */
  interfaces?: readonly HostInterface[];
  /** `ip:port` at which WireGuard has each peer now, by server. */
  endpointsInUse?: ReadonlyMap<string, string>;
  /** Largest packet on the way to each server, octets by name; undefined when nobody looks. */
  mtu?: ReadonlyMap<string, number>;
  /** What this server tells of itself in its row, beside its version. */
  doc?: ServerDoc;
  /** jiji's containers on this server; undefined before the first look. */
  containers: readonly ObservedContainer[] | undefined;
  /** When this server's kamal-proxy was started, Unix ms; undefined while there is none. */
  proxyStartedAtMs?: number | undefined;
  /** Health by container id. */
  readonly health: Map<string, HealthState>;
  /** Servers that do not answer this server's probes. */
  silent: ReadonlySet<string>;
  /** Servers that the operator removed, by rows and by memory. */
  removed: readonly ServerRow[];
  /** Keys of removed servers that stay in WireGuard for a while, so that they can be told. */
  told: ReadonlySet<string>;
  /** WireGuard as a duty saw it last, seconds ago; undefined while its interface is missing. */
  wireguard?: WireguardState | undefined;
  /** Addresses from which firewall rules drop everything, as a duty saw them last, seconds ago. */
  dropRules?: readonly string[] | undefined;
  /** The operator removed this server: nothing is written about it any more. */
  standsDown: boolean;
  /** The engine could not make the container network for want of its firewall chains. */
  networkRefused?: boolean;
}

/** What the kernel has of the mesh, as a port. */
export interface MeshReader {
  /** Undefined when the interface is missing. */
  wireguard(): Promise<WireguardState | undefined>;
  routes(): Promise<Routes>;
}

/** How secrets and names follow from keys, as a port. */
export interface KeyMaker {
  meshSecretId(secret: MeshSecret): Promise<string>;
  pairKey(secret: MeshSecret, a: string, b: string): Promise<Secret>;
  managementIp(publicKey: string): Promise<string>;
}

/** As real servers do it. */
export const SYSTEM_KEYS: KeyMaker = { meshSecretId, pairKey, managementIp };

/** Everything a duty works with. */
export interface DaemonContext {
  /** Replaced when this server changes its key. */
  config: ServerConfig;
  readonly clock: Clock;
  readonly process: Process;
  /** Absent: the kernel is asked by commands. */
  readonly mesh?: MeshReader;
  /** Absent: {@link SYSTEM_KEYS}. */
  readonly keys?: KeyMaker;
  readonly files: Files;
  readonly api: CorrosionApi;
  readonly view: ClusterView;
  readonly logger: Logger;
  readonly facts: DaemonFacts;
  /** Asks for a run of another duty soon. */
  readonly wake: (duty: string) => void;
}

/**
 * Takes facts for this server's row; undefined says that there is none. What no duty has spoken of
 * since the daemon's start stays in the row as it was: a restart makes nobody believe that this
 * server lost its secret or gave its next key up.
 *
 * @returns whether anything is new.
 */
export function tellDoc(facts: DaemonFacts, told: ServerDoc): boolean {
  const before: Readonly<Record<string, unknown>> = { ...facts.doc };
  const isNew = Object.entries(told).some(([name, value]) =>
    !(name in before) || JSON.stringify(before[name]) !== JSON.stringify(value)
  );
  if (isNew) facts.doc = { ...facts.doc, ...told };
  return isNew;
}

/** No command of the daemon takes longer unless it says so, milliseconds. */
export const COMMAND_TIMEOUT_MS = 15_000;

/** Runs a command that may fail. */
export function tryRun(
  context: Pick<DaemonContext, "process">,
  argv: Argv,
  signal?: AbortSignal,
): Promise<CommandResult> {
  return context.process.run(argv, {
    timeoutMs: COMMAND_TIMEOUT_MS,
    ...(signal ? { signal } : {}),
  });
}

/**
 * Runs a command that must succeed.
 *
 * @throws {Error} with the command and the end of what it wrote to standard error.
 */
export async function mustRun(
  context: Pick<DaemonContext, "process">,
  argv: Argv,
  signal?: AbortSignal,
): Promise<string> {
  const result = await tryRun(context, argv, signal);
  if (isOk(result)) return result.stdout;
  throw new Error(renderFailure(argv, result));
}

/** One line: the command, how it ended, and the end of its standard error. */
export function renderFailure(argv: Argv, result: CommandResult): string {
  const end = result.exitCode === undefined ? `killed (${result.signal})` : result.exitCode;
  return `${argv.join(" ").slice(0, 200)}: exit ${end}: ${result.stderr.trim().slice(-400)}`;
}
