import { UsageError } from "@jiji/core";
import { renderTable } from "../lib/output/table.ts";
import { type CommonOptions, type Ports, setupCommandContext } from "../utils/command_helpers.ts";
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
    new Date(lock.sinceMs).toISOString().slice(0, 19),
    `${lock.silentSeconds} s ago`,
  ]);
  renderTable(["server", "what", "held by", "since (UTC)", "last sign of life"], cells)
    .forEach((line) => output.line(line));
}

/** Options of `jiji lock release`. */
export interface ReleaseLockOptions extends CommonOptions {
  readonly yes?: boolean | undefined;
}

/**
 * `jiji lock release`: ends locks by force. Locks of dead commands end by themselves, so this asks.
 *
 * @throws {UsageError} when nothing is locked.
 */
export async function lockRelease(options: ReleaseLockOptions, ports: Ports): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const locks = await readLocks(context);
  if (locks.length === 0) throw new UsageError("nothing is locked");
  confirmOrStop({
    lines: locks.map((lock) => `  ${lock.server}: ${lock.owner}`),
    word: "yes",
    yes: options.yes ?? false,
  });
  await releaseLocks(context, locks);
  context.output.success(`Released ${locks.length} locks.`);
}
