import type { Argv } from "@jiji/core";

/** Container engines jiji drives, through their own command line. */
export type EngineName = "docker" | "podman";

/** A registry on loopback speaks plain HTTP; docker allows that by itself, podman must be told. */
function tlsFlags(engine: EngineName, image: string): string[] {
  return engine === "podman" && image.startsWith("localhost:") ? ["--tls-verify=false"] : [];
}

/** Where a command finds the logins of registries. */
export interface RegistryAuth {
  /** Folder of jiji's own; the user's own logins when undefined. */
  readonly authFolder?: string | undefined;
}

/** Docker's folder of logins, a flag of `docker` itself. Source: docker(1), `--config`. */
export function dockerConfigFlags(engine: EngineName, { authFolder }: RegistryAuth): string[] {
  return engine === "docker" && authFolder !== undefined ? ["--config", authFolder] : [];
}

/** Podman's file of logins, of the same form. Source: podman-login(1), `--authfile`. */
export function podmanAuthFlags(engine: EngineName, { authFolder }: RegistryAuth): string[] {
  return engine === "podman" && authFolder !== undefined
    ? ["--authfile", `${authFolder}/config.json`]
    : [];
}

/** Pulls an image, with a login when its registry wants one. */
export function argvPull(engine: EngineName, image: string, auth: RegistryAuth = {}): Argv {
  const flags = [...podmanAuthFlags(engine, auth), ...tlsFlags(engine, image)];
  return [engine, ...dockerConfigFlags(engine, auth), "pull", "--quiet", ...flags, image];
}

/** Pushes an image to the registry its name says. */
export function argvPush(engine: EngineName, image: string): Argv {
  return [engine, "push", ...tlsFlags(engine, image), image];
}

/** Gives a container another name. */
export function argvRename(engine: EngineName, from: string, to: string): Argv {
  return [engine, "rename", from, to];
}

/** Stops a container: SIGTERM, then SIGKILL after the grace, seconds. */
export function argvStop(engine: EngineName, name: string, graceSeconds: number): Argv {
  return [engine, "stop", "--time", String(graceSeconds), name];
}

/** Starts a stopped container again. */
export function argvStart(engine: EngineName, name: string): Argv {
  return [engine, "start", name];
}

/** Removes a container, running or not, with its anonymous volumes. */
export function argvRemove(engine: EngineName, name: string): Argv {
  return [engine, "rm", "--force", "--volumes", name];
}

/** Runs a command in a running container. */
export function argvExec(engine: EngineName, name: string, command: readonly string[]): Argv {
  return [engine, "exec", name, ...command];
}

/**
 * Go template that prints of a container only what jiji needs, as one JSON line: never its
 * environment, which holds secrets. Field names are those of the Go structs, which both engines
 * share (the JSON names differ: `.Id` is unknown to Podman).
 */
export const INSPECT_FORMAT: string = "{" + [
  `"id":{{json .ID}}`,
  `"name":{{json .Name}}`,
  `"image":{{json .Image}}`,
  `"imageName":{{json .Config.Image}}`,
  `"created":{{json .Created}}`,
  `"state":{"status":{{json .State.Status}},"running":{{json .State.Running}},` +
  `"exitCode":{{json .State.ExitCode}},"startedAt":{{json .State.StartedAt}}}`,
  `"labels":{{json .Config.Labels}}`,
  `"networks":{{json .NetworkSettings.Networks}}`,
  `"ports":{{json .HostConfig.PortBindings}}`,
].join(",") + "}";

/**
 * Ids and tags of the images of these repositories, newest first. Podman takes the repository from
 * an image with its tag and remembers it in the history alone, so it has to list them all. Source:
 * podman-images(1), `.History`.
 */
export function argvListImages(engine: EngineName, repositories: readonly string[]): Argv {
  const fields = '"id":"{{.ID}}","repository":"{{.Repository}}","tag":"{{.Tag}}"';
  const list = [engine, "images", "--no-trunc", "--format"] as const;
  if (engine === "podman") return [...list, `{${fields},"history":"{{.History}}"}`];
  const filters = repositories.flatMap((repository) => ["--filter", `reference=${repository}`]);
  return [...list, `{${fields}}`, ...filters];
}

/** Removes an image's tag, and the image when it was the last. */
export function argvRemoveImage(engine: EngineName, image: string): Argv {
  return [engine, "rmi", image];
}
