/**
 * Watches every process of this machine, which those of a lab's servers and laptop are too: keeps
 * each distinct command line and environment seen. Ends when standard input does, and then prints
 * what it saw as JSON.
 *
 * Usage: deno run --allow-all e2e/process_watch.ts
 */

/** A command line or an environment that some process had. */
export interface SeenText {
  readonly kind: "cmdline" | "environ";
  /** Arguments or variables, separated by line feeds. */
  readonly text: string;
  /** Control groups of the first process seen with it: tells which container it is in. */
  readonly group: string;
}

/** What a watch saw. */
export interface WatchReport {
  /** How often all processes were looked at. */
  readonly rounds: number;
  readonly seen: readonly SeenText[];
}

const KINDS = ["cmdline", "environ"] as const;

function read(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    // The process has ended.
    return "";
  }
}

/** Looks at every process once; a text that is known already costs nothing more. */
export function lookAround(seen: Map<string, SeenText>): void {
  for (const entry of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(entry.name)) continue;
    for (const kind of KINDS) {
      const text = read(`/proc/${entry.name}/${kind}`);
      const key = kind + text;
      if (text === "" || seen.has(key)) continue;
      const group = read(`/proc/${entry.name}/cgroup`);
      seen.set(key, { kind, text: text.replaceAll("\0", "\n"), group });
    }
  }
}

if (import.meta.main) {
  const seen = new Map<string, SeenText>();
  let over = false;
  let rounds = 0;
  Deno.stdin.read(new Uint8Array(1)).then(() => over = true, () => over = true);
  while (!over) {
    lookAround(seen);
    rounds++;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const report: WatchReport = { rounds, seen: [...seen.values()] };
  const writer = Deno.stdout.writable.getWriter();
  await writer.write(new TextEncoder().encode(JSON.stringify(report)));
  Deno.exit(0);
}
