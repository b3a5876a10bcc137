/** What a lab is, as its file says: written before things are made, so that a crash can be cleaned. */
import { exists } from "../prepare/command.ts";
import { type LabPaths, serverAddress } from "./names.ts";

/** What a server comes with. */
export type EngineKind = "none" | "docker" | "docker-current" | "podman";

/** All engine kinds, for help and errors. */
export const ENGINE_KINDS: readonly EngineKind[] = ["none", "docker", "docker-current", "podman"];

/** One server of a lab. */
export interface LabServer {
  /** Place in the lab, from 1. */
  readonly number: number;
  /** `s1`, `s2`, …. */
  readonly name: string;
  /** IPv4 address in the lab's network. */
  readonly address: string;
  /** What it came with. */
  readonly engine: EngineKind;
  /** Layers of its root, top first, as an overlay's `lowerdir`; kept for all its boots. */
  readonly lower: string;
}

/** A cut: packets between the two are dropped, both ways; `*` is everyone. */
export interface Cut {
  /** A server or the laptop. */
  readonly from: string;
  /** The other side. */
  readonly to: string;
}

/** A lab. */
export interface Lab {
  /** `starting` until `up` is through: what is found in it was left by a crash. */
  readonly phase: "starting" | "up";
  /** Its servers, on or off, by number. */
  readonly servers: readonly LabServer[];
  /** Cuts in force. */
  readonly cuts: readonly Cut[];
  /** Prepared things it stands on. */
  readonly slots: Readonly<Record<string, string>>;
}

/** Layers of a server's root, top first, in the format of the overlay's `lowerdir`. */
export function lowerFolders(engine: EngineKind, slots: Readonly<Record<string, string>>): string {
  const root = `${slots["root"]}/root`;
  if (engine === "none") return root;
  const layer = (name: string) => `${slots[name]}/diff`;
  if (engine === "docker-current") {
    return [layer("root-docker-current"), layer("root-docker"), root].join(":");
  }
  return [layer(`root-${engine}`), root].join(":");
}

/** Servers that `up N` must add to those there are. */
export function planNewServers(
  there: readonly LabServer[],
  options: {
    readonly count: number;
    readonly engine: EngineKind;
    readonly slots: Readonly<Record<string, string>>;
  },
): readonly LabServer[] {
  const { engine, slots } = options;
  const numbers = new Set(there.map((server) => server.number));
  const lower = lowerFolders(engine, slots);
  return Array.from({ length: options.count }, (_, index) => index + 1)
    .filter((number) => !numbers.has(number))
    .map((number) => (
      { number, name: `s${number}`, address: serverAddress(number), engine, lower }
    ));
}

/** Reads a lab's file; undefined when there is no such lab or its file was half-written. */
export async function readLab(paths: LabPaths): Promise<Lab | undefined> {
  if (!await exists(paths.description)) return undefined;
  const value: unknown = JSON.parse(await Deno.readTextFile(paths.description));
  return isLab(value) ? value : undefined;
}

function isLab(value: unknown): value is Lab {
  return typeof value === "object" && value !== null && "phase" in value && "servers" in value &&
    Array.isArray(value.servers) && "cuts" in value && Array.isArray(value.cuts) &&
    "slots" in value;
}

/** Writes a lab's file whole or not at all. */
export async function writeLab(paths: LabPaths, lab: Lab): Promise<void> {
  await Deno.mkdir(paths.state, { recursive: true, mode: 0o755 });
  const stage = `${paths.description}.new`;
  await Deno.writeTextFile(stage, `${JSON.stringify(lab, null, 2)}\n`);
  await Deno.rename(stage, paths.description);
}

/**
 * The named server of a lab.
 * @throws Error when the lab has no such server
 */
export function findServer(lab: Lab, name: string): LabServer {
  const server = lab.servers.find((candidate) => candidate.name === name);
  if (server) return server;
  const known = lab.servers.map((candidate) => candidate.name).join(", ");
  throw new Error(`this lab has no server "${name}"; it has ${known}`);
}
