import assert from "node:assert/strict";
import { type Clock, systemClock, waitFor } from "@jiji/core/runtime";
import { SimClock } from "@jiji/core/testing";
import { LivenessWatch } from "../src/liveness_watch.ts";

function report(silent: readonly string[]): string {
  return JSON.stringify({ format: 1, written_at_ms: Date.now(), silent, rtt_ms: {} });
}

/** Follows a report in a folder of its own. */
async function followed(
  use: (
    path: string,
    silent: () => readonly string[],
    watch: LivenessWatch,
  ) => Promise<void>,
  clock: Clock = systemClock,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/liveness.json`;
  const stop = new AbortController();
  let seen: ReadonlySet<string> = new Set(["nothing read yet"]);
  const watch = new LivenessWatch({
    path,
    clock,
    signal: stop.signal,
    onSilent: (silent) => {
      seen = silent;
    },
  });
  const done = watch.run();
  try {
    await use(path, () => [...seen], watch);
  } finally {
    stop.abort();
    await done;
    await Deno.remove(folder, { recursive: true });
  }
}

async function until(silent: () => readonly string[], wanted: readonly string[]): Promise<void> {
  const found = await waitFor(
    () => silent().join() === wanted.join() ? true : undefined,
    { clock: systemClock, timeoutMs: 5_000, everyMs: 5 },
  );
  assert.ok(found, `still ${silent().join() || "nobody"}, not ${wanted.join() || "nobody"}`);
}

Deno.test("LivenessWatch: follows a report that is replaced, as the daemon does", async () => {
  await followed(async (path, silent) => {
    await until(silent, []);
    for (const names of [["s2"], ["s2", "s3"], []]) {
      await Deno.writeTextFile(`${path}.new`, report(names));
      await Deno.rename(`${path}.new`, path);
      await until(silent, names);
    }
  });
});

Deno.test("LivenessWatch: garbage or a lost report silences nobody", async () => {
  await followed(async (path, silent) => {
    await Deno.writeTextFile(path, report(["s2"]));
    await until(silent, ["s2"]);
    await Deno.writeTextFile(path, '{"format":1,"silent":["s2"');
    await until(silent, []);
    await Deno.writeTextFile(path, report(["s2"]));
    await until(silent, ["s2"]);
    await Deno.remove(path);
    await until(silent, []);
  });
});

Deno.test("LivenessWatch: a daemon whose clock is wrong is believed; a file that is old is not", async () => {
  await followed(async (path, silent) => {
    const shifted = (offsetMs: number) =>
      report(["s2"]).replace(/"written_at_ms":\d+/, `"written_at_ms":${Date.now() + offsetMs}`);
    for (const offsetMs of [600_000, -600_000]) {
      await Deno.writeTextFile(path, shifted(offsetMs));
      await until(silent, ["s2"]);
      const old = new Date(Date.now() - 60_000);
      await Deno.utime(path, old, old);
      await until(silent, []);
    }
  });
});

Deno.test("LivenessWatch.look(): what the daemon asks to be read is read at once", async () => {
  // By itself it never looks a second time.
  const standing = new SimClock();
  const now = { ...systemClock, sleep: standing.sleep.bind(standing) };
  await followed(async (path, silent, watch) => {
    await Deno.writeTextFile(path, report(["s2"]));
    assert.deepEqual(silent(), [], "nobody has looked yet");
    watch.look();
    assert.deepEqual(silent(), ["s2"]);
  }, now);
});
