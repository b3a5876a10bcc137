import {
  ConnectionError,
  JijiError,
  parseServerStatus,
  SERVER_PATHS,
  type ServerStatus,
} from "@jiji/core";
import { observeHost } from "../../lib/deployment/deployment_observation.ts";
import { askServers } from "../../lib/network/ask_servers.ts";
import { type LeavingService, planRemoval, renderRemoval } from "../../lib/network/removal_plan.ts";
import { awaitRemoved, drainServer, markRemoved } from "../../lib/network/server_removal.ts";
import type { ObservedHost } from "../../types/deployment.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { auditOrWarn } from "../../utils/audit.ts";
import {
  type CommandContext,
  type CommonOptions,
  headline,
  type Ports,
  refuseHosts,
  setupCommandContext,
} from "../../utils/command_helpers.ts";
import { confirmOrStop } from "../../utils/confirm.ts";
import { withLock } from "../../utils/lock.ts";

/** Options of `jiji server remove`. */
export interface ServerRemoveOptions extends CommonOptions {
  readonly yes?: boolean | undefined;
  /** Also when a service runs nowhere else. */
  readonly force?: boolean | undefined;
}

interface Removal {
  readonly server: string;
  /** The server itself, when it can be reached. */
  readonly host: RemoteHost | undefined;
  readonly observed: ObservedHost | undefined;
  readonly staying: readonly RemoteHost[];
  readonly services: readonly LeavingService[];
}

/**
 * `jiji server remove`: takes a server out of the cluster. Its containers leave the names of all
 * servers, end and go; then it is marked as removed, the others drop it, and its own daemon stands
 * down. A server that is off is marked and stands down when it comes back.
 *
 * @throws {JijiError} for a name that the cluster does not know, or when a service runs nowhere else;
 * {ConnectionError} when no member that stays can be reached.
 */
export async function serverRemove(
  server: string,
  options: ServerRemoveOptions,
  ports: Ports,
): Promise<void> {
  refuseHosts(options, "all servers are told; name the one that leaves");
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const { output, clock } = context;
  const startedMs = clock.monotonicMs();
  output.note(headline(context, `remove ${server}`));
  const removal = await look(context, server);
  if (removal === undefined) {
    if (output.json) return output.result({ server, removed: false, services: [] });
    return output.success(`Nothing to do: ${server} was removed before.`);
  }
  const { services, host, staying } = removal;
  refuseLastPlaces(removal, options.force ?? false);
  const lines = [
    ...renderRemoval(services),
    host
      ? `  remove ${server} from the cluster; its daemon stands down`
      : `  remove ${server} from the cluster; it can't be reached and stands down when it is back`,
  ];
  output.note(lines.join("\n"));
  confirmOrStop({ lines: [], word: server, yes: options.yes ?? false });
  const hosts = new Map([...staying, ...(host ? [host] : [])].map((one) => [one.name, one]));
  await using _cluster = await withLock({ ...context, hosts }, {
    reason: "server remove",
    scope: "cluster",
  });
  const late = await apply(context, removal);
  const durationMs = Math.round(clock.monotonicMs() - startedMs);
  if (output.json) {
    return output.result({ server, removed: true, services, late, duration_ms: durationMs });
  }
  late.forEach((text) => output.warn(text));
  const where = services.filter(({ elsewhere }) => elsewhere.length > 0)
    .map(({ service, elsewhere }) => `${service} runs on ${elsewhere.join(", ")}`).join("; ");
  output.success(`${server} is removed.${where && ` ${where}.`}`);
  if (context.configuration.servers.has(server)) {
    output.line(
      `  Next: take ${server} out of the configuration. Back with: jiji server add ${server}`,
    );
  }
}

/** Undefined when it was removed before and nothing of it is left. */
async function look(context: CommandContext, server: string): Promise<Removal | undefined> {
  const { hosts, configuration, signal, unreachable } = context;
  const { answers } = await askServers(hosts.values(), {
    argv: [`${SERVER_PATHS.bin}/jiji-daemon`, "status", "--json"],
    what: "asking jiji-daemon failed",
    parse: parseServerStatus,
    signal,
  });
  const members = [...answers].filter(([name, status]) => name !== server && status.servers);
  if (members.length === 0) {
    throw new ConnectionError(`no member beside ${server} could be asked`, {
      host: [...unreachable.keys()].join(", ") || server,
      phase: "tcp",
      serving: "nothing was changed",
      hint: "a cluster keeps at least one server; to take jiji off all: jiji network teardown",
    });
  }
  const statuses = members.map(([, status]) => status);
  const row = rowOf(statuses, server);
  const known = knownServers(statuses);
  if (!row && !known.includes(server)) {
    const hint = `it has ${known.join(", ")}`;
    throw new JijiError(`the cluster has no server ${server}`, { hint });
  }
  const host = hosts.get(server);
  const what = { engine: configuration.builder.engine, project: configuration.project };
  const observed = host && await observeHost(host, what, signal).catch(() => undefined);
  const own = observed?.containers.filter(({ labels }) => labels !== undefined);
  if (row && row.removedAtMs !== null && (own ?? []).length === 0) return undefined;
  const staying = new Set(members.map(([name]) => name));
  const rows = [...new Map(
    members.flatMap(([, status]) => status.containers ?? []).map((one) => [one.id, one]),
  ).values()];
  return {
    server,
    host: observed ? host : undefined,
    observed,
    staying: [...staying].sort().map((name) => hosts.get(name)!),
    services: planRemoval({ server, rows, own, staying }),
  };
}

/** By their rows, and by what peers remember of those whose rows were lost with every database. */
function knownServers(statuses: readonly ServerStatus[]): string[] {
  const names = statuses.flatMap(({ servers, peers }) => [
    ...(servers ?? []).map(({ id }) => id),
    ...(peers ?? []).flatMap(({ server_id: id }) => id ?? []),
  ]);
  return [...new Set(names)].sort();
}

/** The row of a server; a removal that one member knows of is true for all. */
function rowOf(statuses: readonly ServerStatus[], server: string) {
  const rows = statuses.flatMap(({ servers }) => servers?.filter(({ id }) => id === server) ?? []);
  return rows.find(({ removedAtMs }) => removedAtMs !== null) ?? rows[0];
}

function refuseLastPlaces({ server, services }: Removal, force: boolean): void {
  const last = services.filter(({ elsewhere }) => elsewhere.length === 0);
  if (force || last.length === 0) return;
  throw new JijiError(
    `${server} is the last place of ${last.map(({ service }) => service).join(", ")}`,
    {
      serving: "nothing was changed",
      hint: "deploy to another server first, or let them go: --force",
    },
  );
}

async function apply(context: CommandContext, removal: Removal): Promise<string[]> {
  const { output, signal, clock } = context;
  const { server, host, observed, staying } = removal;
  const lane = server;
  const late: string[] = [];
  const step = async <T>(title: string, work: () => Promise<T>): Promise<T> => {
    const startedMs = clock.monotonicMs();
    output.emit({ kind: "started", lane, title });
    const done = await work();
    output.emit({ kind: "finished", lane, title, durationMs: clock.monotonicMs() - startedMs });
    return done;
  };
  try {
    const containers = observed?.containers.filter(({ labels }) => labels !== undefined) ?? [];
    if (host && observed && containers.length > 0) {
      const drain = { host, config: observed.config, containers, staying };
      late.push(...await step("drained", () => drainServer(drain, context)));
    }
    const told = { leaving: host, signal };
    late.push(...await step("marked as removed", () => markRemoved(server, staying, told)));
    const unaware = await step(
      "known everywhere",
      () => awaitRemoved(server, { staying, host }, context),
    );
    late.push(...unaware.map((name) => `${name} does not know of it yet; it will by itself`));
  } catch (error) {
    await auditAll(context, removal, "failed");
    throw error;
  }
  output.settle();
  await auditAll(context, removal, "success");
  return late;
}

async function auditAll(
  context: CommandContext,
  { server, staying, services }: Removal,
  status: "success" | "failed",
): Promise<void> {
  const gone = services.flatMap(({ containers }) => containers).join(", ");
  const message = gone ? `${server}, with ${gone}` : server;
  const entry = { action: "server remove", status, message } as const;
  await Promise.all(staying.map((host) => auditOrWarn(context, host, entry)));
}
