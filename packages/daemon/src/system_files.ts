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
  async replace(path, text, { mode }) {
    const folder = path.slice(0, path.lastIndexOf("/"));
    await Deno.mkdir(folder, { recursive: true });
    const fresh = `${path}.new`;
    await Deno.writeTextFile(fresh, text, { mode });
    // The mode of writeTextFile counts for new files only, and through the umask.
    await Deno.chmod(fresh, mode);
    await Deno.rename(fresh, path);
  },
};
