import {
  isWireguardKey,
  JijiError,
  messageOf,
  parseServerStatus,
  PartialFailureError,
  SERVER_PATHS,
  type ServerStatus,
  waitFor,
} from "@jiji/core";
import { KEY_CHANGE_TIMEOUT_MS, OBSERVE_TIMEOUT_MS } from "../../constants.ts";
import { askServers } from "../../lib/network/ask_servers.ts";
import {
  type KeyPlan,
  type KeyStep,
  NEXT_KEY_SCRIPT,
  openChange,
  planRotation,
  renderKeyStep,
} from "../../lib/network/key_rotation.ts";
import { auditOrWarn } from "../../utils/audit.ts";
import {
  type CommandContext,
  type CommonOptions,
  headline,
  type Ports,
  requireAllReachable,
  setupCommandContext,
} from "../../utils/command_helpers.ts";
import { confirmOrStop } from "../../utils/confirm.ts";
import { withLock } from "../../utils/lock.ts";
import { mustRunScript } from "../../utils/remote.ts";

/** A Corrosion that was restarted with its server's new identity answers within this time, ms. */
const CORROSION_RETURN_MS = 30_000;

/** Options of `jiji network rotate-keys`. */
export interface RotateKeysOptions extends CommonOptions {
  readonly yes?: boolean | undefined;
  readonly plan?: boolean | undefined;
}

/**
 * `jiji network rotate-keys`: gives servers new WireGuard keys, one after the other, without losing
 * the mesh. Killed at any point, the daemons finish what was announced, and the next run sees to it.
 *
 * @throws {JijiError} when a member is absent, before anything is announced; {PartialFailureError}
 * naming the server that did not get ready.
 */
export async function networkRotateKeys(options: RotateKeysOptions, ports: Ports): Promise<void> {
  await using context = await setupCommandContext(options, ports, {
    scope: "servers",
    witnesses: true,
  });
  requireAllReachable(context);
  const { output, clock } = context;
  output.note(headline(context, "rotate-keys"));
  const plan = await look(context);
  if (options.plan && output.json) return output.result({ ...plan });
  plan.steps.forEach((step) => output.note(`  ${renderKeyStep(step)}`));
  refuse(plan);
  if (options.plan) return;
  confirmOrStop({ lines: [], word: "yes", yes: options.yes ?? false });
  await using _lock = await withLock(context, { reason: "rotate-keys", scope: "cluster" });
  const startedMs = clock.monotonicMs();
  const done: { server: string; key: string; durationMs: number }[] = [];
  for (const step of plan.steps) {
    try {
      done.push(await change(context, step));
    } catch (error) {
      output.settle();
      if (context.signal.aborted) throw interrupted(step, { plan, done: done.length });
      if (output.json) output.result({ changed: done, failed: step.server });
      throw failure(step, { plan, done: done.length, error });
    }
  }
  output.settle();
  const durationMs = Math.round(clock.monotonicMs() - startedMs);
  if (output.json) return output.result({ changed: done, duration_ms: durationMs });
  const servers = done.map(({ server }) => server).join(", ");
  output.success(`${servers}: new keys in ${(durationMs / 1000).toFixed(1)} s. Every pair linked.`);
}

async function askStatuses(context: CommandContext): Promise<ReadonlyMap<string, ServerStatus>> {
  const hosts = [...context.hosts.values(), ...context.witnesses];
  const { answers } = await askServers(hosts, {
    argv: [`${SERVER_PATHS.bin}/jiji-daemon`, "status", "--json"],
    what: "asking jiji-daemon failed",
    parse: parseServerStatus,
    signal: context.signal,
  });
  return answers;
}

/** What is to be done. While a change is under way that server's Corrosion is away for seconds. */
async function look(context: CommandContext): Promise<KeyPlan> {
  const { clock, signal } = context;
  let found = await lookOnce(context);
  if (found.isCorrosionAway) {
    context.output.note("  waiting for corrosion to answer on every server");
    await waitFor(async () => {
      found = await lookOnce(context);
      return found.isCorrosionAway ? undefined : true;
    }, { clock, timeoutMs: CORROSION_RETURN_MS, everyMs: 500, signal });
  }
  return found.plan;
}

async function lookOnce(
  context: CommandContext,
): Promise<{ readonly plan: KeyPlan; readonly isCorrosionAway: boolean }> {
  const statuses = await askStatuses(context);
  const chosen = new Map([...statuses].filter(([name]) => context.hosts.has(name)));
  const plan = planRotation(chosen);
  const mute = [...context.hosts.keys()].filter((name) => !statuses.has(name))
    .map((name) => `${name}: its jiji-daemon gives no status`);
  return {
    plan: { ...plan, refusals: [...plan.refusals, ...mute] },
    isCorrosionAway: [...chosen.values()].some(({ servers }) => servers === null),
  };
}

function refuse(plan: KeyPlan): void {
  if (plan.refusals.length === 0) return;
  throw new JijiError(`keys can't be changed now\n  ${plan.refusals.join("\n  ")}`, {
    serving: "nothing was changed; the mesh goes on with the keys it has",
    hint: "bring these servers back, or remove those that are gone for good: jiji server remove",
  });
}

async function change(context: CommandContext, step: KeyStep) {
  const { output, clock, signal, hosts } = context;
  const host = hosts.get(step.server)!;
  const lane = step.server;
  const startedMs = clock.monotonicMs();
  output.emit({ kind: "started", lane, title: "announcing" });
  const text = await mustRunScript(host, NEXT_KEY_SCRIPT, {
    args: [step.kind],
    what: "making the next key failed",
    timeoutMs: OBSERVE_TIMEOUT_MS,
    signal,
  });
  const nextKey = text.trim();
  if (!isWireguardKey(nextKey)) throw new JijiError(`${lane} printed no WireGuard key`);
  let open: string[] = [];
  const ready = await waitFor(async () => {
    open = openChange(step, { nextKey, statuses: await askStatuses(context) });
    if (open.length === 0) return true;
    output.emit({ kind: "started", lane, title: open[0]! });
    return undefined;
  }, { clock, timeoutMs: KEY_CHANGE_TIMEOUT_MS, everyMs: 300, signal });
  const durationMs = Math.round(clock.monotonicMs() - startedMs);
  const message = `key ${step.presentKey.slice(0, 8)}… to ${nextKey.slice(0, 8)}…`;
  await auditOrWarn(context, host, {
    action: "network rotate-keys",
    status: ready ? "success" : "failed",
    message,
  });
  if (!ready) {
    throw new JijiError(`not ready after ${Math.round(durationMs / 1000)} s: ${open.join("; ")}`);
  }
  output.emit({ kind: "done", lane, summary: message, durationMs });
  return { server: lane, key: nextKey, durationMs };
}

/** What was begun ends without this command; the rest was not begun. */
function interrupted(step: KeyStep, o: Parameters<typeof notBegun>[0]): JijiError {
  return new JijiError(`interrupted${notBegun(o)}`, {
    serving: `the daemons finish the change of ${step.server} by themselves, if it was announced`,
    hint: "run jiji network rotate-keys again for the rest",
  });
}

function notBegun(o: { readonly plan: KeyPlan; readonly done: number }): string {
  const left = o.plan.steps.slice(o.done + 1).map(({ server }) => server);
  return left.length > 0 ? `\n  not begun: ${left.join(", ")}` : "";
}

function failure(
  step: KeyStep,
  o: { readonly plan: KeyPlan; readonly done: number; readonly error: unknown },
): PartialFailureError {
  return new PartialFailureError(`${step.server}: ${messageOf(o.error)}${notBegun(o)}`, {
    serving: "containers and their traffic go on; the key stays announced until all know it",
    hint: "run jiji network rotate-keys again; to give the key up, delete " +
      `${SERVER_PATHS.wireguardNextKey} on ${step.server}`,
  });
}
