import {
  ConnectionError,
  JijiError,
  parseServerStatus,
  SERVER_PATHS,
  UsageError,
} from "@jiji/core";
import { ENGINE_TIMEOUT_MS } from "../../constants.ts";
import { leaveCluster, observeTeardown } from "../../lib/services/teardown_service.ts";
import { askServers } from "../../lib/network/ask_servers.ts";
import { argvRemove } from "../../lib/engine/engine_commands.ts";
import {
  type CommandContext,
  type CommonOptions,
  type Ports,
  refuseHosts,
  setupCommandContext,
} from "../../utils/command_helpers.ts";
import { mustRun } from "../../utils/remote.ts";
import { withLock } from "../../utils/lock.ts";
import { serverInit } from "../server_init.ts";

/**
 * `jiji server add`: makes a server of the configuration a member, also one that was removed before:
 * what it still has of jiji goes, and it gets its former block.
 *
 * @throws {UsageError} when the configuration has no such server; {ConnectionError} when it can't be
 * reached.
 */
export async function serverAdd(
  server: string,
  options: CommonOptions,
  ports: Ports,
): Promise<void> {
  refuseHosts(options, "all servers are told; name the one that joins");
  {
    await using context = await setupCommandContext(options, ports, { scope: "servers" });
    await clearFormer(context, server);
  }
  await serverInit(options, ports);
}

/** Takes off what a removed server still has of its former membership. */
async function clearFormer(context: CommandContext, server: string): Promise<void> {
  const { configuration, hosts, unreachable, output, signal } = context;
  if (!configuration.servers.has(server)) {
    throw new UsageError(`the configuration has no server ${server}`, {
      hint: "write it under servers: first",
    });
  }
  const host = hosts.get(server);
  if (!host) {
    const error = unreachable.get(server);
    if (error instanceof JijiError) throw error;
    throw new ConnectionError(`${server} can't be reached`, { host: server, phase: "tcp" });
  }
  if (!await wasRemoved(context, server)) return;
  const { engine } = configuration.builder;
  const wish = { engine, project: configuration.project, repositories: [] };
  const facts = await observeTeardown(host, wish, signal);
  if (!facts.host) return;
  await using _lock = await withLock(context, { reason: "server add", scope: "cluster" });
  const { config, containers } = facts.host;
  for (const { id, name, labels } of containers) {
    if (!labels) continue;
    await mustRun(host, argvRemove(config.engine, id), {
      what: `removing ${name} of before failed`,
      timeoutMs: ENGINE_TIMEOUT_MS,
      signal,
    });
  }
  const kept = await leaveCluster(host, {
    engine: config.engine,
    clusterCidr: config.cluster_cidr,
    wireguardPort: config.wireguard_port,
  });
  kept.forEach((line) => output.warn(line));
  output.note(`  ${server}  taken off what it had of its former membership`);
}

async function wasRemoved(context: CommandContext, server: string): Promise<boolean> {
  const others = [...context.hosts.values()].filter(({ name }) => name !== server);
  const { answers } = await askServers(others, {
    argv: [`${SERVER_PATHS.bin}/jiji-daemon`, "status", "--json"],
    what: "asking jiji-daemon failed",
    parse: parseServerStatus,
    signal: context.signal,
  });
  return [...answers.values()].some(({ servers }) =>
    servers?.some(({ id, removedAtMs }) => id === server && removedAtMs !== null)
  );
}
