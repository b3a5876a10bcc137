import assert from "node:assert/strict";
import { parseLiveness, SERVER_PATHS } from "@jiji/core/cluster";
import { settle } from "@jiji/core/testing";
import { type DatagramSocket, knockTcp, LivenessDuty } from "../src/duties/liveness.ts";
import {
  decodeProbe,
  encodeProbe,
  KNOCK_TRUST_MS,
  PROBE_EVERY_MS,
  SUSPECT_EVERY_MS,
  UNANSWERED_MS,
} from "../src/liveness/liveness_prober.ts";
import { peerSeed, setUp } from "./builders.ts";

/** A socket whose other end the test speaks for. */
class FakeSocket implements DatagramSocket {
  readonly sent: { readonly to: string; readonly kind: string; readonly seq: number }[] = [];
  isClosed = false;
  #next = Promise.withResolvers<{ bytes: Uint8Array; hostname: string }>();

  send(bytes: Uint8Array<ArrayBuffer>, to: { hostname: string }): Promise<void> {
    const { kind = "?", seq = -1 } = decodeProbe(bytes) ?? {};
    this.sent.push({ to: to.hostname, kind, seq });
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

  close(): void {
    this.isClosed = true;
  }
}

function started(isOpen = false) {
  const made = setUp();
  const knockedAt: string[] = [];
  const knock = (address: string) => {
    knockedAt.push(address);
    return Promise.resolve(isOpen);
  };
  made.context.facts.peers = [peerSeed(2)];
  const socket = new FakeSocket();
  const verdicts: string[] = [];
  const silent = () =>
    parseLiveness(made.files.texts.get(SERVER_PATHS.liveness) ?? "")?.silent.join();
  const duty = new LivenessDuty(made.context, () => socket, {
    knock,
    onVerdict: () => verdicts.push(silent() ?? "?"),
  });
  return { ...made, socket, duty, knock, knockedAt, verdicts, silent };
}

Deno.test("LivenessDuty: who misses its probes is silent, and its next word takes that back", async () => {
  const { duty, clock, socket, verdicts, silent, knockedAt } = started();
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
  assert.equal(new Set(knockedAt).size, 1, "it was knocked at, in vain");
  const pong = encodeProbe({ kind: "pong", from: "s2", seq: socket.sent.at(-1)!.seq });
  await socket.arrive(pong, "10.210.3.1");
  assert.equal(silent(), "s2", "another's address says nothing of it");
  await socket.arrive(pong, "10.210.2.1");
  assert.equal(silent(), "");
  assert.deepEqual(verdicts, ["s2", ""]);
});

Deno.test("LivenessDuty: without a socket nobody is judged, and it is tried again in a second", async () => {
  const { context, clock, files, knock } = started();
  let tries = 0;
  const bind = () => {
    tries += 1;
    throw new Error("no such address");
  };
  const duty = new LivenessDuty(context, bind, {
    knock,
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
  const duty = new LivenessDuty(context, () => made.socket, { knock: made.knock });
  const both = Promise.all([duty.run(), duty.run(), duty.run()]);
  await made.clock.advance(1_000);
  await both;
});

Deno.test("LivenessDuty: a server whose kernel answers is there without its daemon, but not for ever", async () => {
  const { duty, clock, files, socket, verdicts, silent, knockedAt } = started(true);
  const startMs = clock.monotonicMs();
  const report = () => parseLiveness(files.texts.get(SERVER_PATHS.liveness) ?? "");
  while (!silent()) {
    await clock.advance(await duty.run());
    const tookMs = clock.monotonicMs() - startMs;
    assert.ok(tookMs < KNOCK_TRUST_MS + 2 * PROBE_EVERY_MS);
    const isSure = tookMs > 2 * UNANSWERED_MS && tookMs < KNOCK_TRUST_MS;
    if (isSure) assert.deepEqual(report()?.daemonless, ["s2"]);
  }
  assert.equal(report()?.daemonless, undefined, "silent is silent");
  assert.ok(clock.monotonicMs() - startMs >= KNOCK_TRUST_MS);
  assert.deepEqual(verdicts, ["s2"]);
  const knocks = knockedAt.length;
  for (let round = 0; round < 5; round++) await clock.advance(await duty.run());
  assert.equal(knockedAt.length, knocks, "who is given up is only probed");
  const seq = socket.sent.at(-1)!.seq;
  await socket.arrive(encodeProbe({ kind: "pong", from: "s2", seq }), "10.210.2.1");
  assert.equal(silent(), "");
});

Deno.test("LivenessDuty: a server that says goodbye is silent at once, whatever its kernel answers", async () => {
  const { duty, clock, socket, silent } = started(true);
  await duty.run();
  const before = socket.sent.at(-1)!.seq;
  const bye = encodeProbe({ kind: "bye", from: "s2", seq: 0 });
  await socket.arrive(bye, "10.210.3.1");
  assert.equal(silent(), "", "nobody says it for another");
  await socket.arrive(bye, "10.210.2.1");
  assert.equal(silent(), "s2");
  await socket.arrive(encodeProbe({ kind: "pong", from: "s2", seq: before }), "10.210.2.1");
  assert.equal(silent(), "s2", "it answered before it left");
  for (let round = 0; round < 8; round++) await clock.advance(await duty.run());
  assert.equal(silent(), "s2");
  const seq = socket.sent.at(-1)!.seq;
  await socket.arrive(encodeProbe({ kind: "pong", from: "s2", seq }), "10.210.2.1");
  assert.equal(silent(), "", "it is back");
});

Deno.test("LivenessDuty: whoever leaves tells all peers, more than once, and answers nobody any more", async () => {
  const { duty, clock, socket, context } = started();
  context.facts.peers = [peerSeed(2), peerSeed(3)];
  await duty.run();
  socket.sent.length = 0;
  const leaving = duty.leave();
  await socket.arrive(encodeProbe({ kind: "ping", from: "s2", seq: 9 }), "10.210.2.1");
  await duty.run();
  await clock.advance(1_000);
  await leaving;
  assert.ok(socket.isClosed);
  const words = new Set(socket.sent.map(({ to, kind }) => `${kind} ${to}`));
  assert.deepEqual([...words], ["bye 10.210.2.1", "bye 10.210.3.1"]);
  assert.equal(socket.sent.length, 3 * words.size);
});

Deno.test("knockTcp: a port that nobody listens at shows that the host is there", async () => {
  assert.equal(await knockTcp("127.0.0.1"), true, "refused");
});
