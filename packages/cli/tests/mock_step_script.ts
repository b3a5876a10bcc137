import assert from "node:assert/strict";

/** A command of a step script, as the shell would see it. */
export interface ScriptCommand {
  readonly kind: "step" | "attempt";
  readonly number: string;
  readonly argv: readonly [string, ...string[]];
  readonly stdin: string;
  readonly secretFile: { readonly path: string; readonly content: string } | undefined;
}

/** Words of one command and where its line ends; as sh(1) reads bare words and single quotes. */
function readWords(text: string, from: number): { words: string[]; next: number } {
  const words: string[] = [];
  let word: string | undefined;
  let at = from;
  for (; at < text.length && text[at] !== "\n"; at++) {
    const char = text[at]!;
    if (char === "'") {
      const end = text.indexOf("'", at + 1);
      assert(end > 0, "a quote is not closed");
      word = (word ?? "") + text.slice(at + 1, end);
      at = end;
    } else if (char === "\\") {
      word = (word ?? "") + text[++at];
    } else if (char === " ") {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? "") + char;
  }
  if (word !== undefined) words.push(word);
  return { words, next: at + 1 };
}

/** Commands of a script of `renderStepScript()`; anything else in it fails the test. */
export function parseStepScript(script: string): ScriptCommand[] {
  const commands: ScriptCommand[] = [];
  // The functions before come first; they end with the one that appends a line.
  let at = script.indexOf("\n", script.indexOf("\nappend_line()") + 1) + 1;
  assert(at > 1, "the script's functions are not there");
  let secretFile: ScriptCommand["secretFile"];
  while (at < script.length) {
    const { words, next } = readWords(script, at);
    at = next;
    const last = words.at(-1) ?? "";
    let stdin = "";
    if (last.startsWith("<<")) {
      words.pop();
      const end = script.indexOf(`\n${last.slice(2)}\n`, at - 1);
      assert(end >= 0, "a here-document has no end");
      stdin = end < at ? "" : script.slice(at, end + 1);
      at = end + last.length;
    } else if (last === "</dev/null") words.pop();
    const [kind, number = "", ...argv] = words;
    if (kind === "secret") secretFile = { path: number, content: stdin };
    else if (kind === "rm") assert.equal(number, "-f");
    else {
      assert(kind === "step" || kind === "attempt", `unknown line in a script: ${words.join(" ")}`);
      const [program, ...rest] = argv;
      assert(program !== undefined);
      const isOwn = kind === "step" && secretFile !== undefined;
      commands.push({
        kind,
        number,
        argv: [program, ...rest],
        stdin,
        secretFile: isOwn ? secretFile : undefined,
      });
      if (isOwn) secretFile = undefined;
    }
  }
  return commands;
}
