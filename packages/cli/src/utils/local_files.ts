import { join } from "node:path";
import { JijiError } from "@jiji/core";
import { sha256OfFile } from "../lib/network/artifacts.ts";

/** A file of this machine. */
export interface LocalFile {
  readonly path: string;
  /** Path inside the directory asked for; "" when a single file was. */
  readonly relative: string;
  readonly sha256: string;
}

/** More are surely a mistake: an image is the place for them. */
const FILES_MAX = 1_000;

/**
 * The file, or every file below the directory in name order. A directory that is missing is empty.
 *
 * @throws {JijiError} past the limit.
 */
export async function listLocalFiles(path: string): Promise<LocalFile[]> {
  const found: LocalFile[] = [];
  await collect(path, "", found);
  return found;
}

async function collect(path: string, relative: string, found: LocalFile[]): Promise<void> {
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  if (info.isFile) {
    if (found.length >= FILES_MAX) {
      throw new JijiError(`more than ${FILES_MAX} files to ship (${path})`, {
        hint: "put them into the image",
      });
    }
    found.push({ path, relative, sha256: await sha256OfFile(path) });
  }
  if (!info.isDirectory) return;
  const names: string[] = [];
  for await (const entry of Deno.readDir(path)) names.push(entry.name);
  for (const name of names.sort()) {
    await collect(join(path, name), relative === "" ? name : `${relative}/${name}`, found);
  }
}
