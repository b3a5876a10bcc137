import { hostname, userInfo } from "node:os";
import { type Clock, isOk, LockHeldError, randomHex, SERVER_PATHS } from "@jiji/core";
import { LOCK_EXPIRY_SECONDS, LOCK_RENEW_MS, OBSERVE_TIMEOUT_MS } from "../constants.ts";
import type { RemoteHost } from "../types/remote_host.ts";
import type { CommandContext } from "./command_helpers.ts";
import { isGone, ownProcess } from "./process_identity.ts";
import { commandError, mustRunScript } from "./remote.ts";

/** What a lock says of itself. */
export interface LockWish {
  /** What the holder does: `deploy`, `server init`. */
  readonly reason: string;
  /** What it covers: this project on these servers, or the cluster itself. */
  readonly scope: "project" | "cluster";
}

/** Folder of the cluster's lock; no project's name begins with an underscore. */
export const CLUSTER_LOCK = "_cluster";

/** Who holds a lock, as its file on the server tells. */
export interface LockHolder {
  readonly token: string;
  /** `ana@laptop: deploy`. */
  readonly owner: string;
  /** Unix seconds. */
  readonly sinceSeconds: number;
  /** See {@link ownProcess}; "" when unknown. */
  readonly process: string;
  /** Unix seconds at which a lock taken by hand ends; 0 for one that a command renews. */
  readonly untilSeconds: number;
  /** Last sign of life, as the server prints it; only compared. */
  readonly renewed: string;
}

/** Exit code of the scripts below when someone else holds the lock. */
const HELD = 75;

/**
 * One script at a time looks at a lock and changes it: the kernel gives the guard back when the
 * script ends, however it ends. Without it, of two CLIs that find a dead lock the slower one would
 * move the quicker one's new lock aside. Source: flock(1), util-linux, on which systemd depends.
 */
const GUARD = 'exec 9>>"$1.guard" && flock -w 20 9 || exit 1';

/**
 * A lock that was not renewed for a while, or whose token the caller knows to be that of a dead
 * process, is taken over. A bare server gets its folder for locks with the cluster's lock, so that
 * two first `server init` do not meet; other locks need none there. A lock taken by hand gives no
 * sign of life: it says when it ends. Arguments: folder, token, owner, process, expiry in seconds,
 * dead token, seconds that a lock taken by hand lasts.
 */
const ACQUIRE_SCRIPT = `set -u
dir=$1 token=$2 owner=$3 process=$4 expiry=$5 dead=$6 lasts=$7
until=
[ -z "$lasts" ] || until=$(($(date +%s) + lasts))
tell() { awk '{ print } END { while (NR++ < 5) print "" }' "$dir/owner" 2>/dev/null; }
case $dir in */${CLUSTER_LOCK}) mkdir -p -m 700 "$(dirname "$dir")" || exit 1 ;; esac
[ -d "$(dirname "$dir")" ] || exit 0
${GUARD}
for try in 1 2; do
  if mkdir "$dir" 2>/dev/null; then
    printf '%s\\n' "$token" "$owner" "$(date +%s)" "$process" "$until" >"$dir/owner"
    exit 0
  fi
  now=$(date +%s)
  seen=$(stat -c %Y "$dir/owner" 2>/dev/null || stat -c %Y "$dir" 2>/dev/null || echo "$now")
  holder=$(head -n 1 "$dir/owner" 2>/dev/null)
  ends=$(sed -n 5p "$dir/owner" 2>/dev/null)
  case $ends in '' | *[!0-9]*) ends=$((seen + expiry)) ;; esac
  if [ "$now" -le "$ends" ] && { [ -z "$dead" ] || [ "$holder" != "$dead" ]; }; then
    tell
    stat -c %y "$dir/owner" 2>/dev/null
    exit ${HELD}
  fi
  mv -T "$dir" "$dir.stale.$token" 2>/dev/null && rm -rf "$dir.stale.$token"
done
tell
exit ${HELD}
`;

/** Renews or releases only what is still ours. Arguments: folder, token, `renew` or `release`. */
const HOLD_SCRIPT = `set -u
${GUARD}
[ "$(head -n 1 "$1/owner" 2>/dev/null)" = "$2" ] || exit ${HELD}
if [ "$3" = renew ]; then touch "$1/owner"; else rm -rf "$1"; fi
`;

/**
 * Takes a lock on every connected server, also on those that are only looked at, so that two
 * commands about different servers of a project meet; renews it while the command runs, and gives
 * it back when disposed, also after Ctrl-C. The lock of a CLI that was killed is waited out, or
 * taken over at once when it ran on this machine.
 *
 * @throws {LockHeldError} when someone else has it and lives; nothing is held then.
 */
export async function withLock(context: CommandContext, wish: LockWish): Promise<AsyncDisposable> {
  const { held, folder, token } = await takeEverywhere(context, wish);
  const timer = setInterval(() => {
    for (const host of held) hold(host, [folder, token, "renew"]).catch(() => undefined);
  }, LOCK_RENEW_MS);
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await giveBack(held, { folder, token });
    },
  };
}

/**
 * Takes the project's lock by hand on every connected server: it stays when the command ends, until
 * it is released or its time is over.
 *
 * @throws {LockHeldError} when someone else has it; nothing is held then.
 */
export async function takeLock(
  context: CommandContext,
  wish: { readonly reason: string; readonly seconds: number },
): Promise<void> {
  await takeEverywhere(context, { ...wish, scope: "project" });
}

interface HeldLock {
  readonly held: readonly RemoteHost[];
  readonly folder: string;
  readonly token: string;
}

async function takeEverywhere(
  context: CommandContext,
  wish: LockWish & { readonly seconds?: number },
): Promise<HeldLock> {
  const token = randomHex(16);
  const name = wish.scope === "cluster" ? CLUSTER_LOCK : context.configuration.project;
  const folder = `${SERVER_PATHS.locks}/${name}`;
  const owner = `${lockOwner()}: ${wish.reason}`;
  const hosts = [...context.hosts.values(), ...context.witnesses]
    .sort((a, b) => a.name < b.name ? -1 : 1);
  const facts = { folder, token, owner, seconds: wish.seconds };
  const free = await takeAtOnce(hosts, facts, context);
  if (free) return { held: free, folder, token };
  // One by one, in name order on every machine: two CLIs never wait for each other crosswise.
  const held: RemoteHost[] = [];
  try {
    for (const host of hosts) {
      try {
        await acquire(host, facts, context);
        held.push(host);
      } catch (error) {
        // A server that is only looked at stops nothing by being broken.
        if (context.hosts.has(host.name) || error instanceof LockHeldError) throw error;
      }
    }
  } catch (error) {
    await giveBack(held, { folder, token });
    throw error;
  }
  return { held, folder, token };
}

/**
 * The usual case, in one round trip for all: nobody has any of them. Otherwise nothing is kept, and
 * undefined is given.
 */
async function takeAtOnce(
  hosts: readonly RemoteHost[],
  facts: LockFacts,
  context: CommandContext,
): Promise<RemoteHost[] | undefined> {
  const tries = await Promise.all(hosts.map((host) =>
    tryAcquire(host, facts, "").then(
      (holder) => holder === undefined ? "taken" as const : "held" as const,
      () => "failed" as const,
    )
  ));
  const taken = hosts.filter((_, index) => tries[index] === "taken");
  const isFree = hosts.every((host, index) =>
    tries[index] === "taken" || (tries[index] === "failed" && !context.hosts.has(host.name))
  );
  if (isFree) return taken;
  await giveBack(taken, facts);
  return undefined;
}

/** In place of a lock where none is needed, e.g. for a command that only shows what it would do. */
export const NO_LOCK: AsyncDisposable = { [Symbol.asyncDispose]: () => Promise.resolve() };

/** Who takes locks here: `ana@laptop`. */
export function lockOwner(): string {
  return `${userInfo().username}@${hostname()}`;
}

async function giveBack(
  held: readonly RemoteHost[],
  lock: { readonly folder: string; readonly token: string },
): Promise<void> {
  await Promise.allSettled(held.map((host) => hold(host, [lock.folder, lock.token, "release"])));
}

interface LockFacts {
  readonly folder: string;
  readonly token: string;
  readonly owner: string;
  /** How long a lock taken by hand lasts. */
  readonly seconds: number | undefined;
}

/** A holder that shows no sign of life for the whole expiry is dead; one that does is not. */
async function acquire(host: RemoteHost, facts: LockFacts, context: CommandContext): Promise<void> {
  const { clock, signal, output } = context;
  let first: LockHolder | undefined;
  let dead = "";
  const deadlineMs = clock.monotonicMs() + (LOCK_EXPIRY_SECONDS + 5) * 1000;
  while (true) {
    const holder = await tryAcquire(host, facts, dead);
    if (holder === undefined) return;
    const changed = first !== undefined &&
      (holder.renewed !== first.renewed || holder.token !== first.token);
    if (changed || holder.untilSeconds > 0 || clock.monotonicMs() > deadlineMs) {
      throw heldError(host, holder);
    }
    if (dead === "" && await isGone(holder.process)) {
      dead = holder.token;
      continue;
    }
    if (first === undefined) {
      first = holder;
      output.note(`${host.name} is locked by ${holder.owner}; waiting for a sign of life`);
    }
    await pause(clock, signal);
  }
}

async function pause(clock: Clock, signal: AbortSignal): Promise<void> {
  await clock.sleep(1_000, { signal });
}

async function tryAcquire(
  host: RemoteHost,
  facts: LockFacts,
  dead: string,
): Promise<LockHolder | undefined> {
  const args = [
    facts.folder,
    facts.token,
    facts.owner,
    facts.seconds === undefined ? await ownProcess() : "",
    String(LOCK_EXPIRY_SECONDS),
    dead,
    facts.seconds === undefined ? "" : String(facts.seconds),
  ];
  const result = await host.run(["sh", "-s", "--", ...args], {
    timeoutMs: OBSERVE_TIMEOUT_MS,
    stdin: ACQUIRE_SCRIPT,
  });
  if (isOk(result)) return undefined;
  if (result.exitCode !== HELD) {
    throw commandError(host, ["sh", "-s"], { what: "taking the lock failed", result });
  }
  return parseHolder(result.stdout);
}

/** The holder in the script's output; a lock that is just being written has none yet. */
export function parseHolder(text: string): LockHolder {
  const [token = "", owner = "", since = "", process = "", until = "", renewed = ""] = text
    .split("\n");
  return {
    token,
    owner: owner || "someone",
    sinceSeconds: Number(since) || 0,
    process,
    untilSeconds: Number(until) || 0,
    renewed,
  };
}

function heldError(host: RemoteHost, holder: LockHolder): LockHeldError {
  const sinceMs = holder.sinceSeconds * 1000;
  const at = sinceMs ? ` since ${new Date(sinceMs).toISOString()}` : "";
  const until = holder.untilSeconds * 1000;
  if (until > 0) {
    return new LockHeldError(
      `${host.name} is locked by ${holder.owner}${at}, until ${new Date(until).toISOString()}`,
      {
        ...{ holder: holder.owner, sinceMs, serving: "nothing was changed" },
        hint: "it was taken by hand: wait, or release it with: jiji lock release",
      },
    );
  }
  return new LockHeldError(`${host.name} is locked by ${holder.owner}${at}`, {
    holder: holder.owner,
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
