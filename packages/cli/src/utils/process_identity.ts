import { isOk, systemProcess } from "@jiji/core";

/**
 * Prints what tells a process of this machine from every process of another machine, boot or
 * container: boot id, pid namespace, start time. Deno itself may not read /proc without all
 * permissions. Source: proc(5). Argument: pid.
 */
const IDENTITY_SCRIPT = `cat /proc/sys/kernel/random/boot_id && readlink /proc/self/ns/pid &&
sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f20`;

/** This process as a text that no other process has; "" where /proc is missing (macOS). */
export async function ownProcess(): Promise<string> {
  const facts = await identify(Deno.pid);
  return facts?.startTime ? `${facts.machine}/${Deno.pid}/${facts.startTime}` : "";
}

/** Whether a process named by {@link ownProcess} was one of this machine and is no more. */
export async function isGone(process: string): Promise<boolean> {
  const match = /^(.+)\/(\d+)\/(\d+)$/.exec(process);
  if (!match) return false;
  const facts = await identify(Number(match[2]));
  return facts !== undefined && facts.machine === match[1] && facts.startTime !== match[3];
}

async function identify(
  pid: number,
): Promise<{ readonly machine: string; readonly startTime: string } | undefined> {
  const argv = ["sh", "-c", IDENTITY_SCRIPT, "sh", String(pid)] as const;
  const result = await systemProcess.run(argv, { timeoutMs: 5_000 });
  const [bootId = "", namespace = "", startTime = ""] = result.stdout.split("\n");
  if (!bootId || !namespace) return undefined;
  return { machine: `${bootId}/${namespace}`, startTime: isOk(result) ? startTime : "" };
}
