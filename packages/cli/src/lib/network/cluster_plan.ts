import {
  allocateBlock,
  blockHolders,
  type Cidr,
  CORROSION_GOSSIP_PORT,
  JijiError,
  parseCidr,
  type PeerSeed,
  renderCidr,
  renderEndpoint,
  seedOfRow,
  type ServerConfig,
  type ServerRow,
} from "@jiji/core";
import type { EngineName } from "../engine/engine_commands.ts";
import { isMember, type ServerFacts } from "./server_facts.ts";

/** A prepared server: it has a key, so it has an identity. */
export interface PreparedServer {
  readonly name: string;
  /** Address that the configuration reaches it at; other servers try it first. */
  readonly host: string;
  readonly facts: ServerFacts;
  readonly publicKey: string;
  readonly managementIp: string;
}

/** Settings that hold for the whole cluster. */
export interface ClusterSettings {
  readonly engine: EngineName;
  readonly clusterCidr: Cidr;
  readonly blockPrefix: number;
  readonly wireguardPort: number;
  readonly serviceDomain: string;
  /** Name of the secret that every server of this run has or gets. */
  readonly meshSecretId?: string | undefined;
  /** Who is asked for a server's public address; none: nobody. Default: the well-known ones. */
  readonly publicIpSources?: readonly string[] | undefined;
  /** Resolvers of split zones, addresses by domain. Default: none. */
  readonly dnsForward?: Readonly<Record<string, readonly string[]>>;
}

/** A server's place: what its files must say. */
export interface ServerPlace {
  readonly config: ServerConfig;
  /** Whether it becomes a member now. */
  readonly joins: boolean;
  /** Gossip addresses that its Corrosion asks first. */
  readonly bootstrap: readonly string[];
  /** Every other server, for its first contact. */
  readonly peers: readonly PeerSeed[];
}

/** More do not help a newcomer, and fewer than two leave it alone when one is down. */
const BOOTSTRAP_MAX = 5;

/**
 * Gives every server its place. Members keep their block and key for ever (also those whose first
 * `server init` was cut off after their row was written), and so do removed servers that come back
 * under their name; newcomers get the lowest block that was never given out. `rows` are all server rows of the cluster, tombstones included.
 *
 * @throws {JijiError} when a member contradicts the configuration, two servers have one key, or the
 * cluster is full.
 */
export function planCluster(
  servers: readonly PreparedServer[],
  rows: readonly ServerRow[],
  settings: ClusterSettings,
): Map<string, ServerPlace> {
  refuseSharedKeys(servers);
  const taken = takenBlocks(servers, rows);
  const configs = new Map<string, ServerConfig>();
  const sorted = [...servers].sort((a, b) => Number(!a.facts.config) - Number(!b.facts.config));
  for (const server of sorted) {
    refuseContradiction(server, rows, settings);
    const given = server.facts.config?.block ?? blockOfRow(server, rows);
    const block = given === undefined
      ? allocateBlock(settings.clusterCidr, settings.blockPrefix, taken)
      : parseCidr(given)!;
    taken.push(block);
    configs.set(server.name, serverConfig(server, block, settings));
  }
  return new Map(servers.map((server) => {
    const config = configs.get(server.name)!;
    const others = otherPeers(server.name, configs, { rows, secretId: settings.meshSecretId });
    return [server.name, {
      config,
      joins: !isMember(server.facts),
      bootstrap: server.facts.bootstrap ?? bootstrapOf(others, servers),
      peers: others,
    }];
  }));
}

/** A server whose first run was cut off, or that comes back after it was removed, has a row. */
function blockOfRow(server: PreparedServer, rows: readonly ServerRow[]): string | undefined {
  return rows.find((row) =>
    row.wireguardPubkey === server.publicKey ||
    (row.id === server.name && row.removedAtMs !== null)
  )?.subnet;
}

function takenBlocks(servers: readonly PreparedServer[], rows: readonly ServerRow[]): Cidr[] {
  const texts = [
    ...blockHolders(rows).map((row) => row.subnet),
    ...servers.flatMap((server) => server.facts.config ? [server.facts.config.block] : []),
  ];
  return texts.flatMap((text) => parseCidr(text) ?? []);
}

function serverConfig(
  server: PreparedServer,
  block: Cidr,
  settings: ClusterSettings,
): ServerConfig {
  const forward = Object.entries(settings.dnsForward ?? {});
  const hosts = [...new Set([server.host, ...server.facts.addresses])];
  return {
    format: 1,
    server_id: server.name,
    engine: settings.engine,
    cluster_cidr: renderCidr(settings.clusterCidr),
    block: renderCidr(block),
    management_ip: server.managementIp,
    wireguard_public_key: server.publicKey,
    wireguard_port: settings.wireguardPort,
    endpoints: hosts.map((host) => renderEndpoint({ host, port: settings.wireguardPort })),
    ...(settings.publicIpSources === undefined
      ? {}
      : { public_ip_sources: [...settings.publicIpSources] }),
    ...(forward.length === 0
      ? {}
      : { dns_forward: Object.fromEntries(forward.map(([domain, ips]) => [domain, [...ips]])) }),
    service_domain: settings.serviceDomain,
  };
}

function otherPeers(
  name: string,
  configs: ReadonlyMap<string, ServerConfig>,
  known: { readonly rows: readonly ServerRow[]; readonly secretId: string | undefined },
): PeerSeed[] {
  const { rows, secretId } = known;
  const peers = new Map<string, PeerSeed>();
  for (const row of rows) {
    if (row.removedAtMs === null) peers.set(row.id, seedOfRow(row));
  }
  for (const config of configs.values()) {
    peers.set(config.server_id, {
      server_id: config.server_id,
      public_key: config.wireguard_public_key,
      block: config.block,
      management_ip: config.management_ip,
      ...(secretId === undefined ? {} : { psk: secretId }),
      // Its row knows addresses as others see them, too.
      endpoints: [
        ...new Set([...config.endpoints, ...peers.get(config.server_id)?.endpoints ?? []]),
      ],
    });
  }
  peers.delete(name);
  return [...peers.values()].sort((a, b) => a.server_id < b.server_id ? -1 : 1);
}

/** Members first: newcomers have nothing to tell yet. */
function bootstrapOf(
  peers: readonly PeerSeed[],
  servers: readonly PreparedServer[],
): string[] {
  const joining = new Set(
    servers.filter((server) => !isMember(server.facts)).map((server) => server.name),
  );
  return [...peers]
    .sort((a, b) => Number(joining.has(a.server_id)) - Number(joining.has(b.server_id)))
    .slice(0, BOOTSTRAP_MAX)
    .map((peer) => renderEndpoint({ host: peer.management_ip, port: CORROSION_GOSSIP_PORT }));
}

function refuseSharedKeys(servers: readonly PreparedServer[]): void {
  const owners = new Map<string, string>();
  for (const server of servers) {
    const other = owners.get(server.publicKey);
    if (other !== undefined) {
      throw new JijiError(`${other} and ${server.name} have the same WireGuard key`, {
        hint: `one is a copy of the other: on ${server.name} stop jiji's units, delete ` +
          "/etc/jiji and /var/lib/jiji, then run jiji server init again",
      });
    }
    owners.set(server.publicKey, server.name);
  }
}

function refuseContradiction(
  server: PreparedServer,
  rows: readonly ServerRow[],
  settings: ClusterSettings,
): void {
  const row = rows.find((candidate) => candidate.id === server.name);
  const own = server.facts.config;
  if (own && row && row.removedAtMs !== null) {
    throw new JijiError(`${server.name} was removed from this cluster`, {
      hint: "to add it anew, take off what it still has of jiji: jiji server teardown --all " +
        `--hosts ${server.name}`,
    });
  }
  if (own && own.server_id !== server.name) {
    throw new JijiError(
      `the server at ${server.host} joined as "${own.server_id}", the configuration calls it ` +
        `"${server.name}"`,
      { hint: "use its first name: containers and names depend on it" },
    );
  }
  if (own && own.cluster_cidr !== renderCidr(settings.clusterCidr)) {
    throw new JijiError(
      `${server.name} belongs to ${own.cluster_cidr}, network.cluster_cidr says ` +
        renderCidr(settings.clusterCidr),
      { hint: "a cluster keeps its addresses: put the former network.cluster_cidr back" },
    );
  }
  if (own && own.service_domain !== settings.serviceDomain) {
    throw new JijiError(
      `${server.name} answers *.${own.service_domain}, network.service_domain says ` +
        settings.serviceDomain,
      { hint: "running containers ask by the former names: put network.service_domain back" },
    );
  }
  if (own && own.engine !== settings.engine) {
    throw new JijiError(
      `${server.name} runs on ${own.engine}, builder.engine says ${settings.engine}`,
      { hint: "a cluster keeps its engine: put the former builder.engine back" },
    );
  }
  const taken = row && row.removedAtMs === null && row.wireguardPubkey !== server.publicKey;
  if (!own && taken) {
    throw new JijiError(`another server of this cluster is already called "${server.name}"`, {
      hint: "choose another name for the new server",
    });
  }
}
