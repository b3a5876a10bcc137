/** `jiji-dns serve`: builds the real ports and runs until told to stop. */
import { parseServerConfig, SERVER_PATHS, type ServerConfig } from "@jiji/core/cluster";
import { corrosionHttpApi, subscribe } from "@jiji/core/corrosion";
import { parseCidr, serverAddress } from "@jiji/core/net";
import {
  type Clock,
  createJsonLogger,
  type Logger,
  messageOf,
  Secret,
  systemClock,
  systemRandom,
  VERSION,
} from "@jiji/core/runtime";
import { runSubscriber } from "../corrosion_subscriber.ts";
import { DnsCache } from "../dns_cache.ts";
import { DnsServer } from "../dns_server.ts";
import { Forwarder } from "../forwarder.ts";
import { LivenessWatch } from "../liveness_watch.ts";
import { listenToNews } from "../news_listener.ts";
import { parseResolvConf, splitResolvers, type SplitZones } from "../resolv_conf.ts";
import { readSnapshot, restoreSnapshot, writeSnapshot } from "../snapshot.ts";
import { type ServiceEnvironment, SocketStore } from "../udp/socket_store.ts";
import { serveStatus } from "../status_server.ts";
import { networkUpstream, type ServerAddress } from "../upstream.ts";

/** Options of `jiji-dns serve`. */
export interface ServeOptions {
  readonly config: ServerConfig;
  /** Where it was read from; `dns_forward` is read anew when it changes. */
  readonly configFile: string;
  readonly tokenFile: string;
  /** Empty: the block's first address, port 53. */
  readonly listen: readonly ServerAddress[];
  readonly corrosionUrl: string;
  readonly stateFolder: string;
  readonly livenessFile: string;
  readonly resolvConf: string;
  /** TCP port of metrics and names. */
  readonly statusPort: number;
  readonly signal: AbortSignal;
}

/** The resolvers' configuration is looked at again at most this often, milliseconds. */
const RESOLV_CONF_EVERY_MS = 2_000;
/** The token file may come after us at first boot; look again this often, milliseconds. */
const TOKEN_RETRY_MS = 1_000;

/** Where jiji-dns answers on a server: its own address, port 53. */
export function ownAddress(config: Pick<ServerConfig, "block">): ServerAddress {
  const block = parseCidr(config.block);
  if (!block) throw new Error(`server.json: block ${config.block} is not a network`);
  return { hostname: serverAddress(block), port: 53 };
}

/** Serves until the signal aborts. */
export async function serve(options: ServeOptions): Promise<void> {
  const logger = await createJsonLogger("jiji-dns", "info");
  const clock = systemClock;
  const { signal, config } = options;
  const listen = options.listen.length > 0 ? options.listen : [ownAddress(config)];
  logger.info("starting", { version: VERSION, server: config.server_id });
  const cache = new DnsCache(config.cluster_cidr);
  await loadSnapshot(cache, { folder: options.stateFolder, logger, clock });
  const own = new Set([...listen.map((address) => address.hostname), ownAddress(config).hostname]);
  const resolvers = resolverChoice(options, { own, clock, logger });
  const forwarder = new Forwarder({
    resolvers,
    upstream: networkUpstream(),
    clock,
    onCache: (hit) => server.metrics.countCache(hit),
    randomId: () => crypto.getRandomValues(new Uint16Array(1))[0] ?? 0,
    logger,
  });
  const zone = {
    domain: config.service_domain,
    clusterCidr: config.cluster_cidr,
    serverId: config.server_id,
  };
  const clients = [config.cluster_cidr, "127.0.0.0/8"].flatMap((text) => parseCidr(text) ?? []);
  const server: DnsServer = new DnsServer({
    ...{ zone, cache, forwarder, clock, logger, signal, clients },
    batches: true,
    store: new SocketStore(serviceEnvironment(), Deno.pid),
  });
  let heardAtMs: number | undefined;
  const onHeard = () => heardAtMs = clock.monotonicMs();
  const heardMsAgo = () => heardAtMs === undefined ? undefined : clock.monotonicMs() - heardAtMs;
  const metrics = () =>
    server.metrics.render({
      containers: cache.containers.size,
      isFilled: cache.isFilled,
      subscriptionAgeMs: heardMsAgo(),
      forwardEntries: forwarder.entries,
      version: VERSION,
    }, server.threadCounts);
  const onSilent = (silent: ReadonlySet<string>) => cache.setSilent(silent);
  const liveness = new LivenessWatch({ path: options.livenessFile, clock, signal, onSilent });
  await Promise.all([
    ...listen.map((address) => server.listen(address)),
    liveness.run(),
    feedCache(cache, { ...options, clock, logger, onHeard, onLiveness: () => liveness.look() }),
    serveStatus({
      address: { hostname: listen[0]!.hostname, port: options.statusPort },
      dnsPort: listen[0]!.port,
      ...{ cache, domain: config.service_domain, metrics, clock, logger, signal },
      ...{ heardMsAgo, resolvers },
      isClient: (ip) => server.isClient(ip),
    }),
  ]);
  logger.info("stopped");
}

function serviceEnvironment(): ServiceEnvironment {
  return {
    listenPid: Deno.env.get("LISTEN_PID"),
    listenFds: Deno.env.get("LISTEN_FDS"),
    listenNames: Deno.env.get("LISTEN_FDNAMES"),
    notifySocket: Deno.env.get("NOTIFY_SOCKET"),
  };
}

async function feedCache(
  cache: DnsCache,
  o: ServeOptions & {
    readonly clock: Clock;
    readonly logger: Logger;
    readonly onHeard: () => void;
    readonly onLiveness: () => void;
  },
): Promise<void> {
  const { clock, logger, signal, onHeard, onLiveness } = o;
  const token = await readToken(o.tokenFile, { clock, logger, signal });
  if (!token) return;
  const address = { url: o.corrosionUrl, token };
  await runSubscriber({
    cache,
    api: corrosionHttpApi(address),
    subscribe: (statement, more) => subscribe(address, statement, more),
    clock,
    random: systemRandom,
    logger,
    signal,
    onHeard,
    hearNews: (onNews) =>
      listenToNews({
        connect: () => Deno.connect({ transport: "unix", path: SERVER_PATHS.news }),
        ...{ onNews, onLiveness, clock, signal, random: systemRandom },
      }),
    save: (snapshot) => writeSnapshot(o.stateFolder, snapshot),
  });
}

async function readToken(
  path: string,
  o: { readonly clock: Clock; readonly logger: Logger; readonly signal: AbortSignal },
): Promise<Secret | undefined> {
  let reported = "";
  while (!o.signal.aborted) {
    try {
      return new Secret((await Deno.readTextFile(path)).trim());
    } catch (error) {
      const reason = messageOf(error);
      if (reason !== reported) o.logger.warn("no corrosion token yet", { path, reason });
      reported = reason;
    }
    await o.clock.sleep(TOKEN_RETRY_MS, { signal: o.signal }).catch(() => undefined);
  }
  return undefined;
}

async function loadSnapshot(
  cache: DnsCache,
  o: { readonly folder: string; readonly logger: Logger; readonly clock: Clock },
): Promise<void> {
  try {
    const snapshot = await readSnapshot(o.folder);
    if (!snapshot) return;
    restoreSnapshot(cache, snapshot, o.clock.monotonicMs());
    o.logger.info("snapshot loaded", { containers: cache.containers.size });
  } catch (error) {
    o.logger.warn("snapshot not read", { error: messageOf(error) });
  }
}

/** Resolvers of split zones first, else the host's. */
function resolverChoice(
  options: ServeOptions,
  o: { readonly own: ReadonlySet<string>; readonly clock: Clock; readonly logger: Logger },
): (name: string) => Promise<readonly string[]> {
  const hosts = rereading({ ...o, path: options.resolvConf, first: [] as readonly string[] }, {
    parse: (text) => parseResolvConf(text, o.own),
  });
  const zones = rereading<SplitZones>(
    { ...o, path: options.configFile, first: options.config.dns_forward ?? {} },
    { parse: (text) => parseServerConfig(text).dns_forward ?? {} },
  );
  return async (name) => {
    const split = splitResolvers(name, await zones());
    return split?.filter((resolver) => !o.own.has(resolver)) ?? await hosts();
  };
}

/** What a file says, read anew every {@link RESOLV_CONF_EVERY_MS}; the last good one if it can't be. */
function rereading<T>(
  o: {
    readonly path: string;
    readonly first: T;
    readonly clock: Clock;
    readonly logger: Logger;
  },
  { parse }: { readonly parse: (text: string) => T },
): () => Promise<T> {
  let readAtMs = -Infinity;
  let known = o.first;
  return async () => {
    if (o.clock.monotonicMs() - readAtMs < RESOLV_CONF_EVERY_MS) return known;
    readAtMs = o.clock.monotonicMs();
    try {
      const found = parse(await Deno.readTextFile(o.path));
      if (JSON.stringify(found) !== JSON.stringify(known)) {
        o.logger.info("resolvers", { path: o.path, resolvers: found });
      }
      known = found;
    } catch (error) {
      o.logger.warn("not read", { path: o.path, error: messageOf(error) });
    }
    return known;
  };
}
