/** What must hold at every moment, and what must hold once faults have stopped. */
import { SERVER_PATHS } from "@jiji/core/cluster";
import { cidrHas, parseCidr, parseIpv4 } from "@jiji/core/net";
import type { SimCluster } from "./sim_cluster.ts";
import type { SimServer } from "./sim_server.ts";

/** Problems of this moment; kernels and resolvers that did not change since the last look are passed over. */
export function momentProblems(cluster: SimCluster): string[] {
  const found: string[] = cluster.offences.splice(0);
  for (const server of cluster.servers) {
    if (!server.kernel.isDirty) continue;
    server.kernel.isDirty = false;
    found.push(...kernelProblems(server).map((text) => `${server.id}: ${text}`));
  }
  return [...found, ...dnsProblems(cluster)];
}

const NOBODY: ReadonlySet<string> = new Set();

function dnsProblems(cluster: SimCluster): string[] {
  const found: string[] = [];
  const nowMs = cluster.clock.nowMs();
  for (const server of cluster.servers) {
    if (!server.isUp) continue;
    const silent = server.context?.facts.silent ?? NOBODY;
    for (const text of server.dns.look(server.replica, { silent, nowMs })) {
      found.push(`${server.id}: its DNS ${text}`);
    }
  }
  return found;
}

function kernelProblems(server: SimServer): string[] {
  const found: string[] = [];
  if (server.kernel.peers.has(server.key)) found.push("has itself as a peer");
  const owners = new Set<string>();
  for (const peer of server.kernel.peers.values()) {
    for (const prefix of peer.allowed) {
      if (owners.has(prefix)) found.push(`${prefix} has two owners`);
      owners.add(prefix);
      if (isInCidr(server.address, prefix)) {
        found.push(`its own address ${server.address} leads to a peer`);
      }
    }
  }
  return found;
}

/** Whether an IPv4 address lies in a prefix; other prefixes hold none. */
function isInCidr(address: string, prefix: string): boolean {
  const cidr = parseCidr(prefix);
  const value = parseIpv4(address);
  return cidr !== undefined && value !== undefined && cidrHas(cidr, value);
}

/** Problems of a cluster that had time to converge; `removed` were taken out by the operator. */
export function settledProblems(
  cluster: SimCluster,
  o: {
    readonly removed: ReadonlySet<SimServer>;
    /** Own addresses of removed servers: a way to those may stay. */
    readonly gone: ReadonlySet<string>;
    readonly quietMs: number;
  },
): string[] {
  const members = cluster.servers.filter((server) => !o.removed.has(server));
  const up = members.filter((server) => server.isUp);
  const facts = {
    members,
    gone: o.gone,
    down: members.filter((server) => !server.isUp).map((server) => server.id).sort().join(" "),
    containers: up.flatMap((server) => server.container ? [server.container.id] : []),
    sinceMs: cluster.clock.monotonicMs() - o.quietMs,
  };
  return up.flatMap((server) =>
    serverProblems(server, facts).map((text) => `${server.id}: ${text}`)
  );
}

/** Whoever could talk before a change of keys can after it, with the same preshared key on both ends. */
function keyProblems(server: SimServer, others: readonly SimServer[]): string[] {
  const found: string[] = [];
  if (server.files.has(SERVER_PATHS.wireguardNextKey)) found.push("has not changed its key yet");
  const hasSecret = (one: SimServer) => one.files.has(SERVER_PATHS.meshSecret);
  for (const other of others) {
    const there = server.kernel.peers.get(other.key);
    const back = other.kernel.peers.get(server.key);
    if (!there || !back || !other.isUp) continue;
    const wanted = hasSecret(server) && hasSecret(other);
    if (there.psk !== back.psk || (there.psk !== "") !== wanted) {
      found.push(`has another preshared key than ${other.id} or none`);
    }
    if (there.handshakeAtMs !== back.handshakeAtMs) found.push(`has no session with ${other.id}`);
  }
  return found;
}

interface SettledFacts {
  readonly members: readonly SimServer[];
  /** Addresses of removed servers: those may be told of it. */
  readonly gone: ReadonlySet<string>;
  readonly down: string;
  readonly containers: readonly string[];
  readonly sinceMs: number;
}

function serverProblems(server: SimServer, facts: SettledFacts): string[] {
  const found: string[] = [];
  const { kernel, context } = server;
  const others = facts.members.filter((one) => one !== server);
  const missing = others.filter((one) => !kernel.peers.has(one.key)).length;
  const keys = new Set(others.map((one) => one.key));
  const extra =
    [...kernel.peers].filter(([key, { allowed }]) =>
      !keys.has(key) && !allowed.every((prefix) => facts.gone.has(prefix.replace("/32", "")))
    ).length;
  if (missing + extra > 0) found.push(`lacks ${missing} peers and has ${extra} too many`);
  found.push(...keyProblems(server, others));
  const wanted = others.flatMap((one) => [one.block, one.identity]);
  const unrouted = wanted.filter((prefix) => !kernel.ways.has(prefix));
  if (unrouted.length > 0) found.push(`has no route to ${unrouted[0]}`);
  const routes = new Set(wanted);
  const stray = [...kernel.ways.keys()].filter((prefix) =>
    !routes.has(prefix) && !facts.gone.has(prefix.replace("/32", ""))
  );
  if (stray.length > 0) found.push(`still has a route to ${stray[0]}`);
  const silent = [...context?.facts.silent ?? []].sort().join(" ");
  if (silent !== facts.down) found.push(`counts as silent: ${silent}; down are: ${facts.down}`);
  const rows = context?.view.containers ?? new Map();
  const lost = facts.containers.filter((id) => !rows.has(id)).length;
  if (lost > 0) found.push(`does not know ${lost} running containers`);
  const late = kernel.changes.filter((change) => change.atMs > facts.sinceMs);
  if (late.length > 0) found.push(`still changes things: ${late[0]!.argv.join(" ")}`);
  return found;
}
