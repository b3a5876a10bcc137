import { type Argv, type CommandResult, type RunOptions, systemProcess } from "@jiji/core";
import type { RemoteHost } from "../src/types/remote_host.ts";

/**
 * A "server" that is a folder of this machine: scripts run in the real `sh`, with `/var/lib/jiji`
 * of their arguments moved below the folder.
 */
export class LocalHost implements RemoteHost {
  readonly name: string;
  readonly address: string;
  readonly folder: string;
  readonly commands: { readonly argv: Argv; readonly stdin: string }[] = [];

  /** @param folder stands for `/var/lib/jiji`. */
  constructor(name: string, folder: string) {
    this.name = name;
    this.address = `root@${name}:22`;
    this.folder = folder;
  }

  /** See {@link RemoteHost.run}. */
  run(argv: Argv, options: RunOptions): Promise<CommandResult> {
    const stdin = typeof options.stdin === "string" ? options.stdin : "";
    this.commands.push({ argv, stdin });
    const [program, ...args] = argv.map((word) => word.replace("/var/lib/jiji", this.folder));
    // Twenty shells at once on a busy machine take their time.
    return systemProcess.run([program!, ...args], { ...options, timeoutMs: 60_000 });
  }

  /** Nothing here streams. */
  stream(): never {
    throw new Error("not a command of these tests");
  }

  /** Nothing here uploads. */
  upload(): never {
    throw new Error("not a command of these tests");
  }

  /** Nothing here forwards. */
  reverseForward(): never {
    throw new Error("not a command of these tests");
  }

  /** Nothing to close. */
  dispose(): Promise<void> {
    return Promise.resolve();
  }
}

/** Calls `work` with a folder that is removed afterwards. */
export async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
