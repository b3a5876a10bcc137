import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { dirname, join } from "node:path";
import { JijiError } from "@jiji/core";
import type { BinaryName } from "./server_plan.ts";

/** An executable of this machine that servers get. */
export interface Artifact {
  readonly name: BinaryName;
  readonly path: string;
  readonly sha256: string;
}

/** Where to look for executables. */
export interface ArtifactSources {
  /** Path of the running jiji; jiji-dns and jiji-daemon lie beside it. */
  readonly executable: string;
  /** Path of a Corrosion executable, from the configuration or `JIJI_CORROSION`. */
  readonly corrosion: string | undefined;
}

/**
 * The executables for the servers, with their hashes.
 *
 * @throws {JijiError} naming the file that is missing.
 */
export async function locateArtifacts(sources: ArtifactSources): Promise<Artifact[]> {
  const folder = dirname(await Deno.realPath(sources.executable));
  const wanted: [BinaryName, string][] = [
    ["corrosion", sources.corrosion ?? join(folder, "corrosion")],
    ["jiji-dns", join(folder, "jiji-dns")],
    ["jiji-daemon", join(folder, "jiji-daemon")],
  ];
  return await Promise.all(wanted.map(async ([name, path]) => {
    try {
      return { name, path, sha256: await sha256OfFile(path) };
    } catch (cause) {
      throw new JijiError(`${name} for the servers is not at ${path}`, {
        hint: name === "corrosion"
          ? "name one: network.corrosion in the configuration, or JIJI_CORROSION"
          : "jiji, jiji-dns and jiji-daemon of one build belong in one folder",
        cause,
      });
    }
  }));
}

/** SHA-256 of a file, hexadecimal, read in pieces. */
export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(piece);
  return hash.digest("hex");
}

/** SHA-256 of a text, hexadecimal. */
export function sha256OfText(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
