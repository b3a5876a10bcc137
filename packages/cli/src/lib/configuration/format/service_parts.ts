import { parseIpv4 } from "@jiji/core/net";
import type { PortMapping } from "../config_types.ts";

/**
 * `CONTAINER`, `HOST:CONTAINER` or `IP:HOST:CONTAINER`, each with an optional `/tcp` or `/udp`;
 * undefined for anything else.
 */
export function parsePortMapping(text: string): PortMapping | undefined {
  const match = /^(?:(?:([0-9.]+):)?(\d{1,5}):)?(\d{1,5})(?:\/(tcp|udp))?$/.exec(text);
  if (match === null) return undefined;
  const [, hostIp, host, container, protocol] = match;
  const hostPort = host === undefined ? undefined : Number(host);
  const containerPort = Number(container);
  const isPort = (value: number) => value >= 1 && value <= 65535;
  if (!isPort(containerPort) || (hostPort !== undefined && !isPort(hostPort))) return undefined;
  if (hostIp !== undefined && parseIpv4(hostIp) === undefined) return undefined;
  return {
    ...(hostIp === undefined ? {} : { hostIp }),
    ...(hostPort === undefined ? {} : { hostPort }),
    containerPort,
    protocol: protocol === "udp" ? "udp" : "tcp",
    text,
  };
}

/** A volume as written: `SOURCE:TARGET[:OPTIONS]`. */
export interface VolumeText {
  /** Absolute path on the server, or the name of a volume. */
  readonly source: string;
  /** Absolute path in the container. */
  readonly target: string;
  readonly options?: string;
  /** Whether `source` is the name of a volume. */
  readonly named: boolean;
}

/** Names that both engines take for a volume. */
const VOLUME_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;
const MOUNT_OPTIONS = /^[A-Za-z]+(,[A-Za-z]+)*$/;

/** Whether a path is absolute and free of `..`, colons and control characters. */
export function isMountTarget(path: string): boolean {
  // deno-lint-ignore no-control-regex
  return /^\/[^:\x00-\x1f]+$/.test(path) && !path.split("/").includes("..");
}

/** Parts of a volume; undefined when it is not written as one. */
export function parseVolume(text: string): VolumeText | undefined {
  const [source = "", target = "", options, ...rest] = text.split(":");
  const named = VOLUME_NAME.test(source);
  if (rest.length > 0 || !isMountTarget(target)) return undefined;
  if (!named && !isMountTarget(source)) return undefined;
  if (options !== undefined && !MOUNT_OPTIONS.test(options)) return undefined;
  return { source, target, named, ...(options === undefined ? {} : { options }) };
}

/** Volume for the engine: named ones belong to their project and service. */
export function renderVolume(volume: VolumeText, prefix: string): string {
  const source = volume.named ? `${prefix}-${volume.source}` : volume.source;
  return [source, volume.target, ...(volume.options === undefined ? [] : [volume.options])]
    .join(":");
}

/** `LOCAL:REMOTE[:OPTIONS]` of `files` and `directories`; undefined for anything else. */
export function parseMountText(
  text: string,
): { local: string; remote: string; options?: string } | undefined {
  const [local = "", remote = "", options, ...rest] = text.split(":");
  if (rest.length > 0 || local === "" || !isMountTarget(remote)) return undefined;
  if (options !== undefined && !MOUNT_OPTIONS.test(options)) return undefined;
  return { local, remote, ...(options === undefined ? {} : { options }) };
}

/** Whether mount options are words joined by commas. */
export function isMountOptions(text: string): boolean {
  return MOUNT_OPTIONS.test(text);
}

/** Whether a local path stays inside the project. */
export function isInsideProject(path: string): boolean {
  return path !== "" && !path.startsWith("/") && !path.startsWith("~") && !path.includes("\0") &&
    !path.includes("\\") && !path.split("/").includes("..");
}

/** A quoted or bare piece of a command line. Source: POSIX shell, section 2.2, without expansion. */
const WORD_PART = /'([^']*)'|"((?:[^"\\]|\\[\s\S])*)"|\\([\s\S])|([^\s'"\\]+)/y;

/**
 * Words of a command line, split as a shell does but without expanding anything; undefined when a
 * quote is not closed.
 */
export function parseShellWords(text: string): string[] | undefined {
  const words: string[] = [];
  let position = 0;
  while (position < text.length) {
    const blank = /^\s+/.exec(text.slice(position))?.[0].length ?? 0;
    position += blank;
    if (position >= text.length) break;
    let word = "";
    while (position < text.length && !/\s/.test(text[position] ?? "")) {
      WORD_PART.lastIndex = position;
      const match = WORD_PART.exec(text);
      if (match === null) return undefined;
      const [all, single, double, escaped, bare] = match;
      word += single ?? double?.replace(/\\([$`"\\\n])/g, "$1") ?? escaped ?? bare ?? "";
      position += all.length;
    }
    words.push(word);
  }
  return words;
}

/** Text with `${NAME}` filled in, and the names that had no value. `$${` stands for `${`. */
export function interpolate(
  text: string,
  values: Readonly<Record<string, string>>,
): { text: string; missing: string[] } {
  const missing: string[] = [];
  const filled = text.replace(
    /\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g,
    (all, name: string | undefined) => {
      if (name === undefined) return "${";
      if (Object.hasOwn(values, name)) return values[name] ?? "";
      missing.push(name);
      return all;
    },
  );
  return { text: filled, missing };
}
