import assert from "node:assert/strict";
import { JijiError } from "@jiji/core";
import { leadPort } from "../src/lib/images/stale_forwards.ts";
import type { RemoteHost } from "../src/types/remote_host.ts";

const PORTS = { remote: 31270, local: 5000 } as const;
const SIGNAL = new AbortController().signal;

/** A server that refuses the first `refusals` forwards, and whose script ends like this. */
function server(refusals: number, exitCode: number | Error) {
  const ran: string[] = [];
  let asked = 0;
  const host: Pick<RemoteHost, "reverseForward" | "run"> = {
    reverseForward(remote, local) {
      if (asked++ < refusals) return Promise.reject(new JijiError("Unable to bind"));
      assert.deepEqual({ remote, local }, PORTS);
      return Promise.resolve({ [Symbol.asyncDispose]: () => Promise.resolve() });
    },
    run(argv) {
      ran.push(argv.join(" "));
      if (exitCode instanceof Error) return Promise.reject(exitCode);
      return Promise.resolve({
        exitCode,
        signal: undefined,
        stdout: "",
        stderr: "",
        durationMs: 1,
      });
    },
  };
  return { host: host as RemoteHost, ran };
}

Deno.test("leadPort(): a free port needs nothing else", async () => {
  const { host, ran } = server(0, 0);
  await using _forward = await leadPort(host, PORTS, SIGNAL);
  assert.deepEqual(ran, []);
});

Deno.test("leadPort(): a dead session is ended, then the port is taken", async () => {
  const { host, ran } = server(1, 0);
  await using _forward = await leadPort(host, PORTS, SIGNAL);
  assert.deepEqual(ran, ["sh -s -- 31270"]);
});

Deno.test("leadPort(): a session that lives keeps its port, and the first refusal is told", async () => {
  for (const end of [3, new Error("the connection was lost")]) {
    await assert.rejects(leadPort(server(1, end).host, PORTS, SIGNAL), /Unable to bind/);
  }
  await assert.rejects(leadPort(server(2, 0).host, PORTS, SIGNAL), /Unable to bind/);
});
