import { type Argv, type CommandResult, JijiError, SERVER_PATHS } from "@jiji/core";
import {
  dockerConfigFlags,
  type EngineName,
  podmanAuthFlags,
  type RegistryAuth,
} from "../engine/engine_commands.ts";

/** A registry refused us, is not trusted, or could not be reached. */
export class RegistryError extends JijiError {
  override readonly code: string = "registry";
  override readonly exitCode: number = 6;
}

/**
 * Folder on a server for the credentials of a project's registry, on tmpfs: jiji's pulls read it,
 * root's own logins stay as they are.
 */
export function registryAuthFolder(project: string): string {
  return `${SERVER_PATHS.run}/registry/${project}`;
}

/** Registry that an image's name leads to. Source: Docker's reference grammar: a first part with a dot, a colon or `localhost`. */
export function registryHostOf(image: string): string {
  const [first = "", ...rest] = image.split("/");
  return rest.length > 0 && (/[.:]/.test(first) || first === "localhost") ? first : "docker.io";
}

/** Logs in with the password on standard input, never on the command line. */
export function argvLogin(
  engine: EngineName,
  login: { readonly server: string; readonly username: string },
  auth: RegistryAuth,
): Argv {
  const flags = [...podmanAuthFlags(engine, auth), "--username", login.username];
  const config = dockerConfigFlags(engine, auth);
  return [engine, ...config, "login", ...flags, "--password-stdin", login.server];
}

/** Forgets a login. */
export function argvLogout(engine: EngineName, server: string, auth: RegistryAuth): Argv {
  const config = dockerConfigFlags(engine, auth);
  return [engine, ...config, "logout", ...podmanAuthFlags(engine, auth), server];
}

/** Why a registry did not do what it was asked to. */
export type RegistryFailure =
  | "refused"
  | "plain http"
  | "not trusted"
  | "unreachable"
  | "other";

/** Words of Docker 20.10 to 29 and Podman 4.3, most telling first. */
const FAILURES: readonly (readonly [RegistryFailure, RegExp])[] = [
  ["plain http", /server gave HTTP response to HTTPS client/i],
  ["not trusted", /x509:|certificate signed by unknown|certificate (is not|has expired)|tls: /i],
  [
    "refused",
    /unauthorized|incorrect username or password|invalid username\/password|authentication required|access denied|requested access to the resource is denied|401|403 Forbidden/i,
  ],
  [
    "unreachable",
    /no such host|connection refused|i\/o timeout|no route to host|network is unreachable|deadline exceeded|Client\.Timeout|TLS handshake timeout|server misbehaving/i,
  ],
];

/** What an engine's complaint about a registry means. */
export function classifyRegistryFailure(text: string): RegistryFailure {
  return FAILURES.find(([, pattern]) => pattern.test(text))?.[0] ?? "other";
}

/** What was asked of a registry, by whom and from where. */
export interface RegistryAttempt {
  readonly engine: EngineName;
  /** `logging in to registry.example.com`. */
  readonly what: string;
  readonly server: string;
  readonly username: string;
  /** A server's name, or `this machine`. */
  readonly where: string;
  /** Where the login is written, `deploy.yml:5:13`. */
  readonly position: string;
  readonly result: CommandResult;
}

/** The error for a registry that did not do it, with the way on for each known reason. */
export function registryError(attempt: RegistryAttempt): RegistryError {
  const { server, where, username, position } = attempt;
  const said = (attempt.result.stderr || attempt.result.stdout).trim();
  const last = said.split("\n").slice(-3).join("\n  ");
  const error = (text: string, hint: string) =>
    new RegistryError(`${attempt.what} failed on ${where}: ${text}\n  ${last}`, { hint });
  switch (classifyRegistryFailure(said)) {
    case "refused":
      return error(
        `${server} refused ${username}`,
        `check user name and password (${position}), and that ${username} may use the repository`,
      );
    case "not trusted":
      return error(
        `the certificate of ${server} is not trusted there`,
        `put the certificate of its authority into ${certificatePath(attempt)} on ${where}`,
      );
    case "plain http":
      return error(
        `${server} speaks plain HTTP, which would carry the password openly`,
        "give the registry a certificate",
      );
    case "unreachable":
      return error(
        `${server} can't be reached from there`,
        `check its name and port (${position}), name resolution and firewalls on ${where}`,
      );
    case "other":
      return error("the registry's answer is not understood", "see the engine's words above");
  }
}

/** Where an engine looks for further authorities. Source: dockerd(8), containers-certs.d(5). */
function certificatePath({ engine, server }: RegistryAttempt): string {
  const base = engine === "docker" ? "/etc/docker/certs.d" : "/etc/containers/certs.d";
  return `${base}/${server}/ca.crt`;
}
