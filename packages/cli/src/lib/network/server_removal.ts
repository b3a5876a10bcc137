/** Taking a server out of the cluster, so that nobody meets a container that is gone. */
import {
  isOk,
  JijiError,
  leavingContainerName,
  messageOf,
  parseRemovalReport,
  parseServerStatus,
  SERVER_PATHS,
  type ServerConfig,
  type ServerStatus,
  waitFor,
} from "@jiji/core";
import { DNS_TTL_MS, ENGINE_TIMEOUT_MS, OBSERVE_TIMEOUT_MS } from "../../constants.ts";
import type { NameExpectation } from "../../types/deployment.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import type { CommandContext } from "../../utils/command_helpers.ts";
import { mustRun } from "../../utils/remote.ts";
import { awaitConvergence } from "../deployment/convergence_barrier.ts";
import { argvRename } from "../engine/engine_commands.ts";
import type { ObservedContainer } from "../engine/inspect.ts";
import { removeContainers } from "../services/service_removal.ts";

const DAEMON = `${SERVER_PATHS.bin}/jiji-daemon`;
/** The removed server's daemon and the others get this long to act on it, milliseconds. */
const KNOWN_TIMEOUT_MS = 20_000;

/** What is drained. */
export interface Drain {
  readonly host: RemoteHost;
  readonly config: ServerConfig;
  /** Containers of jiji there, of any project. */
  readonly containers: readonly ObservedContainer[];
  readonly staying: readonly RemoteHost[];
}

/**
 * Drains a server: its containers leave the names of all servers first, then requests in flight end,
 * then they go. Volumes stay.
 *
 * @returns servers whose names did not follow in time; their last answers were waited out.
 */
export async function drainServer(drain: Drain, context: CommandContext): Promise<string[]> {
  const { host, config, containers, staying } = drain;
  const { clock, signal, configuration } = context;
  const running = containers.filter((one) => one.running);
  for (const { name } of running) {
    if (/_leaving_\d+$/.test(name)) continue;
    const argv = argvRename(config.engine, name, leavingContainerName(name, clock.nowMs()));
    const what = `renaming ${name} failed`;
    await mustRun(host, argv, { what, timeoutMs: ENGINE_TIMEOUT_MS, signal });
  }
  const expectations = running.flatMap(({ labels, address }): NameExpectation[] =>
    labels && address
      ? [{
        name: `${labels.project}-${labels.service}.${config.service_domain}`,
        has: undefined,
        lacks: address,
      }]
      : []
  );
  const late = await awaitConvergence([...staying, host], expectations, signal);
  if (late.length > 0) await clock.sleep(DNS_TTL_MS, { signal });
  const drainTimeoutMs = configuration.deploy.drainTimeoutMs;
  await removeContainers(host, config, { containers, drainTimeoutMs, signal });
  return late.map(({ host: name, reason }) => `${name}: ${reason}`);
}

/**
 * Marks a server as removed in the state of every member that stays, so that it is not forgotten
 * when one of them is lost before it told the others. The first that can says when that was; all
 * write the same moment, and so does the server itself: the others may close the mesh to it before
 * their word has come.
 *
 * @param o.leaving the server that is removed, when it can be reached.
 * @returns what failed, a line for each member that could not be told; the others will tell it.
 * @throws {JijiError} when none can.
 */
export async function markRemoved(
  server: string,
  staying: readonly RemoteHost[],
  o: {
    readonly leaving?: RemoteHost | undefined;
    readonly signal?: AbortSignal | undefined;
  } = {},
): Promise<string[]> {
  const { leaving, signal } = o;
  const tell = async (host: RemoteHost, more: readonly string[]) =>
    await mustRun(host, [DAEMON, "servers", "remove", server, ...more], {
      what: "marking it failed",
      timeoutMs: OBSERVE_TIMEOUT_MS,
      ...(signal === undefined ? {} : { signal }),
    });
  const failed: { readonly host: string; readonly message: string }[] = [];
  const fail = (host: RemoteHost, error: unknown) => {
    signal?.throwIfAborted();
    failed.push({ host: host.name, message: messageOf(error) });
  };
  for (const [index, host] of staying.entries()) {
    const text = await tell(host, []).catch((error) => fail(host, error));
    if (text === undefined) continue;
    const { removed_at_ms: atMs } = parseRemovalReport(text);
    const more = atMs === undefined ? [] : ["--at-ms", String(atMs)];
    const rest = [...staying.slice(index + 1), ...(leaving ? [leaving] : [])];
    await Promise.all(rest.map((one) => tell(one, more).catch((error) => fail(one, error))));
    return failed.map((one) =>
      `${one.host} could not be told that ${server} is removed, the others will tell it: ` +
      one.message.split("\n")[0]
    ).sort();
  }
  const problems = failed.map(({ host, message }) => `\n  ${host}: ${message}`).join("");
  throw new JijiError(`no member could be told that ${server} is removed${problems}`);
}

/** Servers that do not know of the removal in time; the removed one when it does not stand down. */
export async function awaitRemoved(
  server: string,
  o: {
    readonly staying: readonly RemoteHost[];
    /** The removed server, when it can be reached. */
    readonly host: RemoteHost | undefined;
  },
  context: CommandContext,
): Promise<string[]> {
  const { clock, signal } = context;
  const wait = async (host: RemoteHost, isSo: (status: ServerStatus) => boolean) => {
    const known = await waitFor(async () => {
      const result = await host.run([DAEMON, "status", "--json"], {
        timeoutMs: OBSERVE_TIMEOUT_MS,
        signal,
      });
      return isOk(result) && isSo(parseServerStatus(result.stdout)) ? true : undefined;
    }, { clock, timeoutMs: KNOWN_TIMEOUT_MS, everyMs: 500, signal }).catch(() => undefined);
    return known ? [] : [host.name];
  };
  const isDropped = (status: ServerStatus) => {
    const row = status.servers?.find(({ id }) => id === server);
    return (row?.removedAtMs ?? null) !== null;
  };
  const waits = o.staying.map((host) => wait(host, isDropped));
  if (o.host) waits.push(wait(o.host, (status) => status.daemon?.stands_down === true));
  return (await Promise.all(waits)).flat().sort();
}
