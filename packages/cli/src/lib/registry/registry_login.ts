import { isOk, type Process } from "@jiji/core";
import { ENGINE_TIMEOUT_MS, OBSERVE_TIMEOUT_MS } from "../../constants.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { mustRun } from "../../utils/remote.ts";
import type { RegistryLogin } from "../configuration/builder.ts";
import type { EngineName } from "../engine/engine_commands.ts";
import { argvLogin, argvLogout, registryAuthFolder, registryError } from "./registry_commands.ts";

/** What a login of this machine's engine needs. */
export interface LocalLogin {
  readonly process: Process;
  readonly engine: EngineName;
  readonly signal: AbortSignal;
}

/**
 * Logs this machine's engine in, as the user would by hand.
 *
 * @throws {RegistryError} with the reason and the way on.
 */
export async function loginHere(login: RegistryLogin, local: LocalLogin): Promise<void> {
  const { engine } = local;
  const result = await local.process.run(argvLogin(engine, login, {}), {
    timeoutMs: ENGINE_TIMEOUT_MS,
    stdin: login.password.reveal(),
    signal: local.signal,
  });
  if (isOk(result)) return;
  throw registryError({
    ...{ engine, result, where: "this machine", what: `logging in to ${login.server}` },
    ...{ server: login.server, username: login.username, position: login.position },
  });
}

/** Logs this machine's engine out; not being logged in is fine. */
export async function logoutHere(server: string, local: LocalLogin): Promise<void> {
  const argv = argvLogout(local.engine, server, {});
  await local.process.run(argv, { timeoutMs: ENGINE_TIMEOUT_MS, signal: local.signal });
}

/** Where and for which project a server logs in. */
export interface RemoteLogin {
  readonly engine: EngineName;
  readonly project: string;
  /** Whether it stays until logout or reboot; otherwise whoever asked for it forgets it. */
  readonly keep: boolean;
  readonly signal: AbortSignal;
}

/** Arguments: folder, `keep` or `use`, then the engine's command, whose input is the password. */
const LOGIN_SCRIPT = `umask 077
folder=$1 wish=$2; shift 2
mkdir -p -- "$folder" && "$@" || exit
if [ "$wish" = keep ]; then : >"$folder/kept"; fi
if [ -e "$folder/kept" ]; then echo jiji-kept; fi`;

/**
 * Logs a server in, for jiji's own pulls of this project: into a folder that only root reads, on
 * tmpfs. The password travels over standard input.
 *
 * @returns whether the login is to stay: asked for by `keep`, now or earlier.
 * @throws {RegistryError} with the reason and the way on.
 */
export async function loginOn(
  host: RemoteHost,
  login: RegistryLogin,
  remote: RemoteLogin,
): Promise<boolean> {
  const { engine, signal } = remote;
  const authFolder = registryAuthFolder(remote.project);
  const argv = argvLogin(engine, login, { authFolder });
  const wish = remote.keep ? "keep" : "use";
  const result = await host.run(["sh", "-c", LOGIN_SCRIPT, "sh", authFolder, wish, ...argv], {
    timeoutMs: ENGINE_TIMEOUT_MS,
    stdin: login.password.reveal(),
    signal,
  });
  if (isOk(result)) return result.stdout.includes("jiji-kept");
  throw registryError({
    ...{ engine, result, where: host.name, what: `logging in to ${login.server}` },
    ...{ server: login.server, username: login.username, position: login.position },
  });
}

/** Forgets a project's login on a server. */
export async function logoutOn(host: RemoteHost, project: string): Promise<void> {
  await mustRun(host, ["rm", "-rf", "--", registryAuthFolder(project)], {
    what: "forgetting the registry's login failed",
    timeoutMs: OBSERVE_TIMEOUT_MS,
  });
}
