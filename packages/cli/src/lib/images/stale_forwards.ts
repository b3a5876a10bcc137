import { type CommandResult, isOk } from "@jiji/core";
import { OBSERVE_TIMEOUT_MS } from "../../constants.ts";
import type { RemoteHost } from "../../types/remote_host.ts";

/** A registry that is there answers sooner through any line, seconds. */
const ANSWER_SECONDS = 5;

/**
 * Ends the SSH session that holds a port of the server's loopback, unless something at its other
 * end answers. sshd keeps the forwards of a connection that was cut without a word (a laptop that
 * fell asleep, a firewall that forgot it) for hours, and no deploy could use the port meanwhile.
 * Argument: the port. Exit code 3: what holds it is no such session, or it lives.
 */
const FREE_SCRIPT = `port=$1
holders() { ss -Hltnp "sport = :$port" | grep -o '"sshd[a-z-]*",pid=[0-9]*' | sed 's/.*=//' | sort -u; }
pids=$(holders)
[ -n "$pids" ] || exit 3
answer=$(timeout ${ANSWER_SECONDS} bash -c '
  exec 3<>"/dev/tcp/127.0.0.1/$1" && printf "GET /v2/ HTTP/1.0\\r\\n\\r\\n" >&3 && head -c 1 <&3
' bash "$port" 2>/dev/null | wc -c)
[ "$answer" -eq 0 ] || exit 3
kill $pids
for try in 1 2 3 4 5 6 7 8 9 10; do
  [ -n "$(holders)" ] || exit 0
  sleep 0.2
done
exit 3
`;

/**
 * Leads a port of a server to one of this machine; a dead session that still holds it is ended.
 *
 * @throws {JijiError} when the server refuses it for another reason.
 */
export async function leadPort(
  host: RemoteHost,
  ports: { readonly remote: number; readonly local: number },
  signal: AbortSignal,
): Promise<AsyncDisposable> {
  try {
    return await host.reverseForward(ports.remote, ports.local);
  } catch (error) {
    let result: CommandResult;
    try {
      result = await host.run(["sh", "-s", "--", String(ports.remote)], {
        stdin: FREE_SCRIPT,
        timeoutMs: OBSERVE_TIMEOUT_MS,
        signal,
      });
    } catch {
      throw error;
    }
    if (!isOk(result)) throw error;
    return await host.reverseForward(ports.remote, ports.local);
  }
}
