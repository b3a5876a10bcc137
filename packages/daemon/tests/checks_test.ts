import assert from "node:assert/strict";
import { parseProbeReport } from "@jiji/core/cluster";
import { FakeProcess, SimClock } from "@jiji/core/testing";
import { probeContainer } from "../src/commands/probe.ts";
import {
  type CheckNetwork,
  judgeEngine,
  parseHttpAnswer,
  runCheck,
  systemCheckNetwork,
} from "../src/duties/checks.ts";
import { parseSockets } from "../src/engine/listening_ports.ts";
import { container, inspected } from "./builders.ts";

Deno.test("runCheck(): command checks tell their exit code and last words", async () => {
  const process = new FakeProcess().on("docker exec abc /bin/sh -c test -f /ready", () => ({
    exitCode: 1,
    stderr: "first\nnot ready\n",
  }));
  const check = {
    kind: "command",
    command: "test -f /ready",
    interval_ms: 1,
    timeout_ms: 50,
  } as const;
  const ports = { engine: "docker", process, network: systemCheckNetwork, nowMs: () => 0 } as const;
  const outcome = await runCheck({ id: "abc", ip: "10.0.0.1" }, check, ports);
  assert.deepEqual(outcome, { ok: false, text: "run test -f /ready → 1: not ready" });
});

Deno.test("runCheck(): HTTP checks send the Host header and take any 2xx", async () => {
  let host = "";
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    host = request.headers.get("host") ?? "";
    const { pathname } = new URL(request.url);
    return new Response(null, { status: pathname === "/up" ? 204 : 302 });
  });
  const { port } = server.addr as Deno.NetAddr;
  const ports = {
    engine: "docker",
    process: new FakeProcess(),
    network: systemCheckNetwork,
    nowMs: () => 0,
  } as const;
  const check = { kind: "http", port, path: "/up", host: "casa.example" } as const;
  const limits = { interval_ms: 1_000, timeout_ms: 2_000 };
  const target = { id: "abc", ip: "127.0.0.1" };
  const good = await runCheck(target, { ...check, ...limits }, ports);
  assert.equal(good.ok, true);
  assert.equal(good.text, `GET :${port}/up → 204`);
  assert.equal(host, "casa.example");
  const moved = await runCheck(target, { ...check, ...limits, path: "/x" }, ports);
  assert.equal(moved.ok, false);
  await server.shutdown();
  const refused = await runCheck(target, { ...check, ...limits }, ports);
  assert.match(refused.text, /refused/i);
});

Deno.test("runCheck(): a server that never answers is given up in time", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepting = listener.accept();
  const check = {
    kind: "http",
    port: listener.addr.port,
    path: "/",
    interval_ms: 1_000,
    timeout_ms: 100,
  } as const;
  const outcome = await runCheck({ id: "abc", ip: "127.0.0.1" }, check, {
    engine: "docker",
    process: new FakeProcess(),
    network: systemCheckNetwork,
    nowMs: () => 0,
  });
  assert.match(outcome.text, /no answer in 100 ms/);
  (await accepting).close();
  listener.close();
});

Deno.test("judgeEngine(): the image's HEALTHCHECK, else staying up for a second", () => {
  const one = container(1, { startedAtMs: 1_000 });
  assert.equal(judgeEngine(one, 1_500).ok, false);
  assert.equal(judgeEngine(one, 2_000).ok, true);
  assert.equal(judgeEngine({ ...one, engineHealth: "starting" }, 9_000).ok, false);
  assert.equal(judgeEngine({ ...one, engineHealth: "healthy" }, 9_000).ok, true);
  assert.equal(judgeEngine({ ...one, running: false }, 9_000).ok, false);
});

const answered = (status: number) => ({ status, headers: {}, body: "" });

function probe(process: FakeProcess, network: CheckNetwork, timeoutMs = 2_000) {
  const clock = new SimClock();
  const report = probeContainer("casa-web", {
    engine: "docker",
    process,
    network,
    clock,
    timeoutMs,
  });
  return { clock, report };
}

Deno.test("probeContainer(): waits until the check succeeds", async () => {
  let tries = 0;
  const network: CheckNetwork = {
    httpGet: () => Promise.resolve(answered(++tries < 3 ? 503 : 200)),
    tcpConnect: () => Promise.resolve(),
  };
  const process = new FakeProcess().on("docker inspect", JSON.stringify([inspected(container(1))]));
  const { clock, report } = probe(process, network);
  await clock.advance(2_000);
  const found = await report;
  assert.ok(found.healthy);
  assert.deepEqual(found.tries.map((one) => one.outcome), [
    "GET :3000/up → 503",
    "GET :3000/up → 503",
    "GET :3000/up → 200",
  ]);
});

Deno.test("probeContainer(): a first try that hangs leaves time for others", async () => {
  const limits: number[] = [];
  const network: CheckNetwork = {
    httpGet: ({ timeoutMs }) => {
      limits.push(timeoutMs);
      if (limits.length > 3) return Promise.resolve(answered(200));
      return Promise.reject(new Error("no answer in time"));
    },
    tcpConnect: () => Promise.resolve(),
  };
  const process = new FakeProcess().on("docker inspect", JSON.stringify([inspected(container(1))]));
  const { clock, report } = probe(process, network, 30_000);
  await clock.advance(30_000);
  assert.ok((await report).healthy);
  const { timeout_ms } = container(1).labels!.health;
  assert.deepEqual(limits, [1_000, 2_000, 4_000, 8_000].map((ms) => Math.min(ms, timeout_ms)));
});

Deno.test("probeContainer(): gives up at the deadline with the container's last words", async () => {
  const network: CheckNetwork = {
    httpGet: () => Promise.reject(new Error("Connection refused")),
    tcpConnect: () => Promise.resolve(),
  };
  const process = new FakeProcess()
    .on("docker inspect", JSON.stringify([inspected(container(1))]))
    .on("docker logs", "cannot open database\n");
  const { clock, report } = probe(process, network);
  await clock.advance(3_000);
  const found = await report;
  assert.equal(found.healthy, false);
  assert.equal(found.logs_tail, "cannot open database\n");
  assert.ok(found.tries.length >= 2 && found.tries.length <= 10);
});

Deno.test("probeContainer(): a container that ended is not waited for", async () => {
  const network: CheckNetwork = {
    httpGet: () => Promise.resolve(answered(200)),
    tcpConnect: () => Promise.resolve(),
  };
  const ended = container(1, { running: false, exitCode: 137, oomKilled: true });
  const process = new FakeProcess()
    .on("docker inspect", JSON.stringify([inspected(ended)]))
    .on("docker logs", "");
  const found = await probe(process, network).report;
  assert.equal(found.healthy, false);
  assert.deepEqual(found.state, {
    running: false,
    exit_code: 137,
    oom_killed: true,
    restarts: 0,
    error: "",
  });
  assert.equal(found.listening, null, "nobody can look into a container that ended");
});

Deno.test("probeContainer(): an unknown container is an error that names it", async () => {
  const process = new FakeProcess().on("docker inspect", () => ({ exitCode: 1, stdout: "[]" }));
  const network = systemCheckNetwork;
  await assert.rejects(probe(process, network).report, /casa-web/);
});

const SOCKETS = `  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000
   2: 0B00007F:A1B2 00000000:0000 0A 00000000:00000000 00:00000000 00000000
   3: 0301D20A:0BB8 0201D20A:C350 01 00000000:00000000 00:00000000 00000000
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0
   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0
   2: 0000000000000000FFFF00000100007F:0051 00000000000000000000000000000000:0000 0A 0
`;

Deno.test("parseSockets(): what listens, not who is connected, nor the engine's resolver", () => {
  assert.deepEqual(parseSockets(SOCKETS), [
    { ip: "::", port: 80 },
    { ip: "127.0.0.1", port: 81 },
    { ip: "127.0.0.1", port: 3000 },
    { ip: "0.0.0.0", port: 8080 },
    { ip: "::1", port: 8080 },
  ]);
  assert.deepEqual(parseSockets("cat: /proc/net/tcp: No such file\n   0: zz\n"), []);
});

Deno.test("probeContainer(): tells the answer, what listens, and where a check would succeed", async () => {
  const network: CheckNetwork = {
    httpGet: ({ path }) =>
      Promise.resolve(
        path === "/health" ? answered(200) : { ...answered(404), headers: { server: "nginx" } },
      ),
    tcpConnect: () => Promise.resolve(),
  };
  const raw = inspected(container(1));
  const seen = { ...raw, State: { ...raw.State, Pid: 101 } };
  const process = new FakeProcess()
    .on("docker inspect", JSON.stringify([seen]))
    .on("docker logs", "")
    .on("nsenter --net=/proc/101/ns/net cat", SOCKETS);
  const { clock, report } = probe(process, network);
  await clock.advance(3_000);
  const found = parseProbeReport(JSON.stringify(await report));
  assert.deepEqual(found.answer, { status: 404, headers: { server: "nginx" }, body: "" });
  assert.deepEqual(found.good_paths, ["/health"]);
  assert.deepEqual(found.listening?.[0], { ip: "::", port: 80 });
  assert.deepEqual(found.check, { kind: "http", port: 3000, path: "/up" });
});

Deno.test("parseProbeReport(): a report of an older server is one", () => {
  const state = { running: true, exit_code: null, oom_killed: false, restarts: 0 };
  const old = { healthy: false, tries: [], state, logs_tail: "" };
  assert.deepEqual(parseProbeReport(JSON.stringify(old)), old);
});

Deno.test("parseHttpAnswer(): the head as far as it came", () => {
  const text = "HTTP/1.1 301 Moved\r\nLocation: https://a/\r\nX-Other: 1\r\n\r\nbody";
  assert.deepEqual(parseHttpAnswer(text), {
    status: 301,
    headers: { location: "https://a/" },
    body: "body",
  });
  assert.equal(parseHttpAnswer("HTTP/1.0 500 Oh")?.status, 500);
  for (const odd of ["", "HTTP/1.", "HTTP/2 200", "\x15\x03\x01"]) {
    assert.equal(parseHttpAnswer(odd), undefined, odd);
  }
});

Deno.test("runCheck(): an answer that stalls after its head still counts", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const serving = (async () => {
    const connection = await listener.accept();
    await connection.write(new TextEncoder().encode("HTTP/1.1 503 No\r\nServer: slow\r\n"));
    return connection;
  })();
  const outcome = await runCheck({ id: "abc", ip: "127.0.0.1" }, {
    kind: "http",
    port: listener.addr.port,
    path: "/",
    interval_ms: 1_000,
    timeout_ms: 300,
  }, { engine: "docker", process: new FakeProcess(), network: systemCheckNetwork, nowMs: () => 0 });
  assert.equal(outcome.answer?.status, 503);
  assert.match(outcome.text, /→ 503$/);
  (await serving).close();
  listener.close();
});
