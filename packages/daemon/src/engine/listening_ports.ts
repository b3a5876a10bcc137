/** What listens in a container's network. */
import { VOUCH_PORT } from "@jiji/core/cluster";
import { type Argv, isOk, type Process } from "@jiji/core/runtime";

/** A TCP socket that takes connections. */
export interface ListeningPort {
  /** `0.0.0.0` and `::` are every address. */
  readonly ip: string;
  readonly port: number;
}

/** State of a listening socket. Source: Linux, include/net/tcp_states.h, TCP_LISTEN. */
const LISTEN = "0A";
/** Docker's own resolver sits in the container's network. Source: docs.docker.com, user-defined networks. */
const DOCKER_RESOLVER = "127.0.0.11";

/** The kernel's tables of the network that a process sees. Source: proc_net_tcp(5), nsenter(1). */
export function argvSockets(pid: number): Argv {
  return ["nsenter", `--net=/proc/${pid}/ns/net`, "cat", "/proc/net/tcp", "/proc/net/tcp6"];
}

/** Listening sockets in the kernel's tables, each once, by port; those of engine and jiji are left out. */
export function parseSockets(text: string): ListeningPort[] {
  const found = new Map<string, ListeningPort>();
  for (const line of text.split("\n")) {
    const match = /^\s*\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) \S+ ([0-9A-F]{2}) /.exec(line);
    if (match === null || match[3] !== LISTEN) continue;
    const ip = socketAddress(match[1]!);
    const port = parseInt(match[2]!, 16);
    if (ip === DOCKER_RESOLVER || port === VOUCH_PORT) continue;
    found.set(`${ip} ${port}`, { ip, port });
  }
  return [...found.values()].sort((a, b) => a.port - b.port || (a.ip < b.ip ? -1 : 1));
}

/** Addresses stand there as words of four octets, each in the machine's own order (little-endian). */
function socketAddress(hex: string): string {
  const octets = (hex.match(/.{8}/g) ?? []).flatMap((word) =>
    (word.match(/../g) ?? []).reverse().map((digits) => parseInt(digits, 16))
  );
  if (octets.length === 4) return octets.join(".");
  if (octets.slice(0, 10).every((octet) => octet === 0) && octets[10] === 255) {
    return octets.slice(12).join(".");
  }
  if (octets.every((octet) => octet === 0)) return "::";
  if (octets.slice(0, 15).every((octet) => octet === 0) && octets[15] === 1) return "::1";
  const words = octets.flatMap((octet, index) =>
    index % 2 === 0 ? [((octet << 8) | octets[index + 1]!).toString(16)] : []
  );
  return words.join(":");
}

/** What listens in the network of a process; null when nobody could look. */
export async function listeningPorts(
  pid: number | undefined,
  process: Process,
): Promise<ListeningPort[] | null> {
  if (pid === undefined) return null;
  const result = await process.run(argvSockets(pid), { timeoutMs: 5_000 });
  // Without IPv6 the second table is missing and cat says so: the first is still good.
  return isOk(result) || result.stdout.includes("local_address")
    ? parseSockets(result.stdout)
    : null;
}
