import { SERVER_PATHS } from "@jiji/core";
import { CLUSTER_LOCK } from "./lock.ts";
import { OBSERVE_TIMEOUT_MS } from "../constants.ts";
import type { CommandContext } from "./command_helpers.ts";
import { mustRunScript } from "./remote.ts";

/** A lock as found on a server. */
export interface FoundLock {
  readonly server: string;
  readonly scope: "project" | "cluster";
  readonly owner: string;
  /** Unix ms. */
  readonly sinceMs: number;
  /** Seconds since its holder last renewed it, by the server's clock. */
  readonly silentSeconds: number;
  /** Unix ms at which a lock taken by hand ends; undefined for one that a command renews. */
  readonly untilMs: number | undefined;
}

/** Prints owner, start and silence of each lock named. Arguments: folders. */
const READ_SCRIPT = `for dir in "$@"; do
  [ -f "$dir/owner" ] || continue
  printf '%s\\t%s\\t%s\\t%s\\t%s\\n' "$dir" "$(sed -n 2p "$dir/owner")" "$(sed -n 3p "$dir/owner")" \\
    "$(($(date +%s) - $(stat -c %Y "$dir/owner")))" "$(sed -n 5p "$dir/owner")"
done
`;

function folders(context: CommandContext): readonly [project: string, cluster: string] {
  const base = SERVER_PATHS.locks;
  return [`${base}/${context.configuration.project}`, `${base}/${CLUSTER_LOCK}`];
}

/** Every lock of this project and of the cluster on the connected servers. */
export async function readLocks(context: CommandContext): Promise<FoundLock[]> {
  const [project, cluster] = folders(context);
  const lists = await Promise.all([...context.hosts.values()].map(async (host) => {
    const text = await mustRunScript(host, READ_SCRIPT, {
      args: [project, cluster],
      what: "reading locks failed",
      timeoutMs: OBSERVE_TIMEOUT_MS,
    });
    return text.split("\n").filter(Boolean).map((line): FoundLock => {
      const [folder, owner = "someone", since, silent, until] = line.split("\t");
      return {
        server: host.name,
        scope: folder === cluster ? "cluster" : "project",
        owner,
        sinceMs: (Number(since) || 0) * 1000,
        silentSeconds: Number(silent) || 0,
        untilMs: Number(until) ? Number(until) * 1000 : undefined,
      };
    });
  }));
  return lists.flat();
}

/** Removes these locks, whoever holds them. */
export async function releaseLocks(
  context: CommandContext,
  locks: readonly FoundLock[],
): Promise<void> {
  const [project, cluster] = folders(context);
  await Promise.all(locks.map(async (lock) => {
    await mustRunScript(context.hosts.get(lock.server)!, 'rm -rf -- "$1"', {
      args: [lock.scope === "cluster" ? cluster : project],
      what: "releasing a lock failed",
      timeoutMs: OBSERVE_TIMEOUT_MS,
    });
  }));
}
