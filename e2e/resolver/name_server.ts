/**
 * A name server for stories: what a company's own would be. Answers `NAME.corp.example` and
 * `NAME.host.example` with one address, `big.corp.example` only over TCP, and refuses the rest.
 *
 * Usage: deno run --allow-net name_server.ts ADDRESS ANSWER
 */
import { Buffer } from "node:buffer";
import dnsPacket from "dns-packet";

const [hostname = "127.0.0.1", answer = "192.0.2.1"] = Deno.args;
/** Addresses of the name that does not fit into a UDP answer. */
const BIG = 60;

function respond(packet: Uint8Array, transport: "udp" | "tcp"): Uint8Array {
  const query = dnsPacket.decode(Buffer.from(packet));
  const question = query.questions?.[0];
  const name = question?.name.toLowerCase() ?? "";
  const isOurs = /\.(corp|host)\.example$/.test(name);
  const isBig = name === "big.corp.example";
  const isCut = isBig && transport === "udp";
  const addresses = !isOurs || question?.type !== "A" || isCut
    ? []
    : isBig
    ? Array.from({ length: BIG }, (_, index) => `192.0.2.${index + 1}`)
    : [answer];
  return dnsPacket.encode({
    type: "response",
    id: query.id ?? 0,
    flags: dnsPacket.RECURSION_DESIRED | dnsPacket.RECURSION_AVAILABLE |
      (isCut ? dnsPacket.TRUNCATED_RESPONSE : 0) | (isOurs ? 0 : 5),
    questions: query.questions ?? [],
    answers: addresses.map((data) => ({ type: "A", name: question?.name ?? "", ttl: 1, data })),
  });
}

async function serveTcp(connection: Deno.TcpConn): Promise<void> {
  using _closed = connection;
  const buffer = new Uint8Array(65_537);
  let length = 0;
  for (let read = 0; read !== null; read = await connection.read(buffer.subarray(length)) ?? -1) {
    if (read < 0) return;
    length += read;
    const wanted = 2 + ((buffer[0] ?? 0) << 8 | (buffer[1] ?? 0));
    if (length < 2 || length < wanted) continue;
    const bytes = respond(buffer.subarray(2, wanted), "tcp");
    await connection.write(new Uint8Array([bytes.length >> 8, bytes.length & 255, ...bytes]));
    return;
  }
}

const udp = Deno.listenDatagram({ transport: "udp", hostname, port: 53 });
const tcp = Deno.listen({ hostname, port: 53 });
(async () => {
  for await (const connection of tcp) serveTcp(connection).catch(() => undefined);
})();
for await (const [packet, from] of udp) {
  await udp.send(new Uint8Array(respond(packet, "udp")), from);
}
