import assert from "node:assert/strict";
import fc from "fast-check";
import type { ContainerRow } from "@jiji/core/corrosion";
import { parseCidr } from "@jiji/core/net";
import { silentLogger, systemClock, waitFor } from "@jiji/core/runtime";
import { ask } from "../src/commands/ask.ts";
import { DnsCache } from "../src/dns_cache.ts";
import { encodeQuery } from "../src/dns_encode.ts";
import { answeredAddresses, parseMessage } from "../src/dns_message.ts";
import { TYPE } from "../src/dns_protocol.ts";
import { DnsServer } from "../src/dns_server.ts";
import { Forwarder } from "../src/forwarder.ts";
import type { ThreadCounts } from "../src/metrics.ts";
import { readTcpMessage, writeTcpMessage } from "../src/tcp_framing.ts";
import { openLibc } from "../src/udp/libc.ts";
import { parseListenFds, SocketStore } from "../src/udp/socket_store.ts";

function row(service: string, index: number, facts: Partial<ContainerRow> = {}): ContainerRow {
  return {
    id: `${service}${index}`,
    project: "casa",
    service,
    serverId: `s${index}`,
    instance: `s${index}`,
    name: `casa-${service}`,
    version: "7",
    ip: `10.210.${index}.4`,
    ports: ["3000/tcp"],
    startedAtMs: index,
    health: "healthy",
    unhealthySinceMs: null,
    ...facts,
  };
}

function freePort(): number {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const { port } = socket.addr as Deno.NetAddr;
  socket.close();
  return port;
}

/** A server with batches on loopback. */
class Running implements AsyncDisposable {
  readonly cache = new DnsCache();
  readonly at: { readonly hostname: string; readonly port: number };
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  readonly #server: DnsServer;

  constructor(
    clients: string,
    o: { readonly port?: number; readonly store?: SocketStore } = {},
  ) {
    this.at = { hostname: "127.0.0.1", port: o.port ?? freePort() };
    this.cache.replaceServers([], 0);
    this.cache.replaceContainers([row("api", 1), row("api", 2), row("web", 1)], 0);
    const server = new DnsServer({
      zone: { domain: "jiji", clusterCidr: "10.210.0.0/16", serverId: "s1" },
      cache: this.cache,
      forwarder: new Forwarder({
        resolvers: () => Promise.resolve([]),
        upstream: { udp: () => Promise.reject(), tcp: () => Promise.reject() },
        clock: systemClock,
        randomId: () => 1,
        logger: silentLogger,
      }),
      clock: systemClock,
      logger: silentLogger,
      signal: this.#stop.signal,
      clients: [parseCidr(clients)!],
      batches: true,
      ...(o.store ? { store: o.store } : {}),
    });
    this.#server = server;
    this.#done = server.listen(this.at);
  }

  counts(): ThreadCounts {
    return this.#server.threadCounts;
  }

  async addresses(name: string, timeoutMs = 5_000): Promise<string[]> {
    const { packet, message } = await ask(this.at, { name, type: TYPE.A }, { timeoutMs });
    return answeredAddresses(packet, message);
  }

  async ready(): Promise<void> {
    const up = await waitFor(() => this.addresses("casa-web.jiji", 200).catch(() => undefined), {
      clock: systemClock,
      timeoutMs: 5_000,
      everyMs: 10,
    });
    assert.ok(up);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }
}

Deno.test("openLibc(): the C library is found here, so the batched path is the one tested", () => {
  const opened = openLibc();
  assert.equal(opened.kind, "open");
  if (opened.kind === "open") opened.libc.close();
});

Deno.test("BatchedUdp: the thread's answers rotate and follow every change at once", async () => {
  await using server = new Running("127.0.0.0/8");
  await server.ready();
  const firsts = new Set<string | undefined>();
  for (let turn = 0; turn < 6; turn++) {
    const found = await server.addresses("casa-api.jiji");
    assert.deepEqual([...found].sort(), ["10.210.1.4", "10.210.2.4"]);
    firsts.add(found[0]);
  }
  assert.equal(firsts.size, 2);
  for (let turn = 0; turn < 50; turn++) {
    const health = turn % 2 === 0 ? "unhealthy" : "healthy";
    server.cache.putContainer(row("api", 2, { health }));
    const found = (await server.addresses("casa-api.jiji")).sort();
    const wanted = turn % 2 === 0 ? ["10.210.1.4"] : ["10.210.1.4", "10.210.2.4"];
    assert.deepEqual(found, wanted, `after change ${turn}`);
  }
});

Deno.test("BatchedUdp: many clients at once each get the answer to their own question", async () => {
  await using server = new Running("127.0.0.0/8");
  await server.ready();
  const asked = Array.from({ length: 300 }, (_, index) => {
    const name = ["casa-api.jiji", "casa-web.jiji", `none${index}.jiji`][index % 3]!;
    return server.addresses(name).then((found) => ({ name, count: found.length }));
  });
  for (const { name, count } of await Promise.all(asked)) {
    assert.equal(count, name === "casa-api.jiji" ? 2 : name === "casa-web.jiji" ? 1 : 0, name);
  }
});

Deno.test("BatchedUdp: clients outside the cluster get no word over UDP nor TCP", async () => {
  await using server = new Running("10.210.0.0/16");
  const up = await waitFor(async () => {
    try {
      (await Deno.connect(server.at)).close();
      return true;
    } catch {
      return undefined;
    }
  }, { clock: systemClock, timeoutMs: 5_000, everyMs: 10 });
  assert.ok(up);
  await assert.rejects(server.addresses("casa-web.jiji", 300));
  using connection = await Deno.connect(server.at);
  assert.equal(await connection.read(new Uint8Array(1)).catch(() => null), null);
});

Deno.test("BatchedUdp: hostile packets are survived, spelling is given back", async () => {
  await using server = new Running("127.0.0.0/8");
  await server.ready();
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const to = { transport: "udp", ...server.at } as const;
  const base = encodeQuery(7, { name: "casa-api.jiji", type: TYPE.A });
  for (
    const seed of fc.sample(fc.array(fc.tuple(fc.nat(80), fc.nat(255)), { maxLength: 4 }), 300)
  ) {
    const packet = new Uint8Array(base);
    for (const [at, octet] of seed) if (at < packet.length) packet[at] = octet;
    await socket.send(packet.subarray(0, seed[0]?.[0] ?? packet.length), to);
  }
  await socket.send(new Uint8Array(9_000), to);
  socket.close();
  assert.equal((await server.addresses("casa-api.jiji")).length, 2);
  const again = await ask(server.at, { name: "CASA-api.jiji", type: TYPE.A }, { timeoutMs: 2_000 });
  assert.match(new TextDecoder().decode(again.packet), /CASA-api/);
  assert.equal(parseMessage(again.packet)?.rcode, 0);
});

Deno.test("parseListenFds(): takes named sockets meant for this process, nothing else", () => {
  const environment = {
    listenPid: "7",
    listenFds: "2",
    listenNames: "udp_10.0.0.1_53:udp_10.0.0.2_53",
    notifySocket: undefined,
  };
  const found = parseListenFds(environment, 7);
  assert.deepEqual([...found], [["udp_10.0.0.1_53", 3], ["udp_10.0.0.2_53", 4]]);
  assert.equal(parseListenFds(environment, 8).size, 0);
  for (const listenFds of [undefined, "", "x", "-1", "1.5"]) {
    assert.equal(parseListenFds({ ...environment, listenFds }, 7).size, 0, `${listenFds}`);
  }
});

Deno.test("SocketStore: queries sent between two servers are answered by the second, UDP and TCP", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/notify`;
  const manager = Deno.listenDatagram({ transport: "unixpacket", path });
  const store = new SocketStore({
    listenPid: undefined,
    listenFds: undefined,
    listenNames: undefined,
    notifySocket: path,
  }, Deno.pid);
  const port = freePort();
  const at = { hostname: "127.0.0.1", port };
  {
    await using first = new Running("127.0.0.0/8", { port, store });
    await first.ready();
  }
  const told = [await manager.receive(), await manager.receive()];
  const wanted = ["tcp", "udp"].map((one) =>
    `FDSTORE=1\nFDPOLL=0\nFDNAME=${one}_127.0.0.1_${port}`
  );
  assert.deepEqual(told.map(([bytes]) => new TextDecoder().decode(bytes)).sort(), wanted);
  // Nobody serves now; both are taken by the kernel.
  const between = ask(at, { name: "casa-api.jiji", type: TYPE.A }, { timeoutMs: 5_000 });
  using connection = await Deno.connect(at);
  await writeTcpMessage(connection, encodeQuery(9, { name: "casa-api.jiji", type: TYPE.A }));
  {
    await using _second = new Running("127.0.0.0/8", { port, store });
    const { packet, message } = await between;
    assert.equal(answeredAddresses(packet, message).length, 2);
    const answer = parseMessage(await readTcpMessage(connection) ?? new Uint8Array());
    assert.equal(answer?.id, 9);
    assert.equal(answer?.records.filter((one) => one.type === TYPE.A).length, 2);
  }
  manager.close();
  await Deno.remove(folder, { recursive: true });
});

Deno.test("DnsServer.listen(): UDP answers though the TCP port is in use, which is tried again", async () => {
  const port = freePort();
  const at = { hostname: "127.0.0.1", port };
  const taken = Deno.listen(at);
  await using server = new Running("127.0.0.0/8", { port });
  await server.ready();
  taken.close();
  const up = await waitFor(
    async () => {
      try {
        (await Deno.connect(at)).close();
        return true;
      } catch {
        return undefined;
      }
    },
    { clock: systemClock, timeoutMs: 5_000, everyMs: 20 },
  );
  assert.ok(up);
  assert.ok(server.counts().answered >= 1);
});

Deno.test("BatchedUdp: whatever changes, the thread's answer is the one of this moment", async () => {
  await using server = new Running("127.0.0.0/8");
  await server.ready();
  const forms = ["casa-api.jiji", "api.casa.jiji", "nearest.casa-api.jiji", "casa-api-s2.jiji"];
  const changes = [
    () => server.cache.removeContainer("api2"),
    () => server.cache.putContainer(row("api", 2)),
    () => server.cache.setSilent(new Set(["s2"])),
    () => server.cache.setSilent(new Set()),
    () => server.cache.putContainer(row("api", 2, { health: "degraded" })),
    () => server.cache.putContainer(row("api", 2, { ip: "10.210.9.9" })),
    () => server.cache.putContainer(row("api", 1, { health: "unhealthy" })),
    () => server.cache.replaceContainers([row("api", 1), row("api", 2), row("web", 1)], 0),
  ];
  for (const change of changes) {
    change();
    for (const form of forms) {
      const label = form.slice(0, -".jiji".length).replace("nearest.", "");
      const near = form.startsWith("nearest.") ? { nearest: "s1" } : {};
      const found = server.cache.lookup(label, near);
      const wanted = found.kind === "known" ? found.containers.map((one) => one.ip).sort() : [];
      for (const _turn of [1, 2, 3]) {
        assert.deepEqual((await server.addresses(form)).sort(), wanted, form);
      }
    }
  }
});
