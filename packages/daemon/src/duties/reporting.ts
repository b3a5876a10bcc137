/** Tells over HTTP, on the server's mesh address: metrics and the daemon's own report. */
import { DAEMON_STATUS_PORT, parseLiveness, SERVER_PATHS } from "@jiji/core/cluster";
import { cidrHas, parseCidr, parseIpv4, serverAddress } from "@jiji/core/net";
import { messageOf } from "@jiji/core/runtime";
import type { DaemonContext } from "../daemon_context.ts";
import { makeReport } from "../daemon_report.ts";
import type { DutyStats } from "../duty_loop.ts";
import { type LinkCounters, renderMetrics } from "../metrics.ts";
import type { CorrosionReport } from "./corrosion.ts";
import { observeWireguard } from "./topology.ts";

/** Pause before an address that is not there yet is tried again, milliseconds. */
const LISTEN_RETRY_MS = 1_000;

/** Where the report comes from. */
export interface ReportingOptions {
  readonly context: DaemonContext;
  readonly corrosion: () => CorrosionReport;
  readonly duties: () => ReadonlyMap<string, DutyStats>;
  readonly signal: AbortSignal;
}

/** Serves until the signal aborts. */
export async function serveReport(options: ReportingOptions): Promise<void> {
  const { context, signal } = options;
  const { config, clock, logger } = context;
  const startedAtMs = clock.nowMs();
  const block = parseCidr(config.block);
  if (!block) return;
  const address = { hostname: serverAddress(block), port: DAEMON_STATUS_PORT };
  let reported = "";
  while (!signal.aborted) {
    try {
      const server = Deno.serve(
        { ...address, signal, onListen: () => undefined },
        (request, info) => answer(request, { ...options, startedAtMs, from: info.remoteAddr }),
      );
      return await server.finished;
    } catch (error) {
      const reason = messageOf(error);
      if (reason !== reported) logger.debug("no status port yet", { ...address, reason });
      reported = reason;
      await clock.sleep(LISTEN_RETRY_MS, { signal }).catch(() => undefined);
    }
  }
}

type Asked = ReportingOptions & { readonly startedAtMs: number; readonly from: Deno.Addr };

/** Members and their containers may ask; nobody may change anything here. */
async function answer(request: Request, o: Asked): Promise<Response> {
  const { config } = o.context;
  const ip = parseIpv4("hostname" in o.from ? o.from.hostname : "");
  const cluster = parseCidr(config.cluster_cidr);
  if (ip === undefined || !cluster || !cidrHas(cluster, ip)) {
    return new Response("not a member\n", { status: 403 });
  }
  if (request.method !== "GET") return new Response("GET only\n", { status: 405 });
  const { pathname } = new URL(request.url);
  if (pathname === "/report") return Response.json(reportNow(o));
  if (pathname === "/metrics") {
    const headers = { "content-type": "text/plain; version=0.0.4" };
    return new Response(await metricsNow(o), { headers });
  }
  return new Response("there are /metrics and /report\n", { status: 404 });
}

function reportNow({ context, corrosion, duties, startedAtMs }: Asked) {
  const { config, view, facts } = context;
  return makeReport({
    self: config.server_id,
    startedAtMs,
    view,
    peers: facts.peers.map((peer) => peer.server_id),
    conflicts: facts.conflicts ?? [],
    silent: facts.silent,
    standsDown: facts.standsDown,
    corrosion: corrosion(),
    duties: duties(),
  });
}

async function metricsNow(asked: Asked): Promise<string> {
  const { view, facts, files } = asked.context;
  const liveness = parseLiveness(await files.read(SERVER_PATHS.liveness) ?? "");
  const running = facts.containers?.filter((one) => one.running) ?? [];
  return renderMetrics({
    report: reportNow(asked),
    peers: facts.peers.map((peer) => peer.server_id),
    liveness,
    links: await linksNow(asked.context),
    health: running.map((one) => facts.health.get(one.id)?.status ?? "starting"),
    rows: { servers: view.servers.size, containers: view.containers.size },
  });
}

async function linksNow(context: DaemonContext): Promise<LinkCounters[]> {
  const names = new Map(context.facts.peers.map((peer) => [peer.public_key, peer.server_id]));
  const wireguard = await observeWireguard(context).catch(() => undefined);
  const nowMs = context.clock.nowMs();
  return (wireguard?.peers ?? []).flatMap((peer) => {
    const serverId = names.get(peer.publicKey);
    if (serverId === undefined) return [];
    const { handshakeAtMs, rxBytes, txBytes } = peer;
    const handshakeAgeS = handshakeAtMs === undefined
      ? undefined
      : Math.max(0, Math.round((nowMs - handshakeAtMs) / 1_000));
    return [{ serverId, handshakeAgeS, rxBytes, txBytes }];
  });
}
