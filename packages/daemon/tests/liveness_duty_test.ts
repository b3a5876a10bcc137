import assert from "node:assert/strict";
import { parseLiveness, SERVER_PATHS } from "@jiji/core/cluster";
import { settle } from "@jiji/core/testing";
import { type DatagramSocket, LivenessDuty } from "../src/duties/liveness.ts";
import {
  decodeProbe,
  encodeProbe,
  PROBE_EVERY_MS,
  SUSPECT_EVERY_MS,
  UNANSWERED_MS,
} from "../src/liveness/liveness_prober.ts";
import { peerSeed, setUp } from "./builders.ts";

/** A socket whose other end the test speaks for. */
class FakeSocket implements DatagramSocket {
  readonly sent: { readonly to: string; readonly seq: number }[] = [];
  #next = Promise.withResolvers<{ bytes: Uint8Array; hostname: string }>();

  send(bytes: Uint8Array<ArrayBuffer>, to: { hostname: string }): Promise<void> {
    this.sent.push({ to: to.hostname, seq: decodeProbe(bytes)?.seq ?? -1 });
    return Promise.resolve();
  }

  async receive() {
    const message = await this.#next.promise;
    this.#next = Promise.withResolvers();
    return message;
  }

  async arrive(bytes: Uint8Array, hostname: string): Promise<void> {
    this.#next.resolve({ bytes, hostname });
    await settle();
  }

  close(): void {}
}

function started() {
  const made = setUp();
  made.context.facts.peers = [peerSeed(2)];
  const socket = new FakeSocket();
  const verdicts: string[] = [];
  const silent = () =>
    parseLiveness(made.files.texts.get(SERVER_PATHS.liveness) ?? "")?.silent.join();
  const duty = new LivenessDuty(made.context, () => socket, {
    onVerdict: () => verdicts.push(silent() ?? "?"),
  });
  return { ...made, socket, duty, verdicts, silent };
}

Deno.test("LivenessDuty: who misses its probes is silent, and its next word takes that back", async () => {
  const { duty, clock, socket, verdicts, silent } = started();
  const startMs = clock.monotonicMs();
  while (!silent()) {
    const pauseMs = await duty.run();
    assert.ok(silent() || pauseMs <= SUSPECT_EVERY_MS, "nobody waits a second for the next look");
    await clock.advance(pauseMs);
    const tookMs = clock.monotonicMs() - startMs;
    assert.ok(silent() || tookMs <= UNANSWERED_MS + SUSPECT_EVERY_MS, `${tookMs} ms`);
  }
  assert.equal(silent(), "s2");
  assert.deepEqual(verdicts, ["s2"], "told once, when the report says so");
  const pong = encodeProbe({ kind: "pong", from: "s2", seq: socket.sent.at(-1)!.seq });
  await socket.arrive(pong, "10.210.3.1");
  assert.equal(silent(), "s2", "another's address says nothing of it");
  await socket.arrive(pong, "10.210.2.1");
  assert.equal(silent(), "");
  assert.deepEqual(verdicts, ["s2", ""]);
});

Deno.test("LivenessDuty: without a socket nobody is judged, and it is tried again in a second", async () => {
  const { context, clock, files } = started();
  let tries = 0;
  const bind = () => {
    tries += 1;
    throw new Error("no such address");
  };
  const duty = new LivenessDuty(context, bind, {
    onVerdict: () => assert.fail("nobody was judged"),
  });
  for (let round = 1; round <= 6; round++) {
    assert.equal(await duty.run(), PROBE_EVERY_MS);
    assert.equal(tries, round);
    await clock.advance(PROBE_EVERY_MS);
  }
  assert.deepEqual(parseLiveness(files.texts.get(SERVER_PATHS.liveness)!)?.silent, []);
});

Deno.test("LivenessDuty: a report that is being written is ended before the next begins", async () => {
  const made = started();
  let writing = 0;
  const files = {
    read: () => Promise.resolve(undefined),
    replace: async () => {
      writing += 1;
      assert.equal(writing, 1, "two at a time");
      await made.clock.sleep(50);
      writing -= 1;
    },
  };
  const context = { ...made.context, files };
  const duty = new LivenessDuty(context, () => made.socket);
  const both = Promise.all([duty.run(), duty.run(), duty.run()]);
  await made.clock.advance(1_000);
  await both;
});
