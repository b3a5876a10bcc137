import {
  isOk,
  JijiError,
  parseServerStatus,
  SERVER_PATHS,
  SERVER_UNITS,
  type ServerStatus,
  waitFor,
} from "@jiji/core";
import { OBSERVE_TIMEOUT_MS, READY_TIMEOUT_MS, UPLOAD_TIMEOUT_MS } from "../../constants.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import type { CommandContext } from "../../utils/command_helpers.ts";
import { mustRunScript } from "../../utils/remote.ts";
import { AS_CORROSION } from "./state_backup.ts";

const STATE = SERVER_PATHS.corrosionState;
const UPLOADED = `${STATE}/tmp/restore.db`;
/** Stopping takes Corrosion five seconds; its unit allows fifteen. */
const UNIT_TIMEOUT_MS = 60_000;

/** The former state steps aside: it is put back by hand when all else fails. */
const STOP_SCRIPT = `set -eu
systemctl stop ${SERVER_UNITS.corrosion}
cd ${STATE}
rm -rf --one-file-system former
install -d -m 700 -o jiji -g jiji former
for file in state.db state.db-shm state.db-wal; do
  if [ -e "$file" ]; then mv "$file" former/; fi
done
rm -rf --one-file-system subscriptions
`;

/** Argument: the uploaded file. */
const RESTORE_SCRIPT = `set -eu
umask 077
cd /
trap 'rm -f "$1"' EXIT
chown jiji:jiji "$1"
${AS_CORROSION} restore "$1" >&2
systemctl start ${SERVER_UNITS.corrosion}
`;

/** What a restore that failed leaves is as it was before. */
const UNDO_SCRIPT = `set -u
systemctl stop ${SERVER_UNITS.corrosion}
cd ${STATE} || exit 1
if [ -e former/state.db ]; then
  rm -f state.db state.db-shm state.db-wal
  mv former/state.db* .
fi
systemctl start ${SERVER_UNITS.corrosion}
`;

const START_SCRIPT = `systemctl start ${SERVER_UNITS.corrosion}\n`;

/**
 * Puts a backup in place of the state: one server gets it, the others begin empty and take it from
 * that one. All must have stopped first, or a server's later state would flow back in.
 *
 * @throws {RemoteCommandError} for a step that failed; {JijiError} when a server does not follow.
 */
export async function restoreState(bytes: Uint8Array, context: CommandContext): Promise<void> {
  const [first, ...others] = [...context.hosts.values()].sort((a, b) => a.name < b.name ? -1 : 1);
  if (!first) throw new JijiError("there is no server to restore to");
  await first.upload(bytes, UPLOADED, { mode: 0o600, timeoutMs: UPLOAD_TIMEOUT_MS });
  const hosts = [first, ...others];
  try {
    await each(context, hosts, { title: "state stopped", script: STOP_SCRIPT });
    await each(context, [first], { title: "restored", script: RESTORE_SCRIPT, args: [UPLOADED] });
  } catch (error) {
    await each(context, hosts, { title: "former state put back", script: UNDO_SCRIPT });
    throw error;
  }
  await each(context, others, { title: "started", script: START_SCRIPT });
  const names = hosts.map(({ name }) => name);
  await Promise.all(hosts.map((host) => awaitState(context, host, names)));
}

async function each(
  { output, clock }: CommandContext,
  hosts: readonly RemoteHost[],
  step: { readonly title: string; readonly script: string; readonly args?: readonly string[] },
): Promise<void> {
  const { title, script, args = [] } = step;
  const outcomes = await Promise.allSettled(hosts.map(async (host) => {
    const startedMs = clock.monotonicMs();
    output.emit({ kind: "started", lane: host.name, title });
    await mustRunScript(host, script, {
      args,
      what: `${title}: failed`,
      timeoutMs: UNIT_TIMEOUT_MS,
    });
    const durationMs = clock.monotonicMs() - startedMs;
    output.emit({ kind: "finished", lane: host.name, title, durationMs });
  }));
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
}

/** Until the server's state has a row of every server that was restored. */
async function awaitState(
  { output, clock, signal }: CommandContext,
  host: RemoteHost,
  names: readonly string[],
): Promise<void> {
  const startedMs = clock.monotonicMs();
  const isWhole = ({ servers }: ServerStatus) =>
    names.every((name) => servers?.some(({ id }) => id === name));
  const found = await waitFor(async () => {
    const argv = [`${SERVER_PATHS.bin}/jiji-daemon`, "status", "--json"] as const;
    const result = await host.run(argv, { timeoutMs: OBSERVE_TIMEOUT_MS, signal });
    return isOk(result) && isWhole(parseServerStatus(result.stdout)) ? true : undefined;
  }, { clock, timeoutMs: READY_TIMEOUT_MS, everyMs: 500, signal });
  const durationMs = clock.monotonicMs() - startedMs;
  if (found) {
    return output.emit({ kind: "done", lane: host.name, summary: "has the state", durationMs });
  }
  throw new JijiError(`${host.name} did not get the restored state in time`, {
    serving: "containers, names and mesh as before",
    hint: `look at journalctl -u ${SERVER_UNITS.corrosion} there; jiji-daemon goes on trying`,
  });
}
