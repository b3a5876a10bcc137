/** Reads what a server's own tools say of its processor and sockets; pure. */
import type { HostSocket } from "../../types/deployment.ts";
import { isEveryAddress } from "../engine/inspect.ts";

/** `uname -m` in the words of container images; undefined for what jiji has no programs for. */
export function parseMachine(text: string | undefined): "amd64" | "arm64" | undefined {
  if (text === "x86_64") return "amd64";
  return text === "aarch64" ? "arm64" : undefined;
}

/**
 * Sockets in the lines of `ss -Hlntup`: protocol, state, two queues, local and remote address, then
 * `users:(("nginx",pid=1,fd=6))`. Source: ss(8), iproute2 6.1. Other lines are left out.
 */
export function parseSockets(lines: readonly string[]): HostSocket[] {
  return lines.flatMap((line) => {
    const [protocol, , , , local = "", , users = ""] = line.trim().split(/\s+/);
    const colon = local.lastIndexOf(":");
    const hostPort = Number(local.slice(colon + 1));
    if ((protocol !== "tcp" && protocol !== "udp") || !(hostPort >= 1 && hostPort <= 65_535)) {
      return [];
    }
    const ip = local.slice(0, colon).replace(/%.*$/, "").replace(/^\[(.*)\]$/, "$1");
    return [{
      hostIp: isEveryAddress(ip) ? undefined : ip,
      hostPort,
      protocol,
      program: /^users:\(\("([^"]{1,64})"/.exec(users)?.[1] ?? "",
    }];
  });
}
