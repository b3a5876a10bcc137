import { isOk, type Process } from "@jiji/core";
import { ENGINE_TIMEOUT_MS, OBSERVE_TIMEOUT_MS } from "../../constants.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { mustRun, mustRunScript } from "../../utils/remote.ts";
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
  readonly signal: AbortSignal;
}

/** Arguments: folder, then the engine's command, whose standard input is the password. */
const LOGIN_SCRIPT = 'umask 077; mkdir -p -- "$1" && shift && exec "$@"';

/**
 * Logs a server in, for jiji's own pulls of this project: into a folder that only root reads, on
 * tmpfs. The password travels over standard input.
 *
 * @returns whether the server had such a login before.
 * @throws {RegistryError} with the reason and the way on.
 */
export async function loginOn(
  host: RemoteHost,
  login: RegistryLogin,
  remote: RemoteLogin,
): Promise<boolean> {
  const { engine, signal } = remote;
  const authFolder = registryAuthFolder(remote.project);
  const known = ["test", "-s", `${authFolder}/config.json`] as const;
  const before = isOk(await host.run(known, { timeoutMs: OBSERVE_TIMEOUT_MS, signal }));
  const argv = argvLogin(engine, login, { authFolder });
  const result = await host.run(["sh", "-c", LOGIN_SCRIPT, "sh", authFolder, ...argv], {
    timeoutMs: ENGINE_TIMEOUT_MS,
    stdin: login.password.reveal(),
    signal,
  });
  if (isOk(result)) return before;
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

/** Whether a server holds a login of the project. */
export async function isLoggedIn(host: RemoteHost, project: string): Promise<boolean> {
  const text = await mustRunScript(host, 'if [ -s "$1/config.json" ]; then echo yes; fi', {
    args: [registryAuthFolder(project)],
    what: "looking for a login failed",
    timeoutMs: OBSERVE_TIMEOUT_MS,
  });
  return text.trim() === "yes";
}
