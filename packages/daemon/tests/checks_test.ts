import assert from "node:assert/strict";
import { FakeProcess, SimClock } from "@jiji/core/testing";
import { probeContainer } from "../src/commands/probe.ts";
import {
  type CheckNetwork,
  judgeEngine,
  runCheck,
  systemCheckNetwork,
} from "../src/duties/checks.ts";
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
  assert.deepEqual(good, { ok: true, text: `GET :${port}/up → 204` });
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
    httpStatus: () => Promise.resolve(++tries < 3 ? 503 : 200),
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

Deno.test("probeContainer(): gives up at the deadline with the container's last words", async () => {
  const network: CheckNetwork = {
    httpStatus: () => Promise.reject(new Error("Connection refused")),
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
    httpStatus: () => Promise.resolve(200),
    tcpConnect: () => Promise.resolve(),
  };
  const ended = container(1, { running: false, exitCode: 137, oomKilled: true });
  const process = new FakeProcess()
    .on("docker inspect", JSON.stringify([inspected(ended)]))
    .on("docker logs", "");
  const found = await probe(process, network).report;
  assert.equal(found.healthy, false);
  assert.deepEqual(found.state, { running: false, exit_code: 137, oom_killed: true, restarts: 0 });
});

Deno.test("probeContainer(): an unknown container is an error that names it", async () => {
  const process = new FakeProcess().on("docker inspect", () => ({ exitCode: 1, stdout: "[]" }));
  const network = systemCheckNetwork;
  await assert.rejects(probe(process, network).report, /casa-web/);
});
