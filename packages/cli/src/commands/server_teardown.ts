import { JijiError, messageOf, PartialFailureError } from "@jiji/core";
import { imageRepository } from "../lib/services/build_service.ts";
import { namedVolumes } from "../lib/services/service_removal.ts";
import {
  isNothingToTearDown,
  networkTeardown,
  planTeardown,
  renderTeardown,
  type TeardownPlan,
} from "../lib/services/teardown_plan.ts";
import {
  announceLeaving,
  leaveCluster,
  type LeavingFrom,
  observeTeardown,
  tearDownProject,
} from "../lib/services/teardown_service.ts";
import { auditOrWarn } from "../utils/audit.ts";
import {
  type CommandContext,
  type CommonOptions,
  headline,
  type Ports,
  requireAllReachable,
  setupCommandContext,
} from "../utils/command_helpers.ts";
import { confirmOrStop } from "../utils/confirm.ts";
import { NO_LOCK, withLock } from "../utils/lock.ts";

/** Options of `jiji server teardown`. */
export interface TeardownOptions extends CommonOptions {
  readonly yes?: boolean | undefined;
  /** Also delete the project's named volumes. */
  readonly volumes?: boolean | undefined;
  readonly plan?: boolean | undefined;
  /** Take jiji itself off the servers too. */
  readonly all?: boolean | undefined;
  /** Only jiji itself: it is refused while a project, this one too, has containers there. */
  readonly networkOnly?: boolean | undefined;
}

/**
 * `jiji server teardown`: takes this project off the chosen servers; with `--all` also jiji itself,
 * when no other project uses them. It asks for the project's name.
 *
 * @throws {JijiError} when another project uses a server that is to leave; {PartialFailureError}
 * naming what could not be removed.
 */
export async function serverTeardown(options: TeardownOptions, ports: Ports): Promise<void> {
  const name = options.networkOnly ? "network teardown" : "server teardown";
  await using context = await setupCommandContext(options, ports, {
    scope: "servers",
    witnesses: options.all ?? false,
  });
  requireAllReachable(context);
  const { configuration, output } = context;
  output.note(headline(context));
  output.note("");
  const plans = await planAll(context, options);
  refuseForOthers(plans, options);
  const lines = plans.flatMap(renderTeardown);
  if (options.plan) {
    if (output.json) return output.result({ servers: plans.map(planResult) });
    return (lines.length > 0 ? lines : ["nothing to do"]).forEach((line) => output.line(line));
  }
  if (plans.every(isNothingToTearDown)) {
    if (output.json) return output.result({ servers: [] });
    return output.success("Nothing to do: nothing of this project is there.");
  }
  confirmOrStop({ lines, word: configuration.project, yes: options.yes ?? false });
  // A server that has nothing is left as bare as it is: no lock, no log.
  const concerned = plans.filter((plan) => !isNothingToTearDown(plan));
  const hosts = new Map(concerned.map(({ server }) => [server, context.hosts.get(server)!]));
  const lockOn = { ...context, hosts };
  await using _project = await withLock(lockOn, { reason: name, scope: "project" });
  await using _cluster = options.all
    ? await withLock(lockOn, { reason: name, scope: "cluster" })
    : NO_LOCK;
  await announce(context, concerned);
  const { failures, left } = await tearDownAll(context, concerned);
  left.forEach((line) => output.warn(line));
  if (output.json) {
    const done = concerned.filter(({ server }) => !failures.has(server)).map(planResult);
    output.result({ servers: done, failed: [...failures.values()], left });
  }
  if (failures.size > 0) {
    throw new PartialFailureError([...failures.values()].join("\n"), {
      hint: `run jiji ${name} again; what is gone already is passed over`,
    });
  }
  if (output.json) return;
  const servers = concerned.map(({ server }) => server).join(", ");
  if (options.networkOnly) {
    return output.success(`jiji is gone from ${servers}. Back with: jiji server init`);
  }
  output.success(
    options.all
      ? `${configuration.project} and jiji are gone from ${servers}. Back with: jiji server init`
      : `${configuration.project} is gone from ${servers}. Back with: jiji deploy`,
  );
}

async function planAll(context: CommandContext, options: TeardownOptions): Promise<TeardownPlan[]> {
  const { configuration, hosts, signal } = context;
  const services = [...configuration.services.values()];
  const repositories = services.filter((service) => service.build !== undefined)
    .map((service) => imageRepository(configuration, service));
  const { project, builder: { engine } } = configuration;
  const volumes = options.volumes ? namedVolumes(services) : [];
  const wish = { project, repositories, volumes, all: options.all ?? false };
  const plans = await Promise.all([...hosts].map(async ([server, host]) => {
    const facts = await observeTeardown(host, { engine, project, repositories }, signal);
    const plan = planTeardown(server, facts, wish);
    return options.networkOnly ? networkTeardown(plan) : plan;
  }));
  return plans.sort((a, b) => a.server < b.server ? -1 : 1);
}

function refuseForOthers(
  plans: readonly TeardownPlan[],
  { networkOnly }: TeardownOptions,
): void {
  const used = plans.filter((plan) => plan.leaves && plan.others.length > 0);
  if (used.length === 0) return;
  const lines = used.map(({ server, others }) => `  ${server}: ${others.join(", ")}`);
  if (networkOnly) {
    throw new JijiError(`these servers still have containers or projects\n${lines.join("\n")}`, {
      serving: "nothing was changed",
      hint: "take them off first: jiji server teardown, with --all the network goes as well",
    });
  }
  throw new JijiError(`other projects use these servers\n${lines.join("\n")}`, {
    serving: "nothing was changed",
    hint: "tear them down first, from their own configurations, or leave out --all",
  });
}

/** The rest of the cluster is told first: a server that is gone can't say so itself. */
async function announce(context: CommandContext, plans: readonly TeardownPlan[]): Promise<void> {
  const leaving = plans.flatMap(({ leaves, config, server }) =>
    leaves && config ? [{ host: context.hosts.get(server)!, serverId: config.server_id }] : []
  );
  if (leaving.length === 0) return;
  const late = await announceLeaving(leaving, context.witnesses);
  late.forEach((text) => context.output.warn(text));
  const names = leaving.map(({ serverId }) => serverId).join(", ");
  await Promise.all(context.witnesses.map((witness) =>
    auditOrWarn(context, witness, {
      action: "server teardown",
      status: "success",
      message: `${names} left the cluster`,
    })
  ));
}

async function tearDownAll(
  context: CommandContext,
  plans: readonly TeardownPlan[],
): Promise<{ readonly failures: ReadonlyMap<string, string>; readonly left: readonly string[] }> {
  const { configuration, clock, hosts, output, signal } = context;
  const failures = new Map<string, string>();
  const left: string[] = [];
  await Promise.all(plans.map(async (plan) => {
    const host = hosts.get(plan.server)!;
    const startedMs = clock.monotonicMs();
    const lane = plan.server;
    const status = { action: "server teardown", message: renderTeardown(plan).join("; ") } as const;
    try {
      output.emit({ kind: "started", lane, title: "removing the project" });
      left.push(
        ...await tearDownProject(host, plan, {
          project: configuration.project,
          drainTimeoutMs: configuration.deploy.drainTimeoutMs,
          signal,
        }),
      );
      // A server that jiji leaves has no log any more.
      if (plan.leaves) {
        output.emit({ kind: "started", lane, title: "leaving the cluster" });
        left.push(...await leaveCluster(host, leavingFrom(context, plan)));
      } else await auditOrWarn(context, host, { ...status, status: "success" });
      const durationMs = clock.monotonicMs() - startedMs;
      output.emit({ kind: "done", lane, summary: "torn down", durationMs });
    } catch (error) {
      failures.set(plan.server, messageOf(error));
      output.emit({ kind: "failed", lane, title: "teardown", message: "see below" });
      await auditOrWarn(context, host, { ...status, status: "failed" });
    }
  }));
  output.settle();
  return { failures, left };
}

/** A server that never became a member is told by the configuration. */
function leavingFrom({ configuration }: CommandContext, { config }: TeardownPlan): LeavingFrom {
  const { builder, network } = configuration;
  return {
    engine: config?.engine ?? builder.engine,
    clusterCidr: config?.cluster_cidr ?? network.clusterCidrText,
    wireguardPort: config?.wireguard_port ?? network.wireguardPort,
  };
}

function planResult(plan: TeardownPlan) {
  const { server, containers, images, volumes, files, leaves } = plan;
  return { server, containers: containers.map(({ name }) => name), images, volumes, files, leaves };
}
