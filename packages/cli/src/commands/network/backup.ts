import { resolve } from "node:path";
import { JijiError, messageOf, SERVER_PATHS } from "@jiji/core";
import {
  BACKUP_FOLDER,
  BACKUP_SCRIPT,
  BackupDecoder,
  refuseNoBackup,
} from "../../lib/network/state_backup.ts";
import { restoreState } from "../../lib/network/state_restore.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { auditOrWarn } from "../../utils/audit.ts";
import {
  type CommandContext,
  type CommonOptions,
  headline,
  type Ports,
  refuseHosts,
  requireAllReachable,
  setupCommandContext,
} from "../../utils/command_helpers.ts";
import { confirmOrStop } from "../../utils/confirm.ts";
import { withLock } from "../../utils/lock.ts";

/** A state of hundreds of servers has a few megabytes; ten minutes are for slow lines. */
const BACKUP_TIMEOUT_MS = 600_000;

/** Options of `jiji network backup`. */
export interface BackupOptions extends CommonOptions {
  /** File of this machine; default: a name with project and time, in the current folder. */
  readonly output?: string | undefined;
}

/**
 * `jiji network backup`: the cluster's state, as Corrosion backs itself up on one server, in a file
 * of this machine that only its owner reads.
 *
 * @throws {JijiError} when no server can, or the file exists.
 */
export async function networkBackup(options: BackupOptions, ports: Ports): Promise<void> {
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  const { output, configuration, clock } = context;
  output.note(headline(context));
  const time = new Date(clock.nowMs()).toISOString().replace(/[:.]/g, "-").slice(0, 19);
  const path = resolve(ports.cwd, options.output ?? `${configuration.project}-state-${time}.db`);
  const problems = [...context.unreachable.values()].map(messageOf);
  for (const [name, host] of [...context.hosts].sort()) {
    try {
      const bytes = await fetchBackup(context, host);
      await writeNew(path, bytes);
      if (output.json) return output.result({ server: name, file: path, bytes: bytes.length });
      output.success(`State of ${name} kept in ${path} (${Math.ceil(bytes.length / 1024)} kB).`);
      return output.line(`  Back with: jiji network restore ${path}`);
    } catch (error) {
      if (error instanceof Deno.errors.AlreadyExists) {
        throw new JijiError(`${path} exists`, { hint: "name another file: --output FILE" });
      }
      if (error instanceof Deno.errors.NotFound) {
        throw new JijiError(`${path} can't be written: there is no such folder`);
      }
      context.signal.throwIfAborted();
      problems.push(messageOf(error));
    }
  }
  throw new JijiError(`no server gave its state\n  ${problems.join("\n  ")}`, {
    hint: `each server keeps copies of its own under ${BACKUP_FOLDER}`,
  });
}

async function fetchBackup(context: CommandContext, host: RemoteHost): Promise<Uint8Array> {
  const decoder = new BackupDecoder();
  let errors = "";
  const result = await host.stream(["sh", "-s"], {
    stdin: BACKUP_SCRIPT,
    timeoutMs: BACKUP_TIMEOUT_MS,
    signal: context.signal,
    onStdout: (text) => decoder.take(text),
    onStderr: (text) => {
      errors = (errors + text).slice(-2_000);
    },
  });
  if (result.exitCode !== 0) {
    throw new JijiError(`${host.name}: backing up failed: ${errors.trim() || "cut off"}`);
  }
  return decoder.end();
}

async function writeNew(path: string, bytes: Uint8Array): Promise<void> {
  refuseNoBackup(bytes, path);
  using file = await Deno.open(path, { write: true, createNew: true, mode: 0o600 });
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
  await file.sync();
}

/** Options of `jiji network restore`. */
export interface RestoreOptions extends CommonOptions {
  readonly yes?: boolean | undefined;
}

/**
 * `jiji network restore`: the cluster's state becomes that of a backup. Every server's Corrosion
 * stops for it, so that no later state flows back in; containers, names and mesh go on meanwhile, and
 * what runs registers itself again.
 *
 * @throws {JijiError} when the file is no backup; {ConnectionError} while a server can't be reached.
 */
export async function networkRestore(
  path: string,
  options: RestoreOptions,
  ports: Ports,
): Promise<void> {
  const file = resolve(ports.cwd, path);
  const bytes = await Deno.readFile(file).catch((error) => {
    throw new JijiError(`${file} can't be read: ${messageOf(error)}`);
  });
  refuseNoBackup(bytes, file);
  refuseHosts(options, "the state is that of all servers");
  await using context = await setupCommandContext(options, ports, { scope: "servers" });
  requireAllReachable(context);
  const { output, configuration, clock } = context;
  output.note(headline(context, `restore ${path}`));
  const names = [...context.hosts.keys()].sort().join(", ");
  const lines = [
    `  the state on ${names} is replaced by that of ${path}`,
    "  containers, names and mesh go on; a copy of each former state stays beside it",
  ];
  output.note(lines.join("\n"));
  confirmOrStop({ lines: [], word: configuration.project, yes: options.yes ?? false });
  await using _lock = await withLock(context, { reason: "network restore", scope: "cluster" });
  const startedMs = clock.monotonicMs();
  const entry = { action: "network restore", message: path } as const;
  const hosts = [...context.hosts.values()];
  const audit = (status: "success" | "failed") =>
    Promise.all(hosts.map((host) => auditOrWarn(context, host, { ...entry, status })));
  try {
    await restoreState(bytes, context);
  } catch (error) {
    await audit("failed");
    throw error;
  }
  output.settle();
  await audit("success");
  const durationMs = Math.round(clock.monotonicMs() - startedMs);
  if (output.json) return output.result({ servers: hosts.length, duration_ms: durationMs });
  output.success(`The state is that of ${path} again, and every server has it.`);
  output.line(`  Former states: ${SERVER_PATHS.corrosionState}/former on each server`);
}
