/** Asking a running jiji-dns, as `await` and `query` do. */
import { encodeQuery, type Question } from "../dns_encode.ts";
import { type DnsMessage, parseMessage } from "../dns_message.ts";
import { type ServerAddress, tcpExchange, udpExchange } from "../upstream.ts";

/** An answer with its bytes. */
export interface Asked {
  readonly packet: Uint8Array;
  readonly message: DnsMessage;
}

/**
 * One question over UDP, again over TCP when the answer is cut.
 *
 * @throws {Error} when no answer comes in time.
 */
export async function ask(
  server: ServerAddress,
  question: Question,
  options: { readonly timeoutMs: number },
): Promise<Asked> {
  const id = crypto.getRandomValues(new Uint16Array(1))[0] ?? 0;
  const exchange = {
    packet: encodeQuery(id, question),
    timeoutMs: options.timeoutMs,
    accepts: (packet: Uint8Array) => parseMessage(packet)?.id === id,
  };
  let packet = await udpExchange(server, exchange);
  let message = parseMessage(packet);
  if (message?.truncated) {
    packet = await tcpExchange(server, exchange);
    message = parseMessage(packet);
  }
  if (!message) throw new Error("malformed answer");
  return { packet, message };
}
