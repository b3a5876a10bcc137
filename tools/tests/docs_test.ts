import assert from "node:assert/strict";
import { dirname, join } from "node:path";

const ROOT = new URL("../..", import.meta.url).pathname;

/** Folders of the repository: a word in backticks that begins with one names a path in it. */
const PATH = /^(packages|tools|docs|e2e|bin|examples|\.ci|\.github)(\/[^\s`]*)?$/;

async function documents(): Promise<string[]> {
  const names = await Array.fromAsync(Deno.readDir(join(ROOT, "docs")));
  return [
    "README.md",
    "CLAUDE.md",
    ...names.map((entry) => `docs/${entry.name}`).filter((name) => name.endsWith(".md")).sort(),
  ];
}

/** Paths that a document names, relative to the root: in backticks, in code blocks, as links. */
function pathsIn(file: string, text: string): string[] {
  const words = [...text.matchAll(/`([^`\n]+)`/g)].map((match) => match[1]!.split(/\s/)[0]!)
    .filter((word) => PATH.test(word) && !/[*<>{}]|\b[A-Z]{2,}\b/.test(word));
  const blocks = [...text.matchAll(/^```[^\n]*\n([^]*?)^```/gm)].flatMap((match) =>
    [...match[1]!.matchAll(/(?:^|\s)((?:bin|e2e|examples|packages|tools)\/[\w./-]+)/g)]
      .map((found) => found[1]!)
  );
  const links = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1]!.split("#")[0]!)
    .filter((target) => target !== "" && !/^[a-z]+:/.test(target))
    .map((target) => join(dirname(file), target));
  return [...new Set([...words, ...blocks, ...links])];
}

async function isThere(path: string): Promise<boolean> {
  try {
    await Deno.stat(join(ROOT, path));
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

Deno.test("documents: every path they name is there", async () => {
  const missing: string[] = [];
  let count = 0;
  for (const file of await documents()) {
    for (const path of pathsIn(file, await Deno.readTextFile(join(ROOT, file)))) {
      count++;
      if (!await isThere(path)) missing.push(`${file}: ${path}`);
    }
  }
  assert.deepEqual(missing, []);
  assert(count > 20, `only ${count} paths were found: does this test still see them?`);
});

Deno.test("documents: a short file name stands beside a path that leads to it", async () => {
  const file = "docs/architecture.md";
  const missing: string[] = [];
  for (const line of (await Deno.readTextFile(join(ROOT, file))).split("\n")) {
    const paths = pathsIn(file, line);
    for (const match of line.matchAll(/`([a-z_]+\.ts)`/g)) {
      const beside = paths.map((path) => join(dirname(path), match[1]!));
      const found = await Promise.all(beside.map(isThere));
      if (paths.length > 0 && !found.includes(true)) missing.push(match[1]!);
    }
  }
  assert.deepEqual(missing, []);
});
