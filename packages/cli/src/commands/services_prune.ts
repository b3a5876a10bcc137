import { isOk, messageOf, PartialFailureError, UsageError } from "@jiji/core";
import { ENGINE_TIMEOUT_MS } from "../constants.ts";
import { argvListImages, argvRemoveImage } from "../lib/engine/engine_commands.ts";
import { imageRepository } from "../lib/services/build_service.ts";
import { observeAll } from "../lib/deployment/deployment_run.ts";
import { parseImages, planPrune, type PrunedImage } from "../lib/services/image_prune_service.ts";
import { renderTable } from "../lib/output/table.ts";
import type { ObservedHost } from "../types/deployment.ts";
import type { RemoteHost } from "../types/remote_host.ts";
import { auditOrWarn } from "../utils/audit.ts";
import {
  type CommandContext,
  type CommonOptions,
  headline,
  type Ports,
  requireAllReachable,
  setupCommandContext,
} from "../utils/command_helpers.ts";
import { withLock } from "../utils/lock.ts";
import { mustRun } from "../utils/remote.ts";

/** Options of `jiji services prune`. */
export interface PruneOptions extends CommonOptions {
  /** Versions to keep of each service instead of its own `retain`. */
  readonly retain?: string | undefined;
  readonly plan?: boolean | undefined;
}

/**
 * `jiji services prune`: removes images of built services past what each retains, and those that
 * lost their tag. Nothing that a container uses goes.
 *
 * @throws {PartialFailureError} naming what could not be removed.
 */
export async function servicesPrune(options: PruneOptions, ports: Ports): Promise<void> {
  const retain = parseRetain(options.retain);
  await using context = await setupCommandContext(options, ports, { scope: "services" });
  requireAllReachable(context);
  const { output } = context;
  output.note(headline(context));
  output.note("");
  if (options.plan) return showPlan(context, await planAll(context, retain));
  await using _lock = await withLock(context, { reason: "services prune", scope: "project" });
  const plan = await planAll(context, retain);
  const failures = await removeAll(context, plan);
  const removed = [...plan].flatMap(([server, images]) =>
    images.map((image) => ({ server, ...image }))
  ).filter(({ server, reference }) => !failures.has(`${server} ${reference}`));
  if (output.json) output.result({ removed, failed: [...failures.values()] });
  if (failures.size > 0) {
    throw new PartialFailureError([...failures.values()].join("\n"), {
      hint: "see who uses it: jiji server exec -- docker ps -a",
    });
  }
  if (output.json) return;
  if (removed.length === 0) return output.success("Nothing to do: no image is past its retain.");
  output.success(`Removed ${removed.length} image${removed.length === 1 ? "" : "s"}.`);
}

function parseRetain(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^[1-9]\d{0,3}$/.test(text)) return Number(text);
  throw new UsageError(`--retain ${text} is not a number of versions`, {
    hint: "a whole number from 1",
  });
}

type Plan = ReadonlyMap<string, readonly PrunedImage[]>;

async function planAll(context: CommandContext, retain: number | undefined): Promise<Plan> {
  const observed = await observeAll(context);
  const entries = await Promise.all(
    [...context.hosts].sort(([a], [b]) => a < b ? -1 : 1).map(
      async ([name, host]) =>
        [
          name,
          await planOn(context, host, {
            observed: observed.get(name)!,
            retain,
          }),
        ] as const,
    ),
  );
  return new Map(entries);
}

async function planOn(
  context: CommandContext,
  host: RemoteHost,
  facts: { readonly observed: ObservedHost; readonly retain: number | undefined },
): Promise<PrunedImage[]> {
  const { configuration, services, signal } = context;
  const built = services.filter((service) => service.build !== undefined).map((service) => ({
    service: service.name,
    repository: imageRepository(configuration, service),
    retain: facts.retain ?? service.retain,
  }));
  if (built.length === 0) return [];
  const { engine } = facts.observed.config;
  const argv = argvListImages(engine, built.map(({ repository }) => repository));
  const text = await mustRun(host, argv, {
    what: "listing images failed",
    timeoutMs: ENGINE_TIMEOUT_MS,
    signal,
  });
  return planPrune(parseImages(text), built, facts.observed);
}

function showPlan({ output }: CommandContext, plan: Plan): void {
  const rows = [...plan].flatMap(([server, images]) =>
    images.map((image) => ({ server, ...image }))
  );
  if (output.json) return output.result({ remove: rows });
  if (rows.length === 0) return output.line("nothing to do");
  const cells = rows.map((row) => [row.server, row.service, shown(row.reference)]);
  renderTable(["server", "service", "remove"], cells).forEach((line) => output.line(line));
}

function shown(reference: string): string {
  return /^[a-f0-9]{64}$/.test(reference) ? `${reference.slice(0, 12)} (untagged)` : reference;
}

/** Failures by `server image`. */
async function removeAll(context: CommandContext, plan: Plan): Promise<Map<string, string>> {
  const { configuration, hosts, signal } = context;
  const failures = new Map<string, string>();
  await Promise.all([...plan].map(async ([server, images]) => {
    if (images.length === 0) return;
    const host = hosts.get(server)!;
    const before = failures.size;
    for (const { reference } of images) {
      const argv = argvRemoveImage(configuration.builder.engine, reference);
      try {
        const result = await host.run(argv, { timeoutMs: ENGINE_TIMEOUT_MS, signal });
        if (isOk(result) || /no such image|image not known/i.test(result.stderr)) continue;
        const said = result.stderr.trim().split("\n")[0];
        failures.set(`${server} ${reference}`, `${server}: ${shown(reference)} stays: ${said}`);
      } catch (error) {
        failures.set(`${server} ${reference}`, messageOf(error));
      }
    }
    await auditOrWarn(context, host, {
      action: "services prune",
      status: failures.size > before ? "failed" : "success",
      message: images.map(({ reference }) => shown(reference)).join(", "),
    });
  }));
  return failures;
}
