import { UsageError } from "@jiji/core";
import { renderTable } from "../lib/output/table.ts";
import { visible } from "../lib/output/symbols.ts";
import { auditOrWarn } from "../utils/audit.ts";
import {
  type CommonOptions,
  type Ports,
  requireAllReachable,
  setupCommandContext,
} from "../utils/command_helpers.ts";
import { lockOwner, takeLock } from "../utils/lock.ts";
import { parseAge } from "../utils/time_text.ts";
import { readLocks, releaseLocks } from "../utils/lock_inspection.ts";
import { confirmOrStop } from "../utils/confirm.ts";

/**
 * `jiji lock status`: who holds the project's lock, server by server.
 *
 * @throws {JijiError} when the configuration is wrong.
 */
export async function lockStatus(options: CommonOptions, ports: Ports): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const locks = await readLocks(context);
  const { output } = context;
  if (output.json) return output.result({ locks });
  if (locks.length === 0) return output.line("not locked");
  const cells = locks.map((lock) => [
    lock.server,
    lock.scope,
    lock.owner,
    new Date(lock.sinceMs).toISOString().slice(0, 16),
    lock.untilMs === undefined
      ? `seen ${lock.silentSeconds} s ago`
      : `until ${new Date(lock.untilMs).toISOString().slice(0, 16)}`,
  ]);
  renderTable(["server", "what", "held by", "since (UTC)", ""], cells)
    .forEach((line) => output.line(line));
}

/** Options of `jiji lock acquire`. */
export interface AcquireLockOptions extends CommonOptions {
  readonly reason?: string | undefined;
  /** Length of time: `30m`, `2h`. */
  readonly for?: string | undefined;
}

/** A lock taken by hand ends by itself after this long unless told otherwise, ms. */
const LOCK_LASTS_MS = 3_600_000;
/** Longer ones are surely forgotten, ms. */
const LOCK_LASTS_MAX_MS = 7 * 86_400_000;
const REASON_CHARACTERS_MAX = 200;

/**
 * `jiji lock acquire`: keeps every changing command of the project away from the chosen servers,
 * until it is released or its time is over.
 *
 * @throws {UsageError} for a malformed length of time; {LockHeldError} when someone else has it.
 */
export async function lockAcquire(options: AcquireLockOptions, ports: Ports): Promise<void> {
  const lastsMs = options.for === undefined ? LOCK_LASTS_MS : parseAge(options.for);
  if (lastsMs === undefined || lastsMs < 1_000 || lastsMs > LOCK_LASTS_MAX_MS) {
    throw new UsageError(`--for ${options.for} is not a length of time`, {
      hint: "a number with its unit, up to 7d: 30m, 2h",
    });
  }
  const reason = visible(options.reason ?? "by hand").replace(/\s+/g, " ").trim();
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  requireAllReachable(context);
  await takeLock(context, {
    reason: reason.slice(0, REASON_CHARACTERS_MAX),
    seconds: Math.ceil(lastsMs / 1000),
  });
  const untilMs = context.clock.nowMs() + lastsMs;
  const servers = [...context.hosts.keys()].sort();
  await Promise.all(
    [...context.hosts.values()].map((host) =>
      auditOrWarn(context, host, { action: "lock acquire", status: "success", message: reason })
    ),
  );
  if (context.output.json) return context.output.result({ servers, reason, until_ms: untilMs });
  context.output.success(
    `Locked ${servers.join(", ")} until ${new Date(untilMs).toISOString().slice(0, 19)} (UTC). ` +
      "End it with: jiji lock release",
  );
}

/** Options of `jiji lock release`. */
export interface ReleaseLockOptions extends CommonOptions {
  readonly yes?: boolean | undefined;
}

/**
 * `jiji lock release`: ends locks, also by force. It asks, unless they were taken by hand by the
 * same user; those of dead commands end by themselves.
 *
 * @throws {UsageError} when nothing is locked.
 */
export async function lockRelease(options: ReleaseLockOptions, ports: Ports): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const locks = await readLocks(context);
  if (locks.length === 0) throw new UsageError("nothing is locked");
  const own = locks.every((lock) =>
    lock.untilMs !== undefined && lock.owner.startsWith(`${lockOwner()}: `)
  );
  confirmOrStop({
    lines: locks.map((lock) => `  ${lock.server}: ${lock.owner}`),
    word: "yes",
    yes: (options.yes ?? false) || own,
  });
  await releaseLocks(context, locks);
  await Promise.all(locks.map((lock) =>
    auditOrWarn(context, context.hosts.get(lock.server)!, {
      action: "lock release",
      status: "success",
      message: `${lock.scope}: ${lock.owner}`,
    })
  ));
  if (context.output.json) return context.output.result({ released: locks });
  context.output.success(`Released ${locks.length} lock${locks.length === 1 ? "" : "s"}.`);
}
