import { hostname, userInfo } from "node:os";
import { isOk, LockHeldError, randomHex, SERVER_PATHS } from "@jiji/core";
import { LOCK_EXPIRY_SECONDS, LOCK_RENEW_MS, OBSERVE_TIMEOUT_MS } from "../constants.ts";
import type { RemoteHost } from "../types/remote_host.ts";
import type { CommandContext } from "./command_helpers.ts";
import { commandError, mustRunScript } from "./remote.ts";

/** What a lock says of itself. */
export interface LockWish {
  /** What the holder does: `deploy`, `server init`. */
  readonly reason: string;
}

/** Exit code of the scripts below when someone else holds the lock. */
const HELD = 75;

/**
 * `mkdir` is the atomic step. A lock that was not renewed for a while belongs to a dead CLI: it is
 * moved aside, which only one of several waiting CLIs can do. A bare server has no folder for locks
 * yet and needs none. Arguments: folder, token, owner, expiry in seconds.
 */
const ACQUIRE_SCRIPT = `set -u
dir=$1 token=$2 owner=$3 expiry=$4
[ -d "$(dirname "$dir")" ] || exit 0
for try in 1 2; do
  if mkdir "$dir" 2>/dev/null; then
    printf '%s\\n%s\\n%s\\n' "$token" "$owner" "$(date +%s)" >"$dir/owner"
    exit 0
  fi
  now=$(date +%s)
  seen=$(stat -c %Y "$dir/owner" 2>/dev/null || stat -c %Y "$dir" 2>/dev/null || echo "$now")
  if [ $((now - seen)) -le "$expiry" ]; then cat "$dir/owner" 2>/dev/null; exit ${HELD}; fi
  mv -T "$dir" "$dir.stale.$token" 2>/dev/null && rm -rf "$dir.stale.$token"
done
cat "$dir/owner" 2>/dev/null
exit ${HELD}
`;

/** Renews or releases only what is still ours. Arguments: folder, token, `renew` or `release`. */
const HOLD_SCRIPT = `set -u
[ "$(head -n 1 "$1/owner" 2>/dev/null)" = "$2" ] || exit ${HELD}
if [ "$3" = renew ]; then touch "$1/owner"; else rm -rf "$1"; fi
`;

/**
 * Takes the project's lock on every connected server, renews it while the command runs, and gives
 * it back when disposed, also after Ctrl-C. A killed CLI's lock expires by itself.
 *
 * @throws {LockHeldError} when someone else has it; nothing is held then.
 */
export async function withLock(context: CommandContext, wish: LockWish): Promise<AsyncDisposable> {
  const token = randomHex(16);
  const folder = `${SERVER_PATHS.locks}/${context.configuration.project}`;
  const owner = `${userInfo().username}@${hostname()}: ${wish.reason}`;
  const held: RemoteHost[] = [];
  const release = async () => {
    await Promise.allSettled(held.map((host) => hold(host, [folder, token, "release"])));
  };
  // In name order on every machine, so that two CLIs never wait for each other crosswise.
  const hosts = [...context.hosts].sort(([a], [b]) => a < b ? -1 : 1).map(([, host]) => host);
  try {
    for (const host of hosts) {
      await acquire(host, [folder, token, owner, String(LOCK_EXPIRY_SECONDS)]);
      held.push(host);
    }
  } catch (error) {
    await release();
    throw error;
  }
  const timer = setInterval(() => {
    for (const host of held) hold(host, [folder, token, "renew"]).catch(() => undefined);
  }, LOCK_RENEW_MS);
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await release();
    },
  };
}

async function acquire(host: RemoteHost, args: readonly string[]): Promise<void> {
  const result = await host.run(["sh", "-s", "--", ...args], {
    timeoutMs: OBSERVE_TIMEOUT_MS,
    stdin: ACQUIRE_SCRIPT,
  });
  if (isOk(result)) return;
  if (result.exitCode !== HELD) {
    throw commandError(host, ["sh", "-s"], { what: "taking the lock failed", result });
  }
  const [, holder = "someone", since = ""] = result.stdout.split("\n");
  const sinceMs = Number(since) * 1000 || 0;
  const at = sinceMs ? ` since ${new Date(sinceMs).toISOString()}` : "";
  throw new LockHeldError(`${host.name} is locked by ${holder}${at}`, {
    holder,
    sinceMs,
    serving: "nothing was changed",
    hint: "wait for it to end and run this again; the lock of a command that was killed ends by " +
      `itself ${LOCK_EXPIRY_SECONDS} s after its last sign of life`,
  });
}

async function hold(host: RemoteHost, args: readonly string[]): Promise<void> {
  await mustRunScript(host, HOLD_SCRIPT, {
    args,
    what: "keeping the lock failed",
    timeoutMs: OBSERVE_TIMEOUT_MS,
  });
}
