/** What jiji-dns tells over HTTP on the server's own address: metrics, names, reasons. */
import { type DnsNames, serviceLabel } from "@jiji/core/cluster";
import { type Clock, type Logger, messageOf } from "@jiji/core/runtime";
import type { DnsCache, Explained } from "./dns_cache.ts";
import type { ServerAddress } from "./upstream.ts";

/** Ports of {@link serveStatus}. */
export interface StatusOptions {
  readonly address: ServerAddress;
  readonly cache: DnsCache;
  readonly domain: string;
  readonly metrics: () => string;
  readonly isClient: (ip: string) => boolean;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** Names with their containers, as `jiji-dns names` and `jiji network dns` show them. */
export function listNames(
  cache: DnsCache,
  o: { readonly domain: string; readonly only?: string },
): DnsNames {
  const only = o.only?.toLowerCase().replace(/\.$/, "");
  const suffix = `.${o.domain}`;
  const label = only?.endsWith(suffix) ? only.slice(0, -suffix.length) : only;
  const bare = label?.replace(/^(_\d+\.)?(_(tcp|udp)\.)?(nearest\.)?/, "");
  const labels = bare === undefined ? cache.serviceLabels() : [bare];
  return {
    filled: cache.isFilled,
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

function answerRequest(
  request: Request,
  o: StatusOptions & { readonly from: Deno.Addr },
): Response {
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
      listNames(o.cache, { domain: o.domain, ...(only === null ? {} : { only }) }),
    );
  }
  return new Response("there are /metrics and /names\n", { status: 404 });
}
