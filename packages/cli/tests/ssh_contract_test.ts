import assert from "node:assert/strict";
import { join } from "node:path";
import { ConnectionError, RemoteCommandError, systemClock } from "@jiji/core/runtime";
import { login } from "../src/utils/ssh/connect.ts";
import { openSocket } from "../src/utils/ssh/socket.ts";
import { SshHost } from "../src/utils/ssh/transport.ts";
import { contract, freePort, TestSshd } from "./sshd.ts";

const LIMIT = { timeoutMs: 10_000 };

contract("SshHost.run(): gives output, exit code and signal as values", async () => {
  await using sshd = await TestSshd.start();
  await using pool = sshd.pool();
  const host = await pool.connect("s1");
  const result = await host.run(["sh", "-c", "echo out; echo err >&2; exit 3"], LIMIT);
  assert.deepEqual(
    { ...result, durationMs: 0 },
    { exitCode: 3, signal: undefined, stdout: "out\n", stderr: "err\n", durationMs: 0 },
  );
  const killed = await host.run(["sh", "-c", "kill -TERM $$"], LIMIT);
  assert.equal(killed.exitCode, undefined);
  assert.equal(killed.signal, "SIGTERM");
  const odd = await host.run(["printf", "%s|", "it's", "a b", "$HOME", "", "ü\n*"], LIMIT);
  assert.equal(odd.stdout, "it's|a b|$HOME||ü\n*|");
});

contract("SshHost.run(): feeds standard input", async () => {
  await using sshd = await TestSshd.start();
  await using pool = sshd.pool();
  const host = await pool.connect("s1");
  const text = "secret line\n".repeat(50_000);
  const result = await host.run(["md5sum"], { ...LIMIT, stdin: text });
  const local = await host.run(["sh", "-c", "yes 'secret line' | head -n 50000 | md5sum"], LIMIT);
  assert.equal(result.stdout, local.stdout);
  assert.equal((await host.run(["cat"], LIMIT)).stdout, "");
});

contract("SshHost.run(): thirty commands at once all answer", async () => {
  await using sshd = await TestSshd.start();
  await using pool = sshd.pool();
  const host = await pool.connect("s1");
  const results = await Promise.all(
    Array.from({ length: 30 }, (_, index) => host.run(["echo", String(index)], LIMIT)),
  );
  assert.deepEqual(results.map((result) => result.stdout), results.map((_, index) => `${index}\n`));
});

contract("SshHost.run(): gives up at the time limit", async () => {
  await using sshd = await TestSshd.start();
  await using pool = sshd.pool();
  const host = await pool.connect("s1");
  const result = await host.run(["sleep", "30"], { timeoutMs: 100 });
  assert.equal(result.exitCode, undefined);
  assert.equal((await host.run(["echo", "on"], LIMIT)).stdout, "on\n");
});

contract("SshHost.run(): stops when its signal aborts", async () => {
  await using sshd = await TestSshd.start();
  await using pool = sshd.pool();
  const host = await pool.connect("s1");
  const controller = new AbortController();
  const running = host.run(["sleep", "30"], { ...LIMIT, signal: controller.signal });
  controller.abort(new Error("ctrl-c"));
  await assert.rejects(running, /ctrl-c/);
});

contract("SshHost.stream(): hands on output while the command runs", async () => {
  await using sshd = await TestSshd.start();
  await using pool = sshd.pool();
  const host = await pool.connect("s1");
  const out: string[] = [];
  const err: string[] = [];
  const end = await host.stream(["sh", "-c", "read word; echo got $word; echo bad >&2; exit 4"], {
    ...LIMIT,
    stdin: "hello\n",
    onStdout: (text) => out.push(text),
    onStderr: (text) => err.push(text),
  });
  assert.deepEqual([out.join(""), err.join(""), end.exitCode], ["got hello\n", "bad\n", 4]);
});

contract("SshHost.upload(): writes 50 MB whole, with its mode, over an old file", async () => {
  await using sshd = await TestSshd.start();
  await using pool = sshd.pool();
  const host = await pool.connect("s1");
  const local = join(sshd.folder, "big");
  const bytes = new Uint8Array(50 * 1024 * 1024);
  for (let at = 0; at < bytes.length; at += 65_536) {
    crypto.getRandomValues(bytes.subarray(at, at + 65_536));
  }
  await Deno.writeFile(local, bytes);
  const target = join(sshd.folder, "remote file");
  await Deno.writeTextFile(target, "old");
  let progress = 0;
  const startedMs = performance.now();
  await host.upload({ path: local }, target, {
    mode: 0o750,
    timeoutMs: 60_000,
    onProgress: (sent) => progress = sent,
  });
  const mbPerSecond = 50 / ((performance.now() - startedMs) / 1_000);
  // deno-lint-ignore no-console
  console.log(`upload of 50 MB: ${mbPerSecond.toFixed(0)} MB/s`);
  assert.equal(progress, bytes.length);
  const compared = await host.run(["cmp", local, target], LIMIT);
  assert.equal(compared.exitCode, 0, compared.stdout);
  assert.equal((await Deno.stat(target)).mode! & 0o777, 0o750);
});

contract(
  "SshHost.upload(): writes bytes; an error names the path and leaves no piece",
  async () => {
    await using sshd = await TestSshd.start();
    await using pool = sshd.pool();
    const host = await pool.connect("s1");
    const target = join(sshd.folder, "token");
    await host.upload(new TextEncoder().encode("s3cret"), target, { mode: 0o600, ...LIMIT });
    assert.equal(await Deno.readTextFile(target), "s3cret");
    await host.upload(new Uint8Array(), join(sshd.folder, "empty"), { mode: 0o644, ...LIMIT });
    const missing = join(sshd.folder, "no", "such", "folder");
    await assert.rejects(
      host.upload(new Uint8Array(10), missing, { mode: 0o600, ...LIMIT }),
      (error) => error instanceof RemoteCommandError && error.message.includes(missing),
    );
    const names = [...Deno.readDirSync(sshd.folder)].map((entry) => entry.name);
    assert.equal(names.filter((name) => name.startsWith("token")).length, 1);
  },
);

contract(
  "SshHost.reverseForward(): carries many HTTP requests, also half-closed ones",
  async () => {
    await using sshd = await TestSshd.start();
    await using pool = sshd.pool();
    const host = await pool.connect("s1");
    await using server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen: () => undefined },
      async (request) => new Response(`${new URL(request.url).pathname} ${await request.text()}`),
    );
    const remotePort = freePort();
    const forward = await host.reverseForward(remotePort, server.addr.port);
    const url = `http://127.0.0.1:${remotePort}`;
    const body = "x".repeat(200_000);
    const answers = await Promise.all(Array.from({ length: 40 }, async (_, index) => {
      const response = await fetch(`${url}/${index}`, { method: "POST", body });
      return await response.text();
    }));
    answers.forEach((answer, index) => assert.equal(answer, `/${index} ${body}`));
    const raw = await Deno.connect({ hostname: "127.0.0.1", port: remotePort });
    await raw.write(
      new TextEncoder().encode("GET /half HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
    );
    await raw.closeWrite();
    const answer = await new Response(raw.readable).text();
    assert.match(answer, /\/half/);
    await assert.rejects(host.reverseForward(remotePort, 1), /leads to this machine already/);
    await assert.rejects(host.reverseForward(sshd.port, 1), /can't be led to this machine/);
    await forward[Symbol.asyncDispose]();
    await assert.rejects(Deno.connect({ hostname: "127.0.0.1", port: remotePort }));
  },
);

contract("SshHost: a silent server is noticed", async () => {
  await using sshd = await TestSshd.start();
  await using pool = sshd.pool(undefined, { keepaliveIntervalMs: 50 });
  const host = await pool.connect("s1");
  await sshd.freezeSessions("SIGSTOP");
  try {
    await assert.rejects(
      host.run(["true"], LIMIT),
      (error) => error instanceof ConnectionError && error.phase === "lost",
    );
  } finally {
    await sshd.freezeSessions("SIGCONT");
  }
});

contract("SshHost: commands and uploads of other users go through sudo -n", async () => {
  const folder = await Deno.makeTempDir({ prefix: "jiji-sudo-" });
  await Deno.writeTextFile(
    join(folder, "sudo"),
    `#!/bin/sh\necho "$1 $2" >> ${folder}/calls\nshift 2\nexec "$@"\n`,
    { mode: 0o755 },
  );
  try {
    await using sshd = await TestSshd.start({ path: `${folder}:/usr/bin:/bin` });
    const server = sshd.server();
    const clock = systemClock;
    const { signal } = new AbortController();
    const client = await login(server, () => openSocket(server, { clock, signal }), {
      clock,
      signal,
      env: {},
      knownHostsPath: sshd.knownHostsPath,
      globalKnownHostsPath: "/no/such/file",
    });
    const host = new SshHost(client, { name: "s1", address: "ana@s1", clock, sudo: true });
    assert.equal((await host.run(["cat"], { ...LIMIT, stdin: "in" })).stdout, "in");
    await host.upload(new Uint8Array(3), join(folder, "file"), { mode: 0o600, ...LIMIT });
    await host.dispose();
    assert.equal(await Deno.readTextFile(join(folder, "calls")), "-n --\n-n --\n");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
