import assert from "node:assert/strict";
import { type Clock, LockHeldError, systemClock, systemProcess } from "@jiji/core";
import { Output } from "../src/lib/output/output.ts";
import type { CommandContext } from "../src/utils/command_helpers.ts";
import { lockOwner, parseHolder, takeLock, withLock } from "../src/utils/lock.ts";
import { readLocks } from "../src/utils/lock_inspection.ts";
import { isGone, ownProcess } from "../src/utils/process_identity.ts";
import { parseAge, parseMoment } from "../src/utils/time_text.ts";
import { configText, configurationOf } from "./configuration_fixture.ts";
import { inFolder, LocalHost } from "./local_host.ts";

/** A clock on which each look a second later is refused: the lock was not free at once. */
const IMPATIENT: Clock = {
  ...systemClock,
  sleep: () => Promise.reject(new Error("would have to wait")),
};

/** A clock that is ten times ahead of whoever sleeps, at once. */
function fastClock(onSleep: () => Promise<void> = () => Promise.resolve()): Clock {
  let nowMs = 0;
  return {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    async sleep(durationMs) {
      nowMs += durationMs * 10;
      await onSleep();
    },
  };
}

function contextOf(hosts: readonly LocalHost[], clock: Clock): CommandContext {
  const silent = { write: () => undefined, isTerminal: false, columns: 80 };
  const configuration = configurationOf(configText());
  return {
    configuration,
    services: [],
    servers: [...configuration.servers.values()],
    hosts: new Map(hosts.map((host) => [host.name, host])),
    witnesses: [],
    unreachable: new Map(),
    output: new Output({
      stdout: silent,
      stderr: silent,
      json: false,
      quiet: true,
      env: {},
      clock,
    }),
    clock,
    signal: new AbortController().signal,
    cwd: "/",
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** Folders of these servers, as `server init` makes them. */
async function serversIn(folder: string, names: readonly string[]): Promise<LocalHost[]> {
  return await Promise.all(names.map(async (name) => {
    await Deno.mkdir(`${folder}/${name}/locks`, { recursive: true });
    return new LocalHost(name, `${folder}/${name}`);
  }));
}

const lock = (hosts: readonly LocalHost[], clock: Clock = IMPATIENT) =>
  withLock(contextOf(hosts, clock), { reason: "deploy", scope: "project" });

const locksOf = async (host: LocalHost) =>
  (await Array.fromAsync(Deno.readDir(`${host.folder}/locks`))).filter((one) => one.isDirectory)
    .map((one) => one.name);

/** Puts a lock of someone else there. */
async function plant(
  host: LocalHost,
  facts: { token?: string; process?: string; ageSeconds?: number },
): Promise<string> {
  const path = `${host.folder}/locks/shop`;
  await Deno.mkdir(path);
  const process = facts.process ?? "another-machine/1/2";
  const lines = [facts.token ?? "planted", "ana@laptop: deploy", "1764000000", process];
  await Deno.writeTextFile(`${path}/owner`, `${lines.join("\n")}\n`);
  const at = new Date(Date.now() - (facts.ageSeconds ?? 0) * 1000);
  await Deno.utime(`${path}/owner`, at, at);
  return `${path}/owner`;
}

/** A process of this machine that is no more. */
async function deadProcess(): Promise<string> {
  const own = await ownProcess();
  return own.replace(/\/\d+$/, "/1");
}

/** Takes the lock many times at once and gives how many got it. */
async function rush(host: LocalHost, count: number): Promise<AsyncDisposable[]> {
  const ends = await Promise.allSettled(Array.from({ length: count }, () => lock([host])));
  return ends.flatMap((end) => end.status === "fulfilled" ? [end.value] : []);
}

Deno.test("withLock(): of twenty at once exactly one gets it, and the next after it", () =>
  inFolder(async (folder) => {
    const [host] = await serversIn(folder, ["s1"]);
    for (let round = 0; round < 2; round++) {
      const holders = await rush(host!, 20);
      assert.equal(holders.length, 1);
      assert.deepEqual(await locksOf(host!), ["shop"]);
      await holders[0]![Symbol.asyncDispose]();
      assert.deepEqual(await locksOf(host!), []);
    }
  }));

Deno.test("withLock(): two commands about different servers of a project meet", () =>
  inFolder(async (folder) => {
    const [s1, s2] = await serversIn(folder, ["s1", "s2"]);
    const wish = { reason: "deploy", scope: "project" } as const;
    const about = (host: LocalHost, other: LocalHost) => ({
      ...contextOf([host], IMPATIENT),
      witnesses: [other],
    });
    const held = await withLock(about(s1!, s2!), wish);
    assert.deepEqual(await locksOf(s2!), ["shop"]);
    await assert.rejects(withLock(about(s2!, s1!), wish));
    await held[Symbol.asyncDispose]();
    assert.deepEqual([...await locksOf(s1!), ...await locksOf(s2!)], []);
    const broken = new LocalHost("s0", "/nowhere");
    broken.run = () => Promise.reject(new Error("broken"));
    const again = await withLock(about(s1!, broken), wish);
    await again[Symbol.asyncDispose]();
  }));

Deno.test("withLock(): the lock of a dead process of this machine is taken over, by one alone", () =>
  inFolder(async (folder) => {
    const [host] = await serversIn(folder, ["s1"]);
    for (let round = 0; round < 3; round++) {
      await plant(host!, { process: await deadProcess() });
      const holders = await rush(host!, 12);
      assert.equal(holders.length, 1);
      await holders[0]![Symbol.asyncDispose]();
      assert.deepEqual(await locksOf(host!), []);
    }
  }));

Deno.test("withLock(): a lock without a sign of life is taken over, by one alone", () =>
  inFolder(async (folder) => {
    const [host] = await serversIn(folder, ["s1"]);
    await plant(host!, { ageSeconds: 3_600 });
    const holders = await rush(host!, 12);
    assert.equal(holders.length, 1);
    await holders[0]![Symbol.asyncDispose]();
    assert.deepEqual(await locksOf(host!), []);
  }));

Deno.test("withLock(): a holder that gives a sign of life is named, with exit code 5", () =>
  inFolder(async (folder) => {
    const [host] = await serversIn(folder, ["s1"]);
    const owner = await plant(host!, { ageSeconds: 2 });
    const clock = fastClock(() => Deno.utime(owner, new Date(), new Date()));
    const error = await lock([host!], clock).then(() => undefined, (reason) => reason);
    assert(error instanceof LockHeldError);
    assert.match(error.message, /^s1 is locked by ana@laptop: deploy since 2025-11-24T16:00:00/);
    assert.deepEqual([error.exitCode, error.holder, error.sinceMs], [
      5,
      "ana@laptop: deploy",
      1_764_000_000_000,
    ]);
    assert.deepEqual(await locksOf(host!), ["shop"], "the holder keeps it");
  }));

Deno.test("withLock(): waits with a deadline for a holder that never moves", () =>
  inFolder(async (folder) => {
    const [host] = await serversIn(folder, ["s1"]);
    await plant(host!, {});
    await assert.rejects(lock([host!], fastClock()), LockHeldError);
  }));

Deno.test("withLock(): takes the lock as soon as the holder gives it back", () =>
  inFolder(async (folder) => {
    const [host] = await serversIn(folder, ["s1"]);
    const first = await lock([host!]);
    const clock = fastClock(() => Promise.resolve(first[Symbol.asyncDispose]()));
    await using _second = await lock([host!], clock);
    assert.deepEqual(await locksOf(host!), ["shop"]);
  }));

Deno.test("withLock(): when one server is locked, the others are given back", () =>
  inFolder(async (folder) => {
    const hosts = await serversIn(folder, ["s2", "s1", "s3"]);
    const [s2, s1, s3] = hosts;
    await plant(s2!, {});
    await assert.rejects(lock(hosts), /would have to wait/);
    assert.deepEqual(await locksOf(s1!), []);
    assert.deepEqual(await locksOf(s2!), ["shop"]);
    assert.deepEqual(await locksOf(s3!), []);
    assert.equal(s3!.commands.length, 2, "taken at once, given back, and not waited for before s2");
  }));

Deno.test("withLock(): releases only its own lock", () =>
  inFolder(async (folder) => {
    const [host] = await serversIn(folder, ["s1"]);
    const ours = await lock([host!]);
    await Deno.remove(`${host!.folder}/locks/shop`, { recursive: true });
    await plant(host!, { token: "somebody-else" });
    await ours[Symbol.asyncDispose]();
    assert.deepEqual(await locksOf(host!), ["shop"]);
  }));

Deno.test("withLock(): the cluster's lock and a project's are two locks", () =>
  inFolder(async (folder) => {
    const [host] = await serversIn(folder, ["s1"]);
    const context = contextOf([host!], IMPATIENT);
    await using _project = await withLock(context, { reason: "deploy", scope: "project" });
    await using _cluster = await withLock(context, { reason: "server init", scope: "cluster" });
    assert.equal((await locksOf(host!)).length, 2);
  }));

Deno.test("withLock(): a server that was never prepared needs no lock and gets no folder", () =>
  inFolder(async (folder) => {
    const host = new LocalHost("s1", `${folder}/bare`);
    await using _lock = await lock([host]);
    await assert.rejects(Deno.stat(`${folder}/bare`), Deno.errors.NotFound);
  }));

Deno.test("withLock(): its scripts travel over stdin, their parameters as arguments", () =>
  inFolder(async (folder) => {
    const [host] = await serversIn(folder, ["s1"]);
    await (await lock([host!]))[Symbol.asyncDispose]();
    for (const { argv, stdin } of host!.commands) {
      assert.deepEqual(argv.slice(0, 3), ["sh", "-s", "--"]);
      assert.notEqual(stdin, "");
    }
  }));

Deno.test("takeLock(): stays without a sign of life, is named with its end, and ends then", () =>
  inFolder(async (folder) => {
    const [host] = await serversIn(folder, ["s1"]);
    const context = contextOf([host!], IMPATIENT);
    await takeLock(context, { reason: "moving disks", seconds: 600 });
    const owner = `${host!.folder}/locks/shop/owner`;
    const hourAgo = new Date(Date.now() - 3_600_000);
    await Deno.utime(owner, hourAgo, hourAgo);
    await assert.rejects(lock([host!]), (error: unknown) => {
      assert(error instanceof LockHeldError);
      assert.match(error.message, /: moving disks since .*, until 20\d\d-/);
      return /jiji lock release/.test(error.hint ?? "");
    });
    const [found] = await readLocks(context);
    assert.equal(found?.owner, `${lockOwner()}: moving disks`);
    assert(found.untilMs! > Date.now() + 500_000 && found.untilMs! < Date.now() + 700_000);
    const lines = (await Deno.readTextFile(owner)).split("\n");
    lines[4] = "1764000000";
    await Deno.writeTextFile(owner, lines.join("\n"));
    await using _next = await lock([host!]);
  }));

Deno.test("parseAge(), parseMoment(): lengths and moments as users write them", () => {
  assert.deepEqual(["90s", "30m", "2h", "7d"].map(parseAge), [
    90_000,
    1_800_000,
    7_200_000,
    604_800_000,
  ]);
  for (const text of ["", "5", "5 m", "-1h", "1y"]) assert.equal(parseAge(text), undefined, text);
  const nowMs = Date.parse("2026-11-23T05:00:00Z");
  assert.equal(parseMoment("30m", nowMs), nowMs - 1_800_000);
  assert.equal(parseMoment("2026-11-23T05:00:00Z", 0), nowMs);
  assert.equal(parseMoment("2026-11-23 05:00", 0), nowMs, "UTC when no zone is written");
  assert.equal(parseMoment("2026-11-23", 0), nowMs - 5 * 3_600_000);
  for (const text of ["yesterday", "2026-99-99"]) assert.equal(parseMoment(text, 0), undefined);
});

Deno.test("parseHolder(): a lock that is just being written has no holder yet", () => {
  assert.deepEqual(parseHolder(""), {
    token: "",
    owner: "someone",
    sinceSeconds: 0,
    process: "",
    untilSeconds: 0,
    renewed: "",
  });
  assert.equal(parseHolder("t\nana@laptop: deploy\nnot a number\n").sinceSeconds, 0);
});

Deno.test("isGone(): only of processes of this machine that are no more", async () => {
  const own = await ownProcess();
  assert.match(own, /^[0-9a-f-]{36}\/pid:\[\d+\]\/\d+\/\d+$/);
  assert.equal(await isGone(own), false);
  assert.equal(await isGone(await deadProcess()), true, "the number was given to another process");
  const child = new Deno.Command("sh", { args: ["-c", "echo $$"] });
  const pid = new TextDecoder().decode((await child.output()).stdout).trim();
  assert.equal(await isGone(own.replace(/\d+\/\d+$/, `${pid}/77`)), true);
  assert.equal(await isGone(own.replace(/^[0-9a-f]/, "x")), false, "another machine's");
  for (const text of ["", "nonsense", "a/b/c"]) assert.equal(await isGone(text), false);
});

Deno.test("systemProcess: gives the exit code that the scripts mean", async () => {
  const result = await systemProcess.run(["sh", "-s", "--", "a b"], {
    timeoutMs: 20_000,
    stdin: 'printf %s "$1"; exit 75',
  });
  assert.deepEqual([result.exitCode, result.stdout], [75, "a b"]);
});
