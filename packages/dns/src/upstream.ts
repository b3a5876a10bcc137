/** Sockets to resolvers: one fresh UDP port an exchange (RFC 5452), TCP with a length prefix. */
import type { Exchange, Upstream } from "./forwarder.ts";
import { readTcpMessage, writeTcpMessage } from "./tcp_framing.ts";

/** Exchanges over the network. `port` is 53 but in tests. */
export function networkUpstream(port = 53): Upstream {
  return {
    udp: (address, exchange) => udpExchange({ hostname: address, port }, exchange),
    tcp: (address, exchange) => tcpExchange({ hostname: address, port }, exchange),
  };
}

/** Where a DNS server listens. */
export interface ServerAddress {
  readonly hostname: string;
  readonly port: number;
}

/** Sends a packet over UDP and gives the first acceptable answer from the same address. */
export async function udpExchange(
  server: ServerAddress,
  exchange: Exchange,
): Promise<Uint8Array<ArrayBuffer>> {
  const hostname = server.hostname.includes(":") ? "::" : "0.0.0.0";
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port: 0 });
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    socket.close();
  }, exchange.timeoutMs);
  try {
    await socket.send(exchange.packet, { transport: "udp", ...server });
    while (true) {
      const [packet, from] = await socket.receive();
      const isFrom = from.transport === "udp" && from.port === server.port &&
        from.hostname === server.hostname;
      if (isFrom && exchange.accepts(packet)) return new Uint8Array(packet);
    }
  } catch (error) {
    if (timedOut) throw new Error(`no answer in ${exchange.timeoutMs} ms`);
    throw error;
  } finally {
    clearTimeout(timer);
    if (!timedOut) socket.close();
  }
}

/** Sends a packet over TCP and gives the answer. */
export async function tcpExchange(
  server: ServerAddress,
  exchange: Exchange,
): Promise<Uint8Array<ArrayBuffer>> {
  let connection: Deno.TcpConn | undefined;
  let timedOut = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      timedOut = true;
      reject(new Error(`no answer in ${exchange.timeoutMs} ms`));
    }, exchange.timeoutMs);
  });
  const work = async () => {
    const opened = await Deno.connect({ transport: "tcp", ...server });
    connection = opened;
    if (timedOut) opened.close();
    await writeTcpMessage(opened, exchange.packet);
    const packet = await readTcpMessage(opened);
    if (!packet || !exchange.accepts(packet)) throw new Error("no usable answer over TCP");
    return packet;
  };
  const working = work();
  working.catch(() => undefined);
  try {
    return await Promise.race([working, late]);
  } finally {
    clearTimeout(timer);
    try {
      connection?.close();
    } catch {
      // Closed by the other side already.
    }
  }
}
