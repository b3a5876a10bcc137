import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { locateArtifacts, sha256OfFile, sha256OfText } from "../src/lib/network/artifacts.ts";

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("locateArtifacts(): finds what lies beside jiji, also through a link", () =>
  inFolder(async (folder) => {
    for (const name of ["jiji", "jiji-dns", "jiji-daemon", "corrosion"]) {
      await Deno.writeTextFile(`${folder}/${name}`, `program ${name}`);
    }
    await Deno.mkdir(`${folder}/elsewhere`);
    await Deno.symlink(`${folder}/jiji`, `${folder}/elsewhere/jiji`);
    const found = await locateArtifacts({
      executable: `${folder}/elsewhere/jiji`,
      corrosion: undefined,
    });
    const real = await Deno.realPath(folder);
    assert.deepEqual(
      found,
      ["corrosion", "jiji-dns", "jiji-daemon"].map((name) => ({
        name,
        path: `${real}/${name}`,
        sha256: createHash("sha256").update(`program ${name}`).digest("hex"),
      })),
    );
  }));

Deno.test("locateArtifacts(): takes the Corrosion that the user names", () =>
  inFolder(async (folder) => {
    for (const name of ["jiji", "jiji-dns", "jiji-daemon", "mine"]) {
      await Deno.writeTextFile(`${folder}/${name}`, name);
    }
    const [corrosion] = await locateArtifacts({
      executable: `${folder}/jiji`,
      corrosion: `${folder}/mine`,
    });
    assert.equal(corrosion!.path, `${folder}/mine`);
    assert.equal(corrosion!.sha256, sha256OfText("mine"));
  }));

Deno.test("locateArtifacts(): names the file that is missing and the way on", () =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/jiji`, "");
    await Deno.writeTextFile(`${folder}/corrosion`, "");
    const sources = { executable: `${folder}/jiji`, corrosion: undefined };
    await assert.rejects(locateArtifacts(sources), {
      message: /jiji-d(ns|aemon) for the servers is not at .*jiji-d/,
      hint: /of one build belong in one folder/,
    });
    await assert.rejects(locateArtifacts({ ...sources, corrosion: "/nowhere/corrosion" }));
  }));

Deno.test("sha256OfFile(): the same as of the text, for files larger than one piece", () =>
  inFolder(async (folder) => {
    const text = "0123456789abcdef".repeat(200_000);
    await Deno.writeTextFile(`${folder}/big`, text);
    assert.equal(await sha256OfFile(`${folder}/big`), sha256OfText(text));
  }));
