import assert from "node:assert/strict";
import { ConfigError } from "../src/lib/configuration/config_issue.ts";
import { renderPath } from "../src/lib/configuration/format/config_path.ts";
import { ConfigDocument } from "../src/lib/configuration/format/document.ts";
import { parseDuration } from "../src/lib/configuration/format/schema_parts.ts";
import {
  interpolate,
  isInsideProject,
  parsePortMapping,
  parseShellWords,
  parseVolume,
} from "../src/lib/configuration/format/service_parts.ts";
import { closestWord, editDistance } from "../src/lib/configuration/format/suggestions.ts";
import { displayWidth, renderTable } from "../src/lib/output/table.ts";
import { parseEnvFile } from "../src/utils/env_loader.ts";

Deno.test("ConfigDocument.parse(): names line and column of syntax errors", () => {
  const message = (text: string) => {
    try {
      ConfigDocument.parse("a.yml", text);
    } catch (error) {
      assert(error instanceof ConfigError);
      return error.message;
    }
    return "no error";
  };
  assert.match(message("a: 1\na: 2\n"), /^a\.yml:2:1 {2}this key is written twice/);
  assert.match(message("a:\n\tb: 1\n"), /^a\.yml:2:1 {2}a tab is used to indent/);
  assert.match(message("a: [1\n"), /^a\.yml:\d:\d {2}not valid YAML/);
  assert.match(message(""), /the file is empty/);
  assert.match(message("- a\n"), /not a map of keys/);
  assert.match(message("a: 1\n---\nb: 1\n"), /^a\.yml:2:1 {2}not valid YAML/);
});

Deno.test("ConfigDocument.parse(): refuses text whose aliases unfold into thousands of values", () => {
  const list = (name: string, of: string) =>
    `${name}: &${name} [${Array(9).fill(`*${of}`).join(",")}]\n`;
  let text = "a: &a [1,2,3,4,5,6,7,8,9]\n";
  for (const [name, of] of ["ba", "cb", "dc", "ed", "fe", "gf"]) text += list(name!, of!);
  assert.throws(() => ConfigDocument.parse("a.yml", text), ConfigError);
});

Deno.test("ConfigDocument.span(): points at keys, values and the nearest thing above", () => {
  const document = ConfigDocument.parse("a.yml", "a:\n  b: [x, yy]\n  c: 1\n");
  assert.deepEqual(document.span(["a", "b", 1]), { line: 2, column: 10, length: 2 });
  assert.deepEqual(document.span(["a", "c"]), { line: 3, column: 6, length: 1 });
  assert.deepEqual(document.span(["a", "c"], "key"), { line: 3, column: 3, length: 1 });
  assert.deepEqual(document.span(["a", "zz"]), { line: 1, column: 1, length: 1 });
  assert.deepEqual(document.span([]), { line: 1, column: 1, length: 2 });
});

Deno.test("renderPath(): writes indexes and odd keys so that they can be told apart", () => {
  assert.equal(renderPath(["services", "web", "ports", 0]), "services.web.ports[0]");
  assert.equal(renderPath(["labels", "a.b"]), 'labels."a.b"');
});

Deno.test("parsePortMapping(): takes the three forms and nothing else", () => {
  const parsed = parsePortMapping("127.0.0.1:8080:80/udp")!;
  assert.deepEqual([parsed.hostIp, parsed.hostPort, parsed.containerPort, parsed.protocol], [
    "127.0.0.1",
    8080,
    80,
    "udp",
  ]);
  assert.equal(parsePortMapping("8080:80")!.hostPort, 8080);
  assert.equal(parsePortMapping("80")!.hostPort, undefined);
  const wrong = [
    "",
    "0",
    "65536",
    "a:1",
    "1:2:3",
    "300.0.0.1:1:2",
    "1/sctp",
    "1:",
    "-1",
    "1 ",
    "80/TCP",
  ];
  assert.deepEqual(wrong.filter((text) => parsePortMapping(text) !== undefined), []);
});

Deno.test("parseVolume(): takes names and absolute paths, never relative ones", () => {
  assert.equal(parseVolume("data:/x")!.named, true);
  assert.deepEqual(parseVolume("/a:/x:ro,z"), {
    source: "/a",
    target: "/x",
    named: false,
    options: "ro,z",
  });
  const wrong = [
    "data",
    "data:x",
    "./a:/x",
    "~/a:/x",
    "a:/x:ro:z",
    "a:/x:r o",
    ":/x",
    "/a/../b:/x",
    "a:/../x",
  ];
  assert.deepEqual(wrong.filter((text) => parseVolume(text) !== undefined), []);
});

Deno.test("isInsideProject(): refuses every way out", () => {
  assert(isInsideProject("a/b.c") && isInsideProject("./a") && isInsideProject("a/..b"));
  const wrong = ["", "/a", "~/a", "..", "../a", "a/../../b", "a/..", "a\\..\\b", "a\0b"];
  assert.deepEqual(wrong.filter(isInsideProject), []);
});

Deno.test("parseShellWords(): splits as a shell does, without expanding", () => {
  assert.deepEqual(parseShellWords(`a  'b c' "d \\" $X" e\\ f g'h'"i" ''`), [
    "a",
    "b c",
    'd " $X',
    "e f",
    "ghi",
    "",
  ]);
  assert.deepEqual(parseShellWords("  "), []);
  assert.equal(parseShellWords("a 'b"), undefined);
  assert.equal(parseShellWords('a "b'), undefined);
  assert.equal(parseShellWords("a \\"), undefined);
});

Deno.test("interpolate(): fills in names in braces only", () => {
  assert.deepEqual(interpolate("$A ${A} $${A} ${B} ${}", { A: "1" }), {
    text: "$A 1 ${A} ${B} ${}",
    missing: ["B"],
  });
  assert.deepEqual(interpolate("${toString}", {}).missing, ["toString"]);
});

Deno.test("parseDuration(): needs a unit", () => {
  assert.deepEqual(["500ms", "30s", "5m", "1h"].map(parseDuration), [
    500,
    30_000,
    300_000,
    3_600_000,
  ]);
  const wrong = ["30", "1.5s", "-1s", "1d", "s", "", "1 s", "9999999999s"];
  assert.deepEqual(wrong.filter((text) => parseDuration(text) !== undefined), []);
});

Deno.test("closestWord(): finds what was meant, and nothing when nothing is near", () => {
  const keys = ["healthcheck", "hosts", "ports", "stop_first", "image"];
  assert.equal(closestWord("helthchek", keys), "healthcheck");
  assert.equal(closestWord("stop-first", keys), "stop_first");
  assert.equal(closestWord("Port", keys), "ports");
  assert.equal(closestWord("replicas", keys), undefined);
  assert.equal(closestWord("s3", ["s1", "s2"]), "s1");
  assert.equal(closestWord("a", ["b"]), undefined);
  assert.equal(editDistance("ab", "ba"), 1);
  assert.equal(editDistance("", "abc"), 3);
});

Deno.test("parseEnvFile(): reads quotes and export; warns of a cut-off # sign", () => {
  const { values, warnings } = parseEnvFile(
    `A=1\nexport B="x # y"\nC='two\nlines'\nD=pass#word\n# E=1\nF=a # comment\nA=2\n`,
    ".env",
  );
  assert.deepEqual(values, { A: "2", B: "x # y", C: "two\nlines", D: "pass", F: "a" });
  assert.deepEqual(warnings, [".env:5: D is cut off at its # sign; put the value in quotes"]);
});

Deno.test("renderTable(): aligns by what a terminal shows", () => {
  assert.deepEqual(
    renderTable(["name", "n"], [["a", "1"], ["\x1b[32m日本\x1b[0m", "20"], ["long one"]], {
      right: [1],
    }),
    ["  name       n", "  a          1", "  \x1b[32m日本\x1b[0m      20", "  long one"],
  );
  assert.equal(displayWidth("✓ é日"), 5);
  assert.deepEqual(renderTable([], []), []);
});
