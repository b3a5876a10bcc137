import assert from "node:assert/strict";
import { type ContainerNews, encodeNews, LIVENESS_NEWS } from "@jiji/core/corrosion";
import { seededRandom } from "@jiji/core/runtime";
import { settle, SimClock } from "@jiji/core/testing";
import { listenToNews } from "../src/news_listener.ts";

function line(id: string): string {
  return encodeNews({ from: "s1", rows: [], gone: [id] })[0] + "\n";
}

Deno.test("listenToNews(): hears lines however they are cut, and comes back after an end", async () => {
  const clock = new SimClock(0);
  const stop = new AbortController();
  const heard: ContainerNews[] = [];
  let looks = 0;
  const streams: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>[] = [];
  let tries = 0;
  const listening = listenToNews({
    connect: () => {
      if (++tries <= 2) return Promise.reject(new Error("no daemon yet"));
      const readable = new ReadableStream<Uint8Array<ArrayBuffer>>({
        start: (controller) => {
          streams.push(controller);
        },
      });
      return Promise.resolve({ readable, close: () => undefined });
    },
    onNews: (news) => heard.push(news),
    onLiveness: () => looks++,
    ...{ clock, random: seededRandom(1), signal: stop.signal },
  });
  const say = async (text: string) => {
    streams.at(-1)!.enqueue(new TextEncoder().encode(text));
    await settle();
  };
  await clock.advance(2_000);
  assert.equal(streams.length, 1);
  const whole = line("00000000000a");
  await say(whole.slice(0, 20));
  await say(`${whole.slice(20)}not news\n${line("00000000000b")}`);
  assert.deepEqual(heard.flatMap((one) => one.gone), ["00000000000a", "00000000000b"]);
  assert.equal(looks, 0);
  await say(`${LIVENESS_NEWS}\n`);
  assert.equal(looks, 1);
  assert.equal(heard.length, 2);
  streams[0]!.close();
  await clock.advance(500);
  assert.equal(streams.length, 2);
  await say("x".repeat(10_000));
  await clock.advance(500);
  assert.equal(streams.length, 3, "a line without an end is not waited for");
  stop.abort();
  streams[2]!.close();
  await clock.advance(5_000);
  await listening;
});
