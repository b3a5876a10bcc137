/** Overlay layers: running an installation on top of a root file system, keeping what it changed. */
import { runCommand } from "./command.ts";
export { removeTree } from "./cache.ts";

/**
 * Mounts are made in a mount namespace of the script's own: they end with it, however it ends.
 * Arguments: lower folders joined by `:`, stage, repository, script.
 */
const RUN_IN_LAYER = `
lower=$1 stage=$2 repository=$3 script=$4
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$stage/diff,workdir=$stage/work" "$stage/merged"
cd "$stage/merged"
mount --bind "$repository" srv/apt
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs tmp
printf '#!/bin/sh\\nexit 101\\n' > usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \\
  HOME=/root LC_ALL=C.UTF-8 sh -ec "$script"
rm -f usr/sbin/policy-rc.d
`;

/**
 * Runs a shell script as root inside a root file system made of `lower` layers (top first) and
 * leaves what it changed in `STAGE/diff`.
 * @throws CommandError when the script fails
 */
export async function runCommandInLayer(
  script: string,
  options: {
    readonly stage: string;
    readonly lower: readonly string[];
    readonly repository: string;
  },
): Promise<void> {
  const { stage, lower, repository } = options;
  for (const name of ["diff", "work", "merged"]) await Deno.mkdir(`${stage}/${name}`);
  await runCommand(
    [
      ...["nice", "unshare", "-m", "sh", "-ec", RUN_IN_LAYER, "layer"],
      ...[lower.join(":"), stage, repository, script],
    ],
    { timeoutMs: 900_000 },
  );
  await runCommand(["rm", "-rf", `${stage}/work`, `${stage}/merged`]);
}
