import { join } from "node:path";
import { JijiError, messageOf, PartialFailureError, systemProcess } from "@jiji/core";
import { fetchCorrosion, isUrl } from "../lib/network/corrosion_download.ts";
import { type Artifact, locateArtifacts } from "../lib/network/artifacts.ts";
import { type BootstrapOutcome, bootstrapServers } from "../lib/network/server_bootstrap.ts";
import { renderDuration } from "../lib/output/symbols.ts";
import { writeAudit } from "../utils/audit.ts";
import {
  cacheFolder,
  type CommandContext,
  type CommonOptions,
  headline,
  type Ports,
  setupCommandContext,
} from "../utils/command_helpers.ts";
import { withLock } from "../utils/lock.ts";

/** What else a caller wants of {@link serverInit}. */
export interface InitOptions extends CommonOptions {
  /** Engine and packages must be there already: nothing is installed. */
  readonly networkOnly?: boolean | undefined;
}

/**
 * `jiji server init`: makes every server of the configuration a member of one cluster. Running it
 * again changes only what is not as it should be.
 *
 * @throws {PartialFailureError} naming the servers that failed; the others are ready.
 */
export async function serverInit(options: InitOptions, ports: Ports): Promise<void> {
  const name = options.networkOnly ? "network setup" : "server init";
  const startedMs = ports.clock.monotonicMs();
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const { configuration, output } = context;
  const { network, builder } = configuration;
  output.note(headline(context, builder.engine, `mesh ${network.clusterCidrText}`));
  output.note("");
  const artifacts = await findArtifacts(context);
  await using _lock = await withLock(context, { reason: name, scope: "cluster" });
  const outcomes = await bootstrapServers(
    [...context.hosts].map(([name, host]) => ({
      name,
      host,
      hostAddress: configuration.servers.get(name)!.host,
    })),
    {
      settings: {
        engine: builder.engine,
        clusterCidr: network.clusterCidr,
        blockPrefix: network.blockPrefix,
        wireguardPort: network.wireguardPort,
        serviceDomain: network.serviceDomain,
        publicIpSources: network.publicIpSources,
        dnsForward: network.dnsForward,
      },
      networkOnly: options.networkOnly ?? false,
      artifacts,
      clock: context.clock,
      signal: context.signal,
      emit: (event) => output.emit(event),
    },
  );
  output.settle();
  await audit(context, outcomes, name);
  report(context, outcomes, context.clock.monotonicMs() - startedMs);
}

async function findArtifacts(context: CommandContext): Promise<Artifact[]> {
  const { configuration, output, signal } = context;
  const executable = Deno.env.get("JIJI_EXECUTABLE") ?? Deno.execPath();
  const source = Deno.env.get("JIJI_CORROSION") || configuration.network.corrosion;
  const corrosion = source !== undefined && isUrl(source)
    ? await fetchCorrosion(source, {
      cacheFolder: cacheFolder(),
      lockPath: join(configuration.projectRoot, ".jiji", "lock.json"),
      process: systemProcess,
      signal,
      note: (line) => output.note(line),
    })
    : source;
  return await locateArtifacts({ executable, corrosion });
}

/** One line on each server that was changed; a server that could not be set up has no log yet. */
async function audit(
  context: CommandContext,
  outcomes: readonly BootstrapOutcome[],
  action: string,
): Promise<void> {
  const changed = outcomes.filter((outcome) => outcome.steps.length > 0);
  await Promise.allSettled(changed.map((outcome) =>
    writeAudit(context.hosts.get(outcome.name)!, {
      action,
      status: outcome.error === undefined ? "success" : "failed",
      message: `${outcome.steps.length} steps`,
    }, { project: context.configuration.project, nowMs: context.clock.nowMs() })
  ));
}

function report(
  context: CommandContext,
  outcomes: readonly BootstrapOutcome[],
  durationMs: number,
): void {
  const { output, unreachable } = context;
  const failed = new Map<string, unknown>(unreachable);
  for (const outcome of outcomes) {
    if (outcome.error !== undefined) failed.set(outcome.name, outcome.error);
  }
  const ready = outcomes.filter((outcome) => outcome.error === undefined);
  if (output.json) {
    output.result({
      ready: ready.map(({ name, block, steps }) => ({ name, block, changed: steps.length })),
      failed: [...failed].map(([name, error]) => ({ name, message: messageOf(error) })),
      duration_ms: Math.round(durationMs),
    });
  }
  if (failed.size > 0) throw failure(failed, ready);
  if (output.json) return;
  const changed = ready.filter((outcome) => outcome.steps.length > 0);
  const servers = `${ready.length} server${ready.length === 1 ? "" : "s"}`;
  if (changed.length === 0) {
    output.success(
      `Nothing to do: ${servers} as configured (checked in ${renderDuration(durationMs)}).`,
    );
    return;
  }
  output.success(`${servers} ready in ${renderDuration(durationMs)}. Every pair linked.`);
  output.line("  Next: jiji deploy");
}

function failure(
  failed: ReadonlyMap<string, unknown>,
  ready: readonly BootstrapOutcome[],
): JijiError {
  const lines = [...failed].map(([name, error]) => {
    const hint = error instanceof JijiError && error.hint ? `\n    ${error.hint}` : "";
    const text = messageOf(error);
    return `  ${text.startsWith(name) ? text : `${name}: ${text}`}${hint}`;
  });
  const names = ready.map((outcome) => outcome.name).join(", ");
  const message = `${failed.size} of ${failed.size + ready.length} servers failed\n${
    lines.join("\n")
  }`;
  const options = {
    serving: ready.length > 0
      ? `${names}: ready, unharmed by this`
      : "nothing was changed on servers that could not be reached",
    hint: "mend what is named above and run jiji server init again; it goes on where it stopped",
  };
  const only = [...failed.values()][0];
  // When nothing at all could be reached, the exit code says so.
  if (ready.length === 0 && only instanceof JijiError && failed.size === 1) {
    return Object.assign(new PartialFailureError(message, options), { exitCode: only.exitCode });
  }
  return new PartialFailureError(message, options);
}
