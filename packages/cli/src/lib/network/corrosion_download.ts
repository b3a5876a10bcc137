import { join } from "node:path";
import * as v from "valibot";
import { isOk, JijiError, type Process, randomHex } from "@jiji/core";
import { sha256OfFile, sha256OfText } from "./artifacts.ts";

/** Where a download is kept and its checksum is remembered. */
export interface DownloadPlace {
  /** Folder of this machine for things that can be fetched again. */
  readonly cacheFolder: string;
  /** The project's lock file; it belongs into version control. */
  readonly lockPath: string;
  readonly process: Process;
  readonly signal: AbortSignal;
  readonly note: (line: string) => void;
}

const LockShape = v.object({ format: v.literal(1), downloads: v.record(v.string(), v.string()) });

/** A release is about 20 MB; a slow line may take its time, milliseconds. */
const DOWNLOAD_TIMEOUT_MS = 600_000;

/** Whether a source is fetched rather than read. */
export function isUrl(source: string): boolean {
  return /^https?:\/\//.test(source);
}

/**
 * Path of the Corrosion executable that `url` leads to: the file itself, or the file `corrosion` in a
 * `.tar.gz`. The first download records its SHA-256 in the project's lock file, and every later one,
 * on any machine, must match.
 *
 * @throws {JijiError} when it can't be fetched, is not what was recorded, or holds no `corrosion`.
 */
export async function fetchCorrosion(url: string, place: DownloadPlace): Promise<string> {
  const folder = join(place.cacheFolder, "corrosion", sha256OfText(url).slice(0, 16));
  const download = join(folder, "download");
  await Deno.mkdir(folder, { recursive: true });
  const recorded = (await readLock(place.lockPath))[url];
  if (recorded === undefined || await sha256IfThere(download) !== recorded) {
    await downloadTo(url, download, place);
  }
  const actual = await sha256OfFile(download);
  if (recorded === undefined) await recordLock(place.lockPath, url, actual);
  else if (recorded !== actual) {
    await Deno.remove(download);
    throw new JijiError(`${url} is not the file it was: SHA-256 ${actual}`, {
      serving: "nothing was changed on the servers",
      hint: `${place.lockPath} has ${recorded}; if the change is meant, delete that line`,
    });
  }
  return /\.(tar\.gz|tgz)$/.test(new URL(url).pathname)
    ? await unpack(download, join(folder, actual.slice(0, 16)), { url, place })
    : download;
}

async function sha256IfThere(path: string): Promise<string | undefined> {
  try {
    return await sha256OfFile(path);
  } catch {
    return undefined;
  }
}

async function downloadTo(url: string, path: string, place: DownloadPlace): Promise<void> {
  place.note(`fetching ${url}`);
  const stage = `${path}.${randomHex(4)}`;
  const signal = AbortSignal.any([place.signal, AbortSignal.timeout(DOWNLOAD_TIMEOUT_MS)]);
  try {
    const response = await fetch(url, { signal });
    if (!response.ok || !response.body) {
      await response.body?.cancel();
      throw new Error(`the server answered ${response.status}`);
    }
    await Deno.writeFile(stage, response.body, { mode: 0o755 });
    await Deno.rename(stage, path);
  } catch (cause) {
    await Deno.remove(stage).catch(() => undefined);
    place.signal.throwIfAborted();
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new JijiError(`fetching ${url} failed: ${reason}`, {
      serving: "nothing was changed on the servers",
      hint: "name another source in network.corrosion, or a file in JIJI_CORROSION",
      cause,
    });
  }
}

async function unpack(
  archive: string,
  folder: string,
  { url, place }: { readonly url: string; readonly place: DownloadPlace },
): Promise<string> {
  await Deno.mkdir(folder, { recursive: true });
  const argv = ["tar", "-xzf", archive, "-C", folder] as const;
  const result = await place.process.run(argv, { timeoutMs: 60_000, signal: place.signal });
  const found = isOk(result) ? await findFile(folder, "corrosion") : undefined;
  if (found !== undefined) return found;
  throw new JijiError(`${url} holds no executable "corrosion"`, {
    hint: "name a release of Corrosion for Linux",
  });
}

async function findFile(folder: string, name: string): Promise<string | undefined> {
  for await (const entry of Deno.readDir(folder)) {
    const path = join(folder, entry.name);
    if (entry.isFile && entry.name === name) return path;
    const below = entry.isDirectory ? await findFile(path, name) : undefined;
    if (below !== undefined) return below;
  }
  return undefined;
}

async function readLock(path: string): Promise<Record<string, string>> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return {};
    throw error;
  }
  try {
    return v.parse(LockShape, JSON.parse(text)).downloads;
  } catch (cause) {
    throw new JijiError(`${path} is malformed`, {
      hint: "put the version of version control back, or delete it",
      cause,
    });
  }
}

async function recordLock(path: string, url: string, sha256: string): Promise<void> {
  const downloads = { ...await readLock(path), [url]: sha256 };
  const sorted = Object.fromEntries(Object.entries(downloads).sort());
  await Deno.writeTextFile(path, JSON.stringify({ format: 1, downloads: sorted }, null, 2) + "\n");
}
