import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { systemClock, waitFor } from "@jiji/core";
import { type RunningRegistry, startImageRegistry } from "../src/lib/images/image_registry.ts";
import {
  ImageStore,
  isRepository,
  isTag,
  MANIFEST_BYTES_MAX,
} from "../src/lib/images/image_store.ts";

const digestOf = (bytes: Uint8Array) =>
  `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const bytesOf = (text: string) => new TextEncoder().encode(text);
const MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json";

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly bytes: Uint8Array;
}

interface Fixture {
  readonly registry: RunningRegistry;
  readonly folder: string;
  /** Sends a request; `path` may be the `Location` of an earlier answer. */
  send(path: string, init?: RequestInit): Promise<Answer>;
  /** To the port that servers reach. */
  sendReadOnly(path: string, init?: RequestInit): Promise<Answer>;
}

async function withRegistry(work: (fixture: Fixture) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await using registry = startImageRegistry({ folder, port: 0 });
    const to = (port: number) => async (path: string, init: RequestInit = {}): Promise<Answer> => {
      const response = await fetch(`http://127.0.0.1:${port}${path}`, init);
      return { status: response.status, headers: response.headers, bytes: await response.bytes() };
    };
    await work({
      registry,
      folder,
      send: to(registry.port),
      sendReadOnly: to(registry.readOnlyPort),
    });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Status of an answer whose body is of no interest. */
async function statusOf(answer: Promise<Answer>): Promise<number> {
  return (await answer).status;
}

async function filesIn(folder: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const entry of Deno.readDir(folder)) names.push(entry.name);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return names;
}

/** Pushes a blob as docker does: POST, PATCH in pieces, PUT with the digest. */
async function pushBlob(
  { send }: Fixture,
  pieces: readonly Uint8Array<ArrayBuffer>[],
  digest: string,
): Promise<Answer> {
  const begun = await send("/v2/shop-web/blobs/uploads/", { method: "POST" });
  assert.equal(begun.status, 202);
  let location = begun.headers.get("location")!;
  let bytes = 0;
  for (const piece of pieces) {
    const patched = await send(location, { method: "PATCH", body: piece });
    assert.equal(patched.status, 202);
    bytes += piece.length;
    assert.equal(patched.headers.get("range"), `0-${Math.max(bytes - 1, 0)}`);
    location = patched.headers.get("location")!;
  }
  return await send(`${location}?digest=${encodeURIComponent(digest)}`, { method: "PUT" });
}

Deno.test("registry: says that it speaks the protocol, on both ports", () =>
  withRegistry(async ({ send, sendReadOnly }) => {
    assert.equal(await statusOf(send("/v2/")), 200);
    assert.equal(await statusOf(sendReadOnly("/v2/")), 200);
    assert.equal(await statusOf(send("/")), 404);
  }));

Deno.test("registry: an image as docker pushes it comes back byte for byte", () =>
  withRegistry(async (fixture) => {
    const { send, sendReadOnly } = fixture;
    const layer = bytesOf("layer ".repeat(50_000));
    const digest = digestOf(layer);
    assert.equal(await statusOf(send(`/v2/shop-web/blobs/${digest}`, { method: "HEAD" })), 404);
    const put = await pushBlob(fixture, [layer.slice(0, 7), layer.slice(7)], digest);
    assert.equal(put.status, 201);
    assert.equal(put.headers.get("docker-content-digest"), digest);
    const manifest = bytesOf(JSON.stringify({ schemaVersion: 2, layers: [{ digest }] }));
    const pushed = await send("/v2/shop-web/manifests/v1.2", {
      method: "PUT",
      body: manifest,
      headers: { "content-type": MANIFEST_TYPE },
    });
    assert.equal(pushed.status, 201);
    assert.equal(pushed.headers.get("docker-content-digest"), digestOf(manifest));
    for (const reference of ["v1.2", digestOf(manifest)]) {
      const head = await sendReadOnly(`/v2/shop-web/manifests/${reference}`, { method: "HEAD" });
      assert.equal(head.status, 200);
      assert.equal(head.headers.get("content-length"), String(manifest.length));
      const pulled = await sendReadOnly(`/v2/shop-web/manifests/${reference}`);
      assert.equal(pulled.headers.get("content-type"), MANIFEST_TYPE);
      assert.deepEqual(pulled.bytes, manifest);
    }
    const blob = await sendReadOnly(`/v2/shop-web/blobs/${digest}`);
    assert.equal(blob.headers.get("content-length"), String(layer.length));
    assert.deepEqual(blob.bytes, layer);
  }));

Deno.test("registry: a blob in one request, and in PUT alone", () =>
  withRegistry(async ({ send, folder }) => {
    const one = bytesOf("monolithic");
    const path = `/v2/a/b/blobs/uploads/?digest=${digestOf(one)}`;
    assert.equal(await statusOf(send(path, { method: "POST", body: one })), 201);
    const two = bytesOf("put alone");
    const begun = await send("/v2/a/b/blobs/uploads/", { method: "POST" });
    const put = `${begun.headers.get("location")}?digest=${digestOf(two)}`;
    assert.equal(await statusOf(send(put, { method: "PUT", body: two })), 201);
    for (const bytes of [one, two]) {
      const answer = await send(`/v2/a/b/blobs/${digestOf(bytes)}`);
      assert.deepEqual(answer.bytes, bytes);
    }
    assert.deepEqual(await filesIn(`${folder}/uploads`), []);
  }));

Deno.test("registry: an empty blob is a blob", () =>
  withRegistry(async (fixture) => {
    const digest = digestOf(new Uint8Array());
    assert.equal((await pushBlob(fixture, [], digest)).status, 201);
    const answer = await fixture.send(`/v2/shop-web/blobs/${digest}`);
    assert.deepEqual([answer.status, answer.bytes.length], [200, 0]);
  }));

Deno.test("registry: a layer that is there is mounted, one that is not is uploaded", () =>
  withRegistry(async (fixture) => {
    const layer = bytesOf("shared");
    await pushBlob(fixture, [layer], digestOf(layer));
    const mount = (digest: string) =>
      fixture.send(`/v2/other/blobs/uploads/?mount=${digest}&from=shop-web`, { method: "POST" });
    const there = await mount(digestOf(layer));
    assert.equal(there.status, 201);
    assert.equal(there.headers.get("location"), `/v2/other/blobs/${digestOf(layer)}`);
    assert.equal(await statusOf(mount(digestOf(bytesOf("missing")))), 202);
  }));

Deno.test("registry: bytes that have another digest are refused and not kept", () =>
  withRegistry(async (fixture) => {
    const { send, folder } = fixture;
    const wrong = digestOf(bytesOf("something else"));
    const put = await pushBlob(fixture, [bytesOf("bytes")], wrong);
    assert.equal(put.status, 400);
    assert.equal(JSON.parse(new TextDecoder().decode(put.bytes)).errors[0].code, "DIGEST_INVALID");
    const bad = await pushBlob(fixture, [bytesOf("bytes")], "md5:abc");
    assert.equal(bad.status, 400);
    const one = send(`/v2/a/blobs/uploads/?digest=${wrong}`, { method: "POST", body: "bytes" });
    assert.equal(await statusOf(one), 400);
    assert.equal(await statusOf(send(`/v2/shop-web/blobs/${wrong}`)), 404);
    assert.deepEqual(await filesIn(`${folder}/uploads`), []);
    assert.deepEqual(await filesIn(`${folder}/blobs`), []);
  }));

Deno.test("registry: a manifest asked for by a digest must have that digest", () =>
  withRegistry(async ({ send, folder }) => {
    const wrong = digestOf(bytesOf("other"));
    const put = send(`/v2/a/manifests/${wrong}`, { method: "PUT", body: "{}" });
    assert.equal(await statusOf(put), 400);
    assert.equal(await statusOf(send(`/v2/a/manifests/${wrong}`)), 404);
    assert.deepEqual(await filesIn(`${folder}/uploads`), []);
  }));

Deno.test("registry: the port that servers reach takes nothing", () =>
  withRegistry(async ({ send, sendReadOnly, folder }) => {
    const layer = bytesOf("layer");
    const digest = digestOf(layer);
    const refused = [
      sendReadOnly("/v2/a/blobs/uploads/", { method: "POST" }),
      sendReadOnly(`/v2/a/blobs/uploads/?digest=${digest}`, { method: "POST", body: layer }),
      sendReadOnly("/v2/a/manifests/1", { method: "PUT", body: "{}" }),
      sendReadOnly(`/v2/a/blobs/${digest}`, { method: "DELETE" }),
    ];
    for (const answer of refused) assert((await statusOf(answer)) >= 400);
    const begun = await send("/v2/a/blobs/uploads/", { method: "POST" });
    const location = begun.headers.get("location")!;
    assert.equal(await statusOf(sendReadOnly(location, { method: "PATCH", body: layer })), 404);
    const put = sendReadOnly(`${location}?digest=${digest}`, { method: "PUT", body: layer });
    assert.equal(await statusOf(put), 404);
    assert.deepEqual(await filesIn(`${folder}/blobs`), []);
  }));

Deno.test("registry: hostile names reach no file", () =>
  withRegistry(async ({ send, folder }) => {
    await Deno.writeTextFile(`${folder}/secret.json`, '{"digest":"x"}');
    const names = [
      "..%2f..%2fetc",
      "%2e%2e/x",
      "a/../../b",
      "UPPER",
      "a//b",
      "-a",
      `a${"b".repeat(300)}`,
    ];
    for (const name of names) {
      for (const [method, rest] of [["POST", "blobs/uploads/"], ["PUT", "manifests/1"]] as const) {
        const body = method === "PUT" ? "{}" : null;
        const status = await statusOf(send(`/v2/${name}/${rest}`, { method, body }));
        assert(status >= 400 && status < 500, `${method} ${name}: ${status}`);
      }
    }
    for (const tag of ["..%2f..%2fsecret", "a%00b", ".hidden", "a".repeat(129), "%2e%2e"]) {
      const status = await statusOf(send(`/v2/a/manifests/${tag}`));
      assert(status >= 400 && status < 500, `${tag}: ${status}`);
    }
    for (const digest of ["sha256:..%2fsecret", "sha256:ABC", "..%2f..%2fsecret.json"]) {
      assert.equal(await statusOf(send(`/v2/a/blobs/${digest}`)), 404);
    }
    assert.deepEqual(await filesIn(folder), ["secret.json"]);
  }));

Deno.test("registry: a manifest past the limit is refused, one at the limit is taken", () =>
  withRegistry(async ({ send }) => {
    const put = (bytes: number) =>
      statusOf(send("/v2/a/manifests/1", { method: "PUT", body: new Uint8Array(bytes) }));
    assert.equal(await put(MANIFEST_BYTES_MAX + 1), 413);
    assert.equal(await put(MANIFEST_BYTES_MAX), 201);
  }));

Deno.test("registry: an upload that is given up leaves no blob and no file", () =>
  withRegistry(async ({ send, folder }) => {
    const begun = await send("/v2/a/blobs/uploads/", { method: "POST" });
    const location = begun.headers.get("location")!;
    await statusOf(send(location, { method: "PATCH", body: "some bytes" }));
    assert.equal(await statusOf(send(location, { method: "DELETE" })), 204);
    assert.equal(await statusOf(send(location, { method: "PATCH", body: "more" })), 404);
    assert.deepEqual(await filesIn(`${folder}/uploads`), []);
  }));

Deno.test("registry: an upload cut off in the middle never becomes a blob", () =>
  withRegistry(async ({ registry, folder }) => {
    const whole = bytesOf("0123456789");
    const connection = await Deno.connect({ hostname: "127.0.0.1", port: registry.port });
    const head = `POST /v2/a/blobs/uploads/?digest=${digestOf(whole)} HTTP/1.1\r\n` +
      "host: localhost\r\ncontent-length: 10\r\n\r\n01234";
    await connection.write(bytesOf(head));
    const options = { clock: systemClock, timeoutMs: 20_000, everyMs: 5 };
    const some = await waitFor(
      async () => (await filesIn(`${folder}/uploads`)).length > 0 || undefined,
      options,
    );
    assert(some, "the upload began");
    connection.close();
    const gone = await waitFor(
      async () => (await filesIn(`${folder}/uploads`)).length === 0 || undefined,
      options,
    );
    assert(gone, "the upload's file is removed");
    assert.deepEqual(await filesIn(`${folder}/blobs`), []);
  }));

Deno.test("registry: what a killed process left half written goes at the next start", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const upload = await new ImageStore(folder).beginUpload();
    await upload.append(new Blob(["half"]).stream());
    const [name] = await filesIn(`${folder}/uploads`);
    await startImageRegistry({ folder, port: 0 })[Symbol.asyncDispose]();
    assert.deepEqual(await filesIn(`${folder}/uploads`), [name], "another process may still write");
    const yesterday = new Date(Date.now() - 86_400_000);
    await Deno.utime(`${folder}/uploads/${name}`, yesterday, yesterday);
    await startImageRegistry({ folder, port: 0 })[Symbol.asyncDispose]();
    assert.deepEqual(await filesIn(`${folder}/uploads`), []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("startImageRegistry(): a port that is taken is named, and nothing is left open", async () => {
  const folder = await Deno.makeTempDir();
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr;
  assert.throws(() => startImageRegistry({ folder, port }), {
    message: `port ${port} of this machine is taken`,
    hint: /builder\.registry\.port/,
  });
  await Deno.remove(folder, { recursive: true });
});

Deno.test("registry: whatever the pieces, what was pushed is what is pulled", () =>
  withRegistry(async (fixture) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uint8Array({ maxLength: 2_000 }), { maxLength: 5 }),
        async (pieces) => {
          const whole = new Uint8Array(
            await new Blob(pieces.map((one) => new Uint8Array(one))).bytes(),
          );
          const digest = digestOf(whole);
          const put = await pushBlob(fixture, pieces.map((one) => new Uint8Array(one)), digest);
          assert.equal(put.status, 201);
          const answer = await fixture.sendReadOnly(`/v2/shop-web/blobs/${digest}`);
          assert.deepEqual(answer.bytes, whole);
        },
      ),
      { numRuns: 25 },
    );
  }));

Deno.test("registry: parallel pushes of one layer all succeed", () =>
  withRegistry(async (fixture) => {
    const layer = bytesOf("same ".repeat(10_000));
    const digest = digestOf(layer);
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => pushBlob(fixture, [layer], digest)),
    );
    assert.deepEqual(answers.map((answer) => answer.status), Array(8).fill(201));
    assert.deepEqual(await filesIn(`${fixture.folder}/uploads`), []);
  }));

Deno.test("isRepository(), isTag(): names that may become paths", () => {
  for (const name of ["a", "shop-web", "a/b/c", "a.b_c__d"]) assert(isRepository(name), name);
  for (const name of ["", "/a", "a/", "..", "a/../b", "A", "a b", "a\0"]) {
    assert(!isRepository(name), name);
  }
  for (const tag of ["1", "v1.2-rc_3", "latest"]) assert(isTag(tag), tag);
  for (const tag of ["", ".", "..", "-a", "a/b", "a:b", "a\n"]) assert(!isTag(tag), tag);
});
