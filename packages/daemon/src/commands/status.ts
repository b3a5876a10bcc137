/** `jiji-daemon status`: all that this server knows, also when half of it is down. */
import {
  DAEMON_STATUS_PORT,
  type DaemonReport,
  isDaemonless,
  isLinked,
  type LivenessReport,
  MESH_INTERFACE,
  parseDaemonReport,
  parseLiveness,
  type PeerStatus,
  SERVER_PATHS,
  SERVER_UNITS,
  type ServerConfig,
  type ServerStatus,
} from "@jiji/core/cluster";
import {
  type ContainerRow,
  type CorrosionApi,
  parseContainerRow,
  parseServerRow,
  SELECT_CONTAINERS,
  SELECT_SERVERS,
  type ServerRow,
  type Statement,
} from "@jiji/core/corrosion";
import { parseCidr, serverAddress } from "@jiji/core/net";
import { type Clock, messageOf, type Process, VERSION } from "@jiji/core/runtime";
import type { Files } from "../daemon_context.ts";
import { observeWireguard } from "../duties/topology.ts";
import { readPeerFiles } from "./servers.ts";
import { seedOf } from "../mesh/peer_reconciler.ts";
import type { WireguardPeer, WireguardState } from "../mesh/wg_show.ts";

/** Ports of {@link collectStatus}. */
export interface StatusPorts {
  readonly config: ServerConfig | undefined;
  readonly process: Process;
  readonly files: Files;
  /** Undefined when there is no token to ask with. */
  readonly api: CorrosionApi | undefined;
  readonly clock: Clock;
  /** Asks the running daemon. @throws while it does not answer. */
  readonly askDaemon: (config: ServerConfig) => Promise<DaemonReport>;
}

/** The running daemon has this long to tell, milliseconds. */
const REPORT_TIMEOUT_MS = 2_000;

/** The report of the daemon that runs on this server. */
export async function fetchReport(config: ServerConfig): Promise<DaemonReport> {
  const block = parseCidr(config.block);
  const url = `http://${block && serverAddress(block)}:${DAEMON_STATUS_PORT}/report`;
  const response = await fetch(url, { signal: AbortSignal.timeout(REPORT_TIMEOUT_MS) });
  const text = await response.text();
  if (!response.ok) throw new Error(`${url}: HTTP ${response.status}`);
  return parseDaemonReport(text);
}

/** A report older than this means that the daemon is not running, milliseconds. */
const LIVENESS_OLD_MS = 5_000;

/** Everything that can be found out; what cannot is null and has a sentence in `problems`. */
export async function collectStatus(ports: StatusPorts): Promise<ServerStatus> {
  const problems: string[] = [];
  const attempt = async <T>(what: string, get: () => Promise<T>): Promise<T | null> => {
    try {
      return await get();
    } catch (error) {
      problems.push(`${what}: ${messageOf(error)}`);
      return null;
    }
  };
  if (!ports.config) problems.push(`${SERVER_PATHS.serverConfig} is missing or malformed`);
  const nowMs = ports.clock.nowMs();
  const [servers, containers, wireguard, units, seeds, livenessText, daemon] = await Promise.all([
    attempt("corrosion: servers", () => rows<ServerRow>(ports, SELECT_SERVERS, parseServerRow)),
    attempt(
      "corrosion: containers",
      () => rows<ContainerRow>(ports, SELECT_CONTAINERS, parseContainerRow),
    ),
    attempt("wireguard", () => observeWireguard(ports)),
    attempt("systemctl", () => unitStates(ports.process)),
    attempt("peer files", () => readPeerFiles(ports.files)),
    attempt("liveness", () => ports.files.read(SERVER_PATHS.liveness)),
    // Whether it runs at all shows in its units and its liveness report.
    ports.config ? ports.askDaemon(ports.config).catch(() => null) : null,
  ]);
  const liveness = parseLiveness(livenessText ?? "") ?? null;
  if (wireguard === undefined) problems.push(`interface ${MESH_INTERFACE} is missing`);
  if (!liveness || nowMs - liveness.written_at_ms > LIVENESS_OLD_MS) {
    problems.push("jiji-daemon has written no liveness report lately: is it running?");
  }
  for (const [unit, state] of Object.entries(units ?? {})) {
    if (state !== "active") problems.push(`unit ${unit} is ${state}`);
  }
  const names = new Map<string, string>();
  for (
    const { public_key, next_key, server_id } of [...seeds ?? [], ...(servers ?? []).map(seedOf)]
  ) {
    names.set(public_key, server_id);
    if (next_key !== undefined) names.set(next_key, server_id);
  }
  return {
    format: 1,
    version: VERSION,
    server_id: ports.config?.server_id ?? null,
    generated_at_ms: nowMs,
    servers: servers?.map((row) => ({ ...row, endpoints: [...row.endpoints] })) ?? null,
    containers: containers?.map((row) => ({ ...row, ports: [...row.ports] })) ?? null,
    peers: wireguard ? peerStatuses(wireguard, { names, liveness, nowMs }) : null,
    liveness,
    units,
    problems,
    daemon,
  };
}

/** The link table: WireGuard's peers with what the daemon's probes tell of their servers. */
function peerStatuses(
  wireguard: WireguardState,
  o: {
    readonly names: ReadonlyMap<string, string>;
    readonly liveness: LivenessReport | null;
    readonly nowMs: number;
  },
): PeerStatus[] {
  return wireguard.peers.map((peer) => {
    const name = o.names.get(peer.publicKey);
    return {
      server_id: name ?? null,
      public_key: peer.publicKey,
      endpoint: peer.endpoint ?? null,
      allowed_ips: [...peer.allowedIps],
      handshake_age_s: peer.handshakeAtMs === undefined
        ? null
        : Math.max(0, Math.round((o.nowMs - peer.handshakeAtMs) / 1000)),
      rx_bytes: peer.rxBytes,
      tx_bytes: peer.txBytes,
      psk: peer.presharedKey !== undefined,
      ...linkFacts(peer, { name, liveness: o.liveness, peers: wireguard.peers.length }),
    };
  });
}

function linkFacts(
  peer: WireguardPeer,
  o: {
    readonly name: string | undefined;
    readonly liveness: LivenessReport | null;
    readonly peers: number;
  },
): Pick<PeerStatus, "link" | "rtt_ms" | "loss" | "mtu"> {
  const { name, liveness } = o;
  const isUsed = peer.allowedIps.some((prefix) => !prefix.includes(":"));
  if (name === undefined || !isUsed) return { link: null, rtt_ms: null, loss: null, mtu: null };
  const linked = isLinked(liveness ?? undefined, { id: name, peers: o.peers });
  return {
    link: linked ? "direct" : "none",
    rtt_ms: liveness?.rtt_ms[name] ?? null,
    loss: liveness?.loss?.[name] ?? null,
    mtu: liveness?.mtu?.[name] ?? null,
  };
}

async function rows<T extends object>(
  ports: StatusPorts,
  statement: Statement,
  parse: (cells: readonly unknown[]) => T | { readonly refused: string },
): Promise<T[]> {
  if (!ports.api) throw new Error(`no token at ${SERVER_PATHS.corrosionToken}`);
  const found = await ports.api.query(statement);
  return found.flatMap((cells) => {
    const row = parse(cells);
    return "refused" in row ? [] : [row];
  });
}

async function unitStates(process: Process): Promise<Record<string, string>> {
  const units = Object.values(SERVER_UNITS);
  const result = await process.run(["systemctl", "is-active", ...units], { timeoutMs: 5_000 });
  const states = result.stdout.trim().split("\n");
  if (result.exitCode === 127 || states.length !== units.length) {
    throw new Error(result.stderr.trim() || "unexpected output");
  }
  return Object.fromEntries(units.map((unit, index) => [unit, states[index] ?? "unknown"]));
}

/** The status for a person. */
export function renderStatus(status: ServerStatus): string {
  const silent = new Set(status.liveness?.silent);
  const lines = [`server ${status.server_id ?? "?"}, jiji-daemon ${status.version}`];
  for (const peer of status.peers ?? []) {
    const name = peer.server_id ?? peer.public_key;
    const age = peer.handshake_age_s === null
      ? "no handshake"
      : `handshake ${peer.handshake_age_s} s`;
    const { rtt_ms, loss, mtu, link } = peer;
    const answers = typeof rtt_ms === "number" ? `${rtt_ms} ms` : "unknown";
    const words = [
      ...(silent.has(name)
        ? ["silent"]
        : isDaemonless(status.liveness ?? undefined, name)
        ? ["its daemon does not answer"]
        : [answers]),
      ...(link === null ? ["not in use"] : []),
      ...(loss ? [`${Math.round(loss * 100)} % lost`] : []),
      ...(mtu ? [`mtu ${mtu}`] : []),
      ...(peer.psk ? ["preshared key"] : []),
    ];
    const word = words.join(", ");
    lines.push(`  peer ${name}: ${peer.endpoint ?? "no endpoint"}, ${age}, ${word}`);
  }
  for (const container of status.containers ?? []) {
    lines.push(
      `  container ${container.name} on ${container.serverId}: ${container.ip}, ${container.health}`,
    );
  }
  const { partition } = status.daemon ?? {};
  if (partition) lines.push(`  ${partition.reason}`);
  return [
    ...lines,
    ...status.problems.map((problem) => `problem: ${problem}`),
    ...(status.daemon?.notices ?? []).map((notice) => `notice: ${notice}`),
  ].join("\n");
}
