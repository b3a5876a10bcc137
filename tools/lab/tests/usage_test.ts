import assert from "node:assert/strict";
import { HELP, parseCommandLine, parseUp, renderHelp } from "../usage.ts";

Deno.test("parseUp(): three bare servers unless told otherwise", () => {
  assert.deepEqual(parseUp([]), { count: 3, engine: "none" });
  assert.deepEqual(parseUp(["4", "--engine", "podman"]), { count: 4, engine: "podman" });
  assert.deepEqual(parseUp(["--engine=docker"]), { count: 3, engine: "docker" });
});

Deno.test("parseUp(): refuses what it does not know", () => {
  for (const args of [["0"], ["201"], ["x"], ["--engine"], ["--engine", "lxc"], ["--fast"]]) {
    assert.throws(() => parseUp(args), { name: "LabUsageError" });
  }
});

Deno.test("parseCommandLine(): takes everything after the first --", () => {
  assert.deepEqual(parseCommandLine(["--", "echo", "--", "a b"]), ["echo", "--", "a b"]);
  assert.deepEqual(parseCommandLine(["echo"]), ["echo"]);
  assert.throws(() => parseCommandLine(["--"]), { name: "LabUsageError" });
});

Deno.test("renderHelp(): tells of every command", () => {
  const text = renderHelp();
  for (const name of Object.keys(HELP)) {
    assert.match(text, new RegExp(`^  ${name} `, "m"));
    assert.match(renderHelp(name), new RegExp(`^usage: bin/lab ${name}`));
  }
});
