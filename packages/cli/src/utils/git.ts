import { isOk, type Process } from "@jiji/core";

/** What git says of a project. */
export interface GitState {
  /** First seven digits of the commit. */
  readonly commit: string;
  readonly dirty: boolean;
}

/** The commit of a folder, or undefined when git or a commit is missing. */
export async function readGitState(
  process: Process,
  folder: string,
): Promise<GitState | undefined> {
  const options = { timeoutMs: 10_000 };
  const head = await process.run(["git", "-C", folder, "rev-parse", "--short=7", "HEAD"], options);
  if (!isOk(head)) return undefined;
  const status = await process.run(
    ["git", "-C", folder, "status", "--porcelain", "--", folder],
    options,
  );
  return { commit: head.stdout.trim(), dirty: !isOk(status) || status.stdout.trim() !== "" };
}

/**
 * Image tag of a deploy: what the user named, else the commit, marked with the time when the tree is
 * dirty so that a tag never means two things, else the time (UTC, `20261123-142501`).
 */
export function chooseVersion(
  named: string | undefined,
  git: GitState | undefined,
  nowMs: number,
): string {
  if (named !== undefined) return named;
  const time = new Date(nowMs).toISOString().replace(/[-:]/g, "").replace("T", "-").slice(0, 15);
  if (!git) return time;
  return git.dirty ? `${git.commit}-${time}` : git.commit;
}
