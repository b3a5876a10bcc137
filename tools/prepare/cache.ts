/** The cache of prepared things: one slot a recipe, put in place whole, never half-made. */
import { exists } from "./command.ts";

/** Where prepared things live: `$JIJI_CACHE`, else `$XDG_CACHE_HOME/jiji`, else `~/.cache/jiji`. */
export function cacheRoot(env: (name: string) => string | undefined): string {
  const given = env("JIJI_CACHE");
  if (given) return given;
  const base = env("XDG_CACHE_HOME") || `${env("HOME") ?? "/root"}/.cache`;
  return `${base}/jiji`;
}

/** First 12 hex digits of the SHA-256 of a recipe and of the slots it is built from. */
export async function recipeKey(parts: readonly string[]): Promise<string> {
  const bytes = new TextEncoder().encode(JSON.stringify(parts));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return digest.toHex().slice(0, 12);
}

/** The folder of one prepared thing. */
export function slotPath(root: string, name: string, options: { readonly key: string }): string {
  return `${root}/${name}/${options.key}`;
}

/**
 * Makes a slot unless it is there: holds the thing's lock (which dies with this process), builds
 * into a folder of its own, and renames it into place.
 * @param onWait called when another run is preparing the same thing
 */
export async function ensureSlot(options: {
  readonly slot: string;
  readonly build: (stage: string) => Promise<void>;
  readonly onWait?: () => void;
}): Promise<"ready" | "built"> {
  const { slot } = options;
  if (await exists(slot)) return "ready";
  await Deno.mkdir(slot.slice(0, slot.lastIndexOf("/")), { recursive: true });
  using lock = await Deno.open(`${slot}.lock`, { create: true, write: true });
  if (!await lock.tryLock(true)) {
    options.onWait?.();
    await lock.lock(true);
  }
  if (await exists(slot)) return "ready";
  const stage = `${slot}.building`;
  // The lock is ours, so what lies here was left by a run that was killed.
  await removeTree(stage);
  await Deno.mkdir(stage);
  try {
    await options.build(stage);
  } catch (error) {
    await removeTree(stage);
    throw error;
  }
  await Deno.rename(stage, slot);
  return "built";
}

/** Places below `folder` where something is mounted, last mounted first. Source: proc(5), mounts. */
export async function mountsBelow(folder: string): Promise<readonly string[]> {
  const lines = (await Deno.readTextFile("/proc/self/mounts")).split("\n");
  return lines.map((line) => line.split(" ")[1] ?? "")
    .filter((place) => place.startsWith(`${folder}/`)).reverse();
}

/**
 * Removes a folder with all in it; nothing when it is not there. What a killed build had mounted in
 * it (/proc, /sys) is unmounted before: it is not the folder's to remove.
 */
export async function removeTree(path: string): Promise<void> {
  for (const mount of await mountsBelow(path)) {
    await new Deno.Command("umount", { args: ["--lazy", mount] }).output();
  }
  if ((await mountsBelow(path)).length > 0) {
    throw new Error(`something is still mounted in ${path}`);
  }
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
