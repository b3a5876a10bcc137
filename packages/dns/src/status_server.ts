/** What jiji-dns tells over HTTP on the server's own address: metrics, names, reasons. */
import { type DnsNames, serviceLabel } from "@jiji/core/cluster";
import { type Clock, type Logger, messageOf } from "@jiji/core/runtime";
import { awaitNames, parseExpectation } from "./commands/await_names.ts";
import type { DnsCache, Explained } from "./dns_cache.ts";
import type { ServerAddress } from "./upstream.ts";

/** Ports of {@link serveStatus}. */
export interface StatusOptions {
  readonly address: ServerAddress;
  /** Where names are answered on that address. */
  readonly dnsPort: number;
  readonly cache: DnsCache;
  readonly domain: string;
  readonly metrics: () => string;
  /** Since Corrosion was last heard, milliseconds; undefined when not since the start. */
  readonly heardMsAgo: () => number | undefined;
  /** Resolvers that a name is forwarded to, in order. */
  readonly resolvers: (name: string) => Promise<readonly string[]>;
  readonly isClient: (ip: string) => boolean;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** Names with their containers, as `jiji-dns names` and `jiji network dns` show them. */
export function listNames(
  cache: DnsCache,
  o: {
    readonly domain: string;
    readonly only?: string;
    readonly heardMsAgo: number | undefined;
  },
): DnsNames {
  const only = o.only?.toLowerCase().replace(/\.$/, "");
  const suffix = `.${o.domain}`;
  const label = only?.endsWith(suffix) ? only.slice(0, -suffix.length) : only;
  const bare = label?.replace(/^(_\d+\.)?(_(tcp|udp)\.)?(nearest\.)?/, "");
  const labels = bare === undefined ? cache.serviceLabels() : [bare];
  return {
    filled: cache.isFilled,
    heard_ms_ago: o.heardMsAgo === undefined ? null : Math.round(o.heardMsAgo),
    names: labels.map((one) => ({
      name: `${one}${suffix}`,
      containers: cache.explain(one).map(renderContainer),
    })),
  };
}

function renderContainer({ row, isAnswered, why }: Explained) {
  return {
    address: row.ip,
    server: row.serverId,
    service: serviceLabel(row),
    version: row.version,
    health: row.health,
    answered: isAnswered,
    why,
  };
}

/** Serves until the signal aborts; an address that is not there yet is tried again. */
export async function serveStatus(options: StatusOptions): Promise<void> {
  const { address, clock, logger, signal } = options;
  let reported = "";
  while (!signal.aborted) {
    try {
      const server = Deno.serve(
        { ...address, signal, onListen: () => undefined },
        (request, info) => answerRequest(request, { ...options, from: info.remoteAddr }),
      );
      return await server.finished;
    } catch (error) {
      const reason = messageOf(error);
      if (reason !== reported) logger.warn("no status yet", { ...address, reason });
      reported = reason;
      await clock.sleep(1_000, { signal }).catch(() => undefined);
    }
  }
}

/** Questions of {@link answerAwait} at once; a deploy asks one. */
const AWAITS_MAX = 16;
/** None of them waits longer, milliseconds. */
const AWAIT_MAX_MS = 30_000;
let awaiting = 0;

/** The convergence barrier without a program of its own: `?timeout_ms=5000&expect=NAME=+IP,-IP`. */
async function answerAwait(url: URL, o: StatusOptions): Promise<Response> {
  const timeoutMs = Number(url.searchParams.get("timeout_ms") ?? "");
  const texts = url.searchParams.getAll("expect");
  if (!(timeoutMs >= 0 && timeoutMs <= AWAIT_MAX_MS) || texts.length === 0) {
    return new Response("timeout_ms and expect are needed\n", { status: 400 });
  }
  if (awaiting >= AWAITS_MAX) return new Response("too many at once\n", { status: 503 });
  awaiting += 1;
  try {
    const expectations = texts.map(parseExpectation);
    const server = { hostname: o.address.hostname, port: o.dnsPort };
    return Response.json(await awaitNames(expectations, { server, timeoutMs, clock: o.clock }));
  } catch (error) {
    return new Response(`${messageOf(error)}\n`, { status: 400 });
  } finally {
    awaiting -= 1;
  }
}

async function answerRequest(
  request: Request,
  o: StatusOptions & { readonly from: Deno.Addr },
): Promise<Response> {
  const ip = "hostname" in o.from ? o.from.hostname : "";
  if (!o.isClient(ip)) return new Response("not a member\n", { status: 403 });
  if (request.method !== "GET") return new Response("GET only\n", { status: 405 });
  const url = new URL(request.url);
  if (url.pathname === "/metrics") {
    return new Response(o.metrics(), { headers: { "content-type": "text/plain; version=0.0.4" } });
  }
  if (url.pathname === "/names") {
    const only = url.searchParams.get("name");
    return Response.json(
      listNames(o.cache, {
        domain: o.domain,
        heardMsAgo: o.heardMsAgo(),
        ...(only === null ? {} : { only }),
      }),
    );
  }
  if (url.pathname === "/await") return await answerAwait(url, o);
  if (url.pathname === "/resolvers") {
    return Response.json({ resolvers: await o.resolvers(url.searchParams.get("name") ?? "") });
  }
  return new Response("there are /metrics, /names, /await and /resolvers\n", { status: 404 });
}
