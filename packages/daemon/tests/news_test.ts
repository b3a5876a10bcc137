import assert from "node:assert/strict";
import { NEWS_PORT } from "@jiji/core/cluster";
import {
  type ContainerNews,
  type ContainerRow,
  decodeNews,
  encodeNews,
} from "@jiji/core/corrosion";
import { settle } from "@jiji/core/testing";
import type { DatagramSocket } from "../src/duties/liveness.ts";
import { NewsDuty, serveNews } from "../src/duties/news.ts";
import { rowOf } from "../src/engine/container_registry.ts";
import { container, peerSeed, setUp } from "./builders.ts";

function row(serverId: string): ContainerRow {
  return rowOf(container(1), { serverId, health: undefined })!;
}

class FakeSocket implements DatagramSocket {
  readonly sent: { readonly to: string; readonly news: ContainerNews | undefined }[] = [];
  readonly #inbox: { bytes: Uint8Array; hostname: string }[] = [];
  #wake = Promise.withResolvers<void>();

  send(bytes: Uint8Array<ArrayBuffer>, to: { hostname: string; port: number }): Promise<void> {
    const news = decodeNews(new TextDecoder().decode(bytes));
    this.sent.push({ to: `${to.hostname}:${to.port}`, news });
    return Promise.resolve();
  }

  arrive(text: string, hostname: string): void {
    this.#inbox.push({ bytes: new TextEncoder().encode(text), hostname });
    this.#wake.resolve();
  }

  async receive() {
    while (this.#inbox.length === 0) {
      this.#wake = Promise.withResolvers();
      await this.#wake.promise;
    }
    return this.#inbox.shift()!;
  }

  close(): void {}
}

async function started() {
  const made = setUp();
  made.context.facts.peers = [peerSeed(2), peerSeed(3)];
  const socket = new FakeSocket();
  const lines: string[] = [];
  const served = { times: 0, reachable: true };
  const readers = {
    tell: (line: string) => lines.push(line),
    isReachable: () => served.reachable,
    close: () => undefined,
  };
  const serve = () => {
    Object.assign(served, { times: served.times + 1, reachable: true });
    return readers;
  };
  const duty = new NewsDuty(made.context, () => socket, serve);
  await duty.run();
  return { ...made, duty, socket, lines, served };
}

Deno.test("NewsDuty.tell(): every peer twice, and the readers on this server once", async () => {
  const { duty, socket, lines, clock } = await started();
  duty.tell([row("s1")], ["00000000000a"]);
  assert.equal(lines.length, 1);
  const addresses = [`10.210.2.1:${NEWS_PORT}`, `10.210.3.1:${NEWS_PORT}`];
  assert.deepEqual(socket.sent.map((one) => one.to), addresses);
  await clock.advance(1_000);
  assert.deepEqual(socket.sent.map((one) => one.to), [...addresses, ...addresses]);
  assert.deepEqual(socket.sent[0]?.news?.rows, [row("s1")]);
  duty.tell([], []);
  assert.equal(lines.length, 1, "nothing is no news");
});

Deno.test("NewsDuty.run(): a socket that was deleted is made again, once", async () => {
  const { duty, served } = await started();
  await duty.run();
  assert.equal(served.times, 1);
  served.reachable = false;
  await duty.run();
  await duty.run();
  assert.equal(served.times, 2);
});

Deno.test("NewsDuty: passes on what a member says of itself, and nothing else", async () => {
  const { socket, lines } = await started();
  const [own] = encodeNews({ from: "s2", rows: [row("s2")], gone: [] });
  const hostile = [
    [own!, "10.210.3.1"],
    [own!, "10.210.2.7"],
    [own!.replace('"from":"s2"', '"from":"s9"'), "10.210.2.1"],
    ["{", "10.210.2.1"],
    ["x".repeat(5_000), "10.210.2.1"],
  ] as const;
  for (const [text, from] of hostile) socket.arrive(text, from);
  await settle();
  assert.deepEqual(lines, []);
  socket.arrive(own!, "10.210.2.1");
  await settle();
  assert.deepEqual(lines, [own]);
});

Deno.test("serveNews(): every reader gets every line in order; one that left is forgotten", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/news.sock`;
  await Deno.writeTextFile(path, "what an ended daemon left behind is replaced");
  const readers = serveNews(path);
  const connect = () => Deno.connect({ transport: "unix", path });
  const [one, two] = [await connect(), await connect()];
  const text = one.readable.pipeThrough(new TextDecoderStream()).getReader();
  const wanted = Array.from({ length: 200 }, (_, index) => `line ${index}`);
  readers.tell("begin");
  let heard = "";
  while (!heard.includes("begin\n")) {
    readers.tell("begin");
    heard += (await text.read()).value ?? "";
  }
  two.close();
  for (const line of wanted) readers.tell(line);
  while (!heard.includes("line 199\n")) heard += (await text.read()).value ?? "";
  assert.deepEqual(heard.trim().split("\n").filter((line) => line !== "begin"), wanted);
  assert(readers.isReachable());
  await Deno.remove(path);
  assert.equal(readers.isReachable(), false);
  readers.close();
  await text.cancel().catch(() => undefined);
  await Deno.remove(folder, { recursive: true });
});
