/** The machine's files. */
import type { Files } from "./daemon_context.ts";

/** Files through Deno; a replacement is written beside the old file and renamed over it. */
export const systemFiles: Files = {
  async read(path) {
    try {
      return await Deno.readTextFile(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  },
  async replace(path, text, { mode, keepFacts }) {
    const folder = path.slice(0, path.lastIndexOf("/"));
    await Deno.mkdir(folder, { recursive: true });
    const fresh = `${path}.new`;
    await Deno.writeTextFile(fresh, text, { mode });
    // The mode of writeTextFile counts for new files only, and through the umask.
    await Deno.chmod(fresh, mode);
    const there = keepFacts ? await Deno.stat(path).catch(() => undefined) : undefined;
    if (there) {
      await Deno.chown(fresh, there.uid, there.gid);
      if (there.mode !== null) await Deno.chmod(fresh, there.mode & 0o7777);
      if (there.atime && there.mtime) await Deno.utime(fresh, there.atime, there.mtime);
    }
    await Deno.rename(fresh, path);
  },
};
