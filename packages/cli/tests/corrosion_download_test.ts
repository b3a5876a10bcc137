import assert from "node:assert/strict";
import { JijiError, systemProcess } from "@jiji/core";
import { fetchCorrosion, isUrl } from "../src/lib/network/corrosion_download.ts";

interface Origin {
  readonly url: string;
  readonly folder: string;
  /** What the server answers with; undefined is 404. */
  body: Uint8Array<ArrayBuffer> | undefined;
  requests: number;
}

async function withOrigin(work: (origin: Origin) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  const origin = {
    url: "",
    folder,
    body: undefined as Uint8Array<ArrayBuffer> | undefined,
    requests: 0,
  };
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => undefined },
    () => {
      origin.requests++;
      return origin.body ? new Response(origin.body) : new Response("gone", { status: 404 });
    },
  );
  origin.url = `http://127.0.0.1:${server.addr.port}`;
  try {
    await work(origin);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function get(origin: Origin, path: string, cache = "cache"): Promise<string> {
  return fetchCorrosion(`${origin.url}/${path}`, {
    cacheFolder: `${origin.folder}/${cache}`,
    lockPath: `${origin.folder}/lock.json`,
    process: systemProcess,
    signal: new AbortController().signal,
    note: () => undefined,
  });
}

async function archive(folder: string, content: string): Promise<Uint8Array<ArrayBuffer>> {
  await Deno.mkdir(`${folder}/release/bin`, { recursive: true });
  await Deno.writeTextFile(`${folder}/release/bin/corrosion`, content);
  const argv = ["tar", "-czf", `${folder}/a.tar.gz`, "-C", folder, "release"] as const;
  assert.equal((await systemProcess.run(argv, { timeoutMs: 10_000 })).exitCode, 0);
  return await Deno.readFile(`${folder}/a.tar.gz`);
}

Deno.test("isUrl(): tells downloads from paths", () => {
  assert.equal(isUrl("https://example.com/corrosion"), true);
  assert.equal(isUrl("./bin/corrosion"), false);
  assert.equal(isUrl("/opt/https://"), false);
});

Deno.test("fetchCorrosion(): records the first checksum, then needs the network no more", async () => {
  await withOrigin(async (origin) => {
    origin.body = await archive(origin.folder, "one");
    const path = await get(origin, "corrosion.tar.gz");
    assert.equal(await Deno.readTextFile(path), "one");
    const lock = JSON.parse(await Deno.readTextFile(`${origin.folder}/lock.json`));
    assert.match(lock.downloads[`${origin.url}/corrosion.tar.gz`], /^[a-f0-9]{64}$/);
    origin.body = undefined;
    assert.equal(await Deno.readTextFile(await get(origin, "corrosion.tar.gz")), "one");
    assert.equal(origin.requests, 1);
  });
});

Deno.test("fetchCorrosion(): another file under the same address is refused, on any machine", async () => {
  await withOrigin(async (origin) => {
    origin.body = new TextEncoder().encode("one");
    assert.equal(await Deno.readTextFile(await get(origin, "corrosion")), "one");
    origin.body = new TextEncoder().encode("two");
    await assert.rejects(get(origin, "corrosion", "other-machine"), (error) => {
      assert(error instanceof JijiError);
      assert.match(error.message, /is not the file it was/);
      return true;
    });
    origin.body = new TextEncoder().encode("one");
    assert.equal(await Deno.readTextFile(await get(origin, "corrosion", "other-machine")), "one");
  });
});

Deno.test("fetchCorrosion(): says what failed, and leaves nothing half fetched", async () => {
  await withOrigin(async (origin) => {
    await assert.rejects(get(origin, "corrosion"), /failed: the server answered 404/);
    origin.body = new TextEncoder().encode("not an archive");
    await assert.rejects(get(origin, "corrosion.tgz"), /holds no executable "corrosion"/);
    const left = await Array.fromAsync(Deno.readDir(`${origin.folder}/cache/corrosion`));
    for (const { name } of left) {
      for await (const entry of Deno.readDir(`${origin.folder}/cache/corrosion/${name}`)) {
        assert.doesNotMatch(entry.name, /^download\./);
      }
    }
  });
});
