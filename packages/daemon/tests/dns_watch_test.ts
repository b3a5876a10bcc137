import assert from "node:assert/strict";
import { RESTART_PAUSE_MS } from "../src/state/service_health.ts";
import { DNS_ANSWER_TIMEOUT_MS, DNS_SILENT_MS, DnsWatchDuty } from "../src/duties/dns_watch.ts";
import type { BindDatagram } from "../src/duties/liveness.ts";
import { setUp } from "./builders.ts";

const SIGNAL = new AbortController().signal;
const RESTART = "systemctl try-restart jiji-dns.service";

/** A duty whose jiji-dns answers when told so, and a way to let it look every five seconds. */
function watched() {
  const made = setUp();
  const dns = { answers: true, asked: [] as string[], open: 0 };
  const bind: BindDatagram = () => {
    dns.open++;
    return {
      send: (bytes, to) => {
        const name = new TextDecoder().decode(bytes.subarray(12, -4));
        dns.asked.push(`${to.hostname}:${to.port} ${name}`);
        return Promise.resolve();
      },
      receive: () =>
        dns.answers
          ? Promise.resolve({ bytes: new Uint8Array(), hostname: "" })
          : new Promise(() => undefined),
      close: () => {
        dns.open--;
      },
    };
  };
  made.process.on(RESTART, "");
  const duty = new DnsWatchDuty(made.context, bind);
  const lookFor = async (durationMs: number) => {
    for (let at = 0; at < durationMs; at += 5_000) {
      const look = duty.run(SIGNAL);
      await made.clock.advance(DNS_ANSWER_TIMEOUT_MS);
      await look;
      await made.clock.advance(5_000 - DNS_ANSWER_TIMEOUT_MS);
    }
  };
  return { ...made, dns, lookFor, restarts: () => made.process.commands(RESTART).length };
}

Deno.test("DnsWatchDuty: a jiji-dns that hangs is restarted, one that answers is left alone", async () => {
  const { dns, lookFor, restarts } = watched();
  await lookFor(60_000);
  assert.deepEqual([restarts(), dns.asked[0]], [0, "10.210.1.1:53 \x04jiji\0"]);
  dns.answers = false;
  await lookFor(DNS_SILENT_MS);
  assert.equal(restarts(), 0, "it gets a while");
  await lookFor(5_000);
  assert.equal(restarts(), 1);
  await lookFor(RESTART_PAUSE_MS.first - 5_000);
  assert.equal(restarts(), 1, "and time to come back");
  dns.answers = true;
  await lookFor(600_000);
  assert.equal(restarts(), 1);
  assert.equal(dns.open, 0, "no socket is left open");
});

Deno.test("DnsWatchDuty: without the mesh's address jiji-dns is not blamed", async () => {
  const { context, process, clock } = watched();
  const duty = new DnsWatchDuty(context, () => {
    throw new Deno.errors.AddrNotAvailable();
  });
  for (let look = 0; look < 20; look++) {
    await duty.run(SIGNAL);
    await clock.advance(5_000);
  }
  assert.equal(process.commands("systemctl").length, 0);
});
