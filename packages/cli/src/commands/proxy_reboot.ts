import { JijiError, messageOf, PartialFailureError } from "@jiji/core";
import { observeAll } from "../lib/deployment/deployment_run.ts";
import { planProxyReboot, rebootProxy } from "../lib/services/proxy_reboot_service.ts";
import { renderDuration } from "../lib/output/symbols.ts";
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

/** What became of the proxy of a server. */
interface RebootOutcome {
  readonly server: string;
  readonly result: "rebooted" | "skipped" | "failed" | "not tried";
  readonly error?: string;
  readonly hint?: string | undefined;
}

/**
 * `jiji proxy reboot`: replaces kamal-proxy on each server by a new container of the current image,
 * one server after the other, while a stand-in takes its visitors.
 *
 * @throws {PartialFailureError} naming the server where it failed; the servers after it are left.
 */
export async function proxyReboot(options: CommonOptions, ports: Ports): Promise<void> {
  const startedMs = ports.clock.monotonicMs();
  await using context = await setupCommandContext(options, ports, { scope: "services" });
  requireAllReachable(context);
  const { output } = context;
  output.note(headline(context));
  output.note("");
  await using _project = await withLock(context, { reason: "proxy reboot", scope: "project" });
  await using _cluster = await withLock(context, { reason: "proxy reboot", scope: "cluster" });
  const outcomes = await rebootAll(context);
  output.settle();
  const durationMs = Math.round(context.clock.monotonicMs() - startedMs);
  if (output.json) output.result({ servers: outcomes, duration_ms: durationMs });
  const named = (result: string) =>
    outcomes.filter((outcome) => outcome.result === result).map(({ server }) => server).join(", ");
  const failed = outcomes.find((outcome) => outcome.result === "failed");
  if (failed) {
    const left = named("not tried");
    throw new PartialFailureError(failed.error ?? failed.server, {
      ...(left === "" ? {} : { serving: `${left}: untouched` }),
      hint: failed.hint ?? "run jiji proxy reboot again: it tidies up first",
    });
  }
  if (output.json) return;
  const skipped = named("skipped");
  if (skipped) output.note(`  kamal-proxy does not run on ${skipped}: skipped`);
  const done = named("rebooted");
  if (done === "") return output.success("Nothing to do: kamal-proxy runs on none of them.");
  output.success(`Rebooted the proxy of ${done} in ${renderDuration(durationMs)}.`);
}

async function rebootAll(context: CommandContext): Promise<RebootOutcome[]> {
  const observed = await observeAll(context);
  const { configuration, clock, output, signal } = context;
  const outcomes: RebootOutcome[] = [];
  for (const [server, host] of [...context.hosts].sort(([a], [b]) => a < b ? -1 : 1)) {
    const ended = signal.aborted || outcomes.some((outcome) => outcome.result === "failed");
    const plan = planProxyReboot(observed.get(server)!, {
      drainTimeoutMs: configuration.deploy.drainTimeoutMs,
    });
    if (ended || plan === undefined) {
      outcomes.push({ server, result: ended ? "not tried" : "skipped" });
      continue;
    }
    const startedMs = clock.monotonicMs();
    let error: string | undefined;
    let hint: string | undefined;
    try {
      await rebootProxy(host, plan, (title) => {
        if (title !== "done") output.emit({ kind: "started", lane: server, title });
      });
      const durationMs = clock.monotonicMs() - startedMs;
      output.emit({ kind: "done", lane: server, summary: "proxy rebooted", durationMs });
    } catch (cause) {
      error = messageOf(cause);
      hint = cause instanceof JijiError ? cause.hint : undefined;
      output.emit({ kind: "failed", lane: server, title: "proxy reboot", message: "see below" });
    }
    outcomes.push(
      error === undefined
        ? { server, result: "rebooted" }
        : { server, result: "failed", error, hint },
    );
    await auditOrWarn(context, host, {
      action: "proxy reboot",
      status: error === undefined ? "success" : "failed",
      message: error ?? "kamal-proxy",
    });
  }
  signal.throwIfAborted();
  return outcomes;
}
