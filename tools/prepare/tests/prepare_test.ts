import assert from "node:assert/strict";
import { cacheRoot, ensureSlot, recipeKey } from "../cache.ts";
import { registryLinks, renderImageConfig, renderManifest } from "../oci.ts";
import { renderDuration, renderEnded, renderRunning } from "../progress.ts";
import { THINGS } from "../table.ts";
import { planOrder, planSlots, prerequisites, type Thing, type ThingName } from "../thing.ts";

function thing(name: ThingName, needs: readonly ThingName[], recipe = "1"): Thing {
  return { name, title: name, recipe, needs, build: () => Promise.resolve() };
}

Deno.test("planOrder(): every thing of the table comes after all it needs", () => {
  const order = planOrder(THINGS, THINGS.map((entry) => entry.name));
  assert.equal(order.length, THINGS.length);
  order.forEach((entry, index) => {
    const before = order.slice(0, index).map((earlier) => earlier.name);
    for (const name of prerequisites(entry)) assert.ok(before.includes(name));
  });
});

Deno.test("planOrder(): refuses a circle", () => {
  const circle = [thing("root", ["hub"]), thing("hub", ["root"])];
  assert.throws(() => planOrder(circle, ["root"]), /circle/);
});

Deno.test("planSlots(): a new recipe moves what is built from it, and nothing else", async () => {
  const before = [thing("packages", []), thing("root", ["packages"]), thing("corrosion", [])];
  const after = [thing("packages", [], "2"), ...before.slice(1)];
  const names: readonly ThingName[] = ["root", "corrosion"];
  const old = await planSlots(planOrder(before, names), "/c");
  const now = await planSlots(planOrder(after, names), "/c");
  assert.notEqual(old.get("root")?.slot, now.get("root")?.slot);
  assert.equal(old.get("corrosion")?.slot, now.get("corrosion")?.slot);
  assert.match(await recipeKey(["a"]), /^[0-9a-f]{12}$/);
});

Deno.test("ensureSlot(): a failed build leaves nothing, a good one is made once", async () => {
  const root = await Deno.makeTempDir();
  try {
    const slot = `${root}/thing/key`;
    const fail = () => Promise.reject(new Error("broken"));
    await assert.rejects(ensureSlot({ slot, build: fail }), /broken/);
    await assert.rejects(Deno.stat(`${slot}.building`));
    let built = 0;
    const build = async (stage: string) => {
      built++;
      await Deno.writeTextFile(`${stage}/file`, "whole");
    };
    const both = await Promise.all([ensureSlot({ slot, build }), ensureSlot({ slot, build })]);
    assert.deepEqual(both.sort(), ["built", "ready"]);
    assert.equal(built, 1);
    assert.equal(await Deno.readTextFile(`${slot}/file`), "whole");
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

Deno.test("ensureSlot(): what a killed run left half-made is thrown away", async () => {
  const root = await Deno.makeTempDir();
  try {
    const slot = `${root}/thing/key`;
    await Deno.mkdir(`${slot}.building`, { recursive: true });
    await Deno.writeTextFile(`${slot}.building/half`, "");
    await ensureSlot({ slot, build: (stage) => Deno.writeTextFile(`${stage}/whole`, "") });
    const names = [...Deno.readDirSync(slot)].map((entry) => entry.name);
    assert.deepEqual(names, ["whole"]);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

Deno.test("cacheRoot(): JIJI_CACHE, else the user's cache folder", () => {
  const from = (env: Record<string, string>) => cacheRoot((name) => env[name]);
  assert.equal(from({ JIJI_CACHE: "/x", HOME: "/h" }), "/x");
  assert.equal(from({ XDG_CACHE_HOME: "/c", HOME: "/h" }), "/c/jiji");
  assert.equal(from({ HOME: "/h" }), "/h/.cache/jiji");
});

Deno.test("registryLinks(): a tag leads to its manifest, the manifest to its blobs", () => {
  const links = registryLinks("library/busybox", {
    tags: ["1"],
    manifest: "sha256:aa",
    blobs: ["sha256:bb", "sha256:cc"],
  });
  const base = "repositories/library/busybox";
  assert.equal(links.get(`${base}/_manifests/tags/1/current/link`), "sha256:aa");
  assert.equal(links.get(`${base}/_manifests/revisions/sha256/aa/link`), "sha256:aa");
  assert.equal(links.get(`${base}/_layers/sha256/cc/link`), "sha256:cc");
});

Deno.test("renderImageConfig(): describes how the containers run", () => {
  const text = renderImageConfig({ cmd: ["run"], env: ["A=b"], user: "proxy" }, "sha256:aa");
  const config = JSON.parse(text);
  assert.deepEqual(config.config, { Cmd: ["run"], Env: ["A=b"], User: "proxy" });
  assert.deepEqual(config.rootfs.diff_ids, ["sha256:aa"]);
  const blob = { digest: "sha256:bb", size: 3 };
  assert.equal(JSON.parse(renderManifest(blob, blob)).layers[0].size, 3);
});

Deno.test("renderRunning(): fits the terminal and ends with the time", () => {
  const subject = { name: "corrosion", title: "Corrosion", detail: "x".repeat(200) };
  const line = renderRunning(subject, { elapsedMs: 41_200, columns: 80 });
  assert.ok(line.length < 80);
  assert.match(line, /… 41 s$/);
  assert.match(renderEnded(subject, { ms: 271_000, failed: false }), /^✔ .* 4 min 31 s$/);
  assert.equal(renderDuration(400), "0.4 s");
});
