/** jiji-dns as others see it: over real sockets, by dig, kdig and raw packets. */
import assert from "node:assert/strict";
import { seededRandom, systemClock, waitFor } from "@jiji/core/runtime";
import { fuzzServer, judgeAnswer, PacketMaker } from "../fuzz/fuzz.ts";
import { ask } from "../src/commands/ask.ts";
import { encodeQuery } from "../src/dns_encode.ts";
import { parseMessage } from "../src/dns_message.ts";
import { parseQuery, TYPE } from "../src/dns_protocol.ts";
import { readTcpMessage, writeTcpMessage } from "../src/tcp_framing.ts";
import { TCP_CLIENTS_MAX } from "../src/tcp_server.ts";

/** Packets sent before their answers are read; fewer than a socket's buffer holds. */
const BURST = 60;

class Running implements AsyncDisposable {
  readonly at: { readonly hostname: string; readonly port: number };
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;

  constructor(batches: boolean) {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.at = { hostname: "127.0.0.1", port: listener.addr.port };
    const { server } = fuzzServer({ signal: this.#stop.signal, batches });
    listener.close();
    this.#done = server.listen(this.at);
  }

  async ready(): Promise<void> {
    const question = { name: "jiji", type: TYPE.SOA };
    const up = await waitFor(
      () => ask(this.at, question, { timeoutMs: 200 }).catch(() => undefined),
      { clock: systemClock, timeoutMs: 5_000, everyMs: 10 },
    );
    assert.ok(up);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }
}

for (const batches of [true, false]) {
  Deno.test(`wire (${batches ? "batched" : "plain"}): every packet is answered rightly or dropped rightly`, async () => {
    await using running = new Running(batches);
    await running.ready();
    const maker = new PacketMaker(seededRandom(7));
    const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
    const to = { transport: "udp", ...running.at } as const;
    try {
      for (let burst = 0; burst < 40; burst++) {
        const sent = new Map<number, Uint8Array>();
        for (let id = 0; id < BURST; id++) {
          const packet = new Uint8Array(maker.next());
          if (packet.length < 12) continue;
          packet[0] = burst;
          packet[1] = id;
          await socket.send(packet, to);
          sent.set(id, packet);
        }
        const wanted = [...sent].filter(([, packet]) => ((packet[2] ?? 0) & 0x80) === 0);
        for (let count = 0; count < wanted.length; count++) {
          const [answer] = await receive(socket);
          const packet = sent.get(answer[1] ?? -1);
          assert.ok(packet && answer[0] === burst, "an answer to nothing that was asked");
          assert.equal(judgeAnswer(packet, answer), undefined, packet.toHex());
          sent.delete(answer[1] ?? -1);
        }
      }
    } finally {
      socket.close();
    }
  });
}

/** The next packet. @throws {Error} when none comes in five seconds. */
async function receive(socket: Deno.DatagramConn): Promise<[Uint8Array, Deno.Addr]> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("an answer is missing")), 5_000);
  });
  try {
    return await Promise.race([socket.receive(), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Standard output of a program, or undefined where it is not installed. */
async function output(program: string, args: readonly string[]): Promise<string | undefined> {
  try {
    const ran = await new Deno.Command(program, { args: [...args], stdin: "null" }).output();
    return new TextDecoder().decode(ran.stdout);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Second opinions that a machine may lack; `bin/test` without `--fast` installs dig. */
const hasDig = await output("dig", ["-v"]) !== undefined;
const hasKdig = await output("kdig", ["--version"]) !== undefined;

Deno.test({
  name: "wire: dig agrees on flags, codes, sections and sizes (where dig is installed)",
  ignore: !hasDig,
  fn: agreeWithDig,
});

async function agreeWithDig(): Promise<void> {
  await using running = new Running(true);
  await running.ready();
  const at = ["@127.0.0.1", "-p", String(running.at.port), "+tries=1", "+timeout=3"];
  const dig = async (...args: string[]) => await output("dig", [...at, ...args]) ?? "";
  const positive = await dig("casa-api.jiji");
  assert.match(positive, /status: NOERROR/);
  assert.match(positive, /flags: qr aa rd ra; QUERY: 1, ANSWER: 2, AUTHORITY: 0, ADDITIONAL: 1/);
  assert.match(positive, /udp: 1232/);
  assert.match(await dig("+norec", "casa-api.jiji"), /flags: qr aa ra;/);
  assert.match(await dig("nope.jiji"), /NXDOMAIN[^]*jiji\.\s+5\s+IN\s+SOA/);
  assert.match(await dig("casa-api.jiji", "AAAA"), /NOERROR[^]*ANSWER: 0, AUTHORITY: 1/);
  assert.match(await dig("casa-api.jiji", "ANY", "+notcp"), /HINFO\s+"RFC8482"/);
  assert.match(await dig("CaSa-ApI.jIjI"), /^CaSa-ApI\.jIjI\.\s+5\s+IN\s+A/m);
  assert.match(await dig("+edns=1", "+noednsneg", "casa-api.jiji"), /status: BADVERS/);
  assert.match(await dig("+opcode=NOTIFY", "casa-api.jiji"), /status: NOTIMP/);
  assert.match(await dig("casa-api.jiji", "AXFR"), /Transfer failed|REFUSED/);
  assert.match(await dig("-x", "10.210.1.4"), /PTR\s+casa-api-s1\.jiji\./);
  assert.match(await dig("-c", "CH", "casa-api.jiji", "TXT"), /REFUSED/);
  const srv = await dig("+tcp", "_3000._tcp.casa-api.jiji", "SRV");
  assert.match(srv, /SRV\s+0 0 3000 casa-api-s[12]\.jiji\./);
  assert.match(srv, /\(TCP\)|SERVER: 127/);
  assert.doesNotMatch(positive + srv, /Warning|malformed|WARNING/);
}

Deno.test({
  name: "wire: kdig reads pipelined TCP answers, cookies do no harm (where kdig is installed)",
  ignore: !hasKdig,
  fn: agreeWithKdig,
});

async function agreeWithKdig(): Promise<void> {
  await using running = new Running(true);
  await running.ready();
  const at = ["@127.0.0.1", "-p", String(running.at.port), "+retry=0", "+timeout=3"];
  const kdig = async (...args: string[]) => await output("kdig", [...at, ...args]) ?? "";
  const found = await kdig("+tcp", "+keepopen", "casa-api.jiji", "nope.jiji");
  assert.match(found, /status: NOERROR[^]*status: NXDOMAIN/);
  assert.match(await kdig("+cookie", "casa-api.jiji"), /NOERROR/);
  assert.match(await kdig("+padding=128", "casa-api.jiji"), /NOERROR/);
}

Deno.test("wire: one TCP connection carries many questions at once, each answered once", async () => {
  await using running = new Running(true);
  await running.ready();
  using connection = await Deno.connect(running.at);
  const count = 100;
  for (let id = 0; id < count; id++) {
    const name = id % 3 === 0 ? "example.com" : "casa-api.jiji";
    await writeTcpMessage(connection, encodeQuery(id, { name, type: TYPE.A }));
  }
  const ids = new Set<number>();
  for (let answer = 0; answer < count; answer++) {
    const message = parseMessage(await readTcpMessage(connection) ?? new Uint8Array());
    assert.ok(message);
    ids.add(message.id);
  }
  assert.equal(ids.size, count);
});

Deno.test("wire: half-open and slow TCP clients do not keep others from answers", async () => {
  await using running = new Running(true);
  await running.ready();
  const lazy = await Promise.all(Array.from({ length: 100 }, () => Deno.connect(running.at)));
  try {
    await Promise.all(
      lazy.map((one, index) => one.write(new Uint8Array([0, 40].slice(index % 3)))),
    );
    // A reader that never reads: its answers fill the buffers, ours stay bounded.
    const flood = encodeQuery(1, { name: "casa-api.jiji", type: TYPE.TXT });
    await Promise.all(Array.from({ length: 50 }, () => writeTcpMessage(lazy[2]!, flood)));
    using quick = await Deno.connect(running.at);
    await writeTcpMessage(quick, encodeQuery(5, { name: "casa-api.jiji", type: TYPE.A }));
    const message = parseMessage(await readTcpMessage(quick) ?? new Uint8Array());
    assert.equal(message?.id, 5);
    assert.equal(message?.records.filter((one) => one.type === TYPE.A).length, 2);
  } finally {
    for (const one of lazy) one.close();
  }
});

Deno.test("wire: when there are too many TCP clients, the one quiet the longest is let go", async () => {
  await using running = new Running(true);
  await running.ready();
  const idle = await Promise.all(
    Array.from({ length: TCP_CLIENTS_MAX }, () => Deno.connect(running.at)),
  );
  try {
    using busy = await Deno.connect(running.at);
    await writeTcpMessage(busy, encodeQuery(5, { name: "casa-api.jiji", type: TYPE.A }));
    assert.equal(parseMessage(await readTcpMessage(busy) ?? new Uint8Array())?.id, 5);
    const ends = idle.map((one) => one.read(new Uint8Array(1)).catch(() => null));
    assert.equal(await Promise.race(ends), null);
  } finally {
    for (const one of idle) closeQuietly(one);
  }
});

function closeQuietly(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch {
    // The other side closed it.
  }
}

Deno.test("wire: a client that has asked and closed its side still gets its answers", async () => {
  await using running = new Running(true);
  await running.ready();
  using connection = await Deno.connect(running.at);
  await writeTcpMessage(connection, encodeQuery(1, { name: "example.com", type: TYPE.A }));
  await writeTcpMessage(connection, encodeQuery(2, { name: "casa-api.jiji", type: TYPE.A }));
  await connection.closeWrite();
  const ids = new Set<number | undefined>();
  for (let answer = 0; answer < 2; answer++) {
    ids.add(parseMessage(await readTcpMessage(connection) ?? new Uint8Array())?.id);
  }
  assert.deepEqual([...ids].sort(), [1, 2]);
  assert.equal(await readTcpMessage(connection), undefined);
});

Deno.test("parseQuery(): the packets of the fuzzer reach every kind of end", () => {
  const maker = new PacketMaker(seededRandom(1));
  const kinds = new Set(Array.from({ length: 2_000 }, () => parseQuery(maker.next()).kind));
  assert.deepEqual([...kinds].sort(), ["drop", "query", "reject"]);
});
