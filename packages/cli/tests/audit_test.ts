import assert from "node:assert/strict";
import { chooseEntries, parseAuditFilter } from "../src/commands/audit.ts";
import { parseAudit, readAudit, writeAudit } from "../src/utils/audit.ts";
import { inFolder, LocalHost } from "./local_host.ts";

const NOW_MS = Date.UTC(2026, 10, 23, 14, 25, 1);
const OPTIONS = { project: "shop", nowMs: NOW_MS };

async function linesOf(folder: string): Promise<Record<string, unknown>[]> {
  const text = await Deno.readTextFile(`${folder}/projects/shop/audit.jsonl`);
  assert(text.endsWith("\n"));
  return text.trimEnd().split("\n").map((line) => JSON.parse(line));
}

Deno.test("writeAudit(): appends one JSON line with who, when, where and what", () =>
  inFolder(async (folder) => {
    const host = new LocalHost("s1", folder);
    await writeAudit(
      host,
      { action: "deploy", status: "success", message: "web", version: "1" },
      OPTIONS,
    );
    await writeAudit(host, { action: "deploy", status: "failed", message: "api" }, OPTIONS);
    const [first, second] = await linesOf(folder);
    assert.match(String(first!["actor"]), /^.+@.+$/);
    assert.deepEqual({ ...first, actor: "" }, {
      time: "2026-11-23T14:25:01.000Z",
      actor: "",
      host: "s1",
      project: "shop",
      action: "deploy",
      status: "success",
      message: "web",
      version: "1",
    });
    assert.deepEqual([second!["status"], second!["message"]], ["failed", "api"]);
    const { mode } = await Deno.stat(`${folder}/projects/shop/audit.jsonl`);
    assert.equal(mode! & 0o777, 0o600);
  }));

Deno.test("writeAudit(): a hostile message is only text", () =>
  inFolder(async (folder) => {
    const messages = [
      "$(touch PWNED) `touch PWNED` ; touch PWNED",
      "line\nJIJI_AUDIT\ntouch PWNED\n",
      "'\"\\ $$ $& $1 %s %n \\n \\0 LINE",
      ") ; touch PWNED ; (",
      "\u0000\u001b[2J äöü 🚀 \u2028",
      "x".repeat(100_000),
    ];
    const host = new LocalHost("s1", folder);
    for (const message of messages) {
      await writeAudit(host, { action: "deploy", status: "success", message }, OPTIONS);
    }
    assert.deepEqual((await linesOf(folder)).map((line) => line["message"]), messages);
    for (const place of [".", folder, `${folder}/projects/shop`]) {
      await assert.rejects(Deno.stat(`${place}/PWNED`), Deno.errors.NotFound);
    }
  }));

Deno.test("writeAudit(): lines of several CLIs do not mix", () =>
  inFolder(async (folder) => {
    const host = new LocalHost("s1", folder);
    const message = "m".repeat(3_000);
    await Promise.all(
      Array.from(
        { length: 10 },
        (_, version) =>
          writeAudit(
            host,
            { action: "deploy", status: "success", message, version: `${version}` },
            OPTIONS,
          ),
      ),
    );
    const lines = await linesOf(folder);
    assert.equal(new Set(lines.map((line) => line["version"])).size, 10);
  }));

Deno.test("writeAudit(): nothing of the entry is in an argument list", () =>
  inFolder(async (folder) => {
    const host = new LocalHost("s1", folder);
    await writeAudit(host, { action: "deploy", status: "success", message: "hidden" }, OPTIONS);
    assert(!JSON.stringify(host.commands.map(({ argv }) => argv)).includes("hidden"));
  }));

Deno.test("readAudit(): gives back what was written, nothing where nothing was", () =>
  inFolder(async (folder) => {
    const host = new LocalHost("s1", folder);
    assert.deepEqual(await readAudit(host, "shop"), []);
    for (const message of ["one", "two\n$(id)"]) {
      await writeAudit(host, { action: "deploy", status: "success", message }, OPTIONS);
    }
    const lines = await readAudit(host, "shop");
    assert.deepEqual(lines.map((line) => line.message), ["one", "two\n$(id)"]);
  }));

Deno.test("parseAudit(): half lines and other people's lines are left out", () => {
  const line = {
    time: "t",
    actor: "a",
    host: "s1",
    action: "deploy",
    status: "success",
    message: "",
  };
  const text = [JSON.stringify(line), '{"time":"t"', "null", "[]", '{"time":1}', ""].join("\n");
  assert.deepEqual(parseAudit(text), [line]);
});

Deno.test("chooseEntries(): by action, result and time, newest last", () => {
  const entry = (minute: number, action: string, status: string) => ({
    ...{ actor: "ana@laptop", host: "s1", message: "", action, status },
    time: new Date(NOW_MS + minute * 60_000).toISOString(),
  });
  const entries = [entry(3, "deploy", "failed"), entry(1, "deploy", "success"), entry(2, "x", "a")];
  const minutes = (options: Parameters<typeof parseAuditFilter>[0]) =>
    chooseEntries(entries, parseAuditFilter(options, NOW_MS + 4 * 60_000))
      .map(({ time }) => (Date.parse(time) - NOW_MS) / 60_000);
  assert.deepEqual(minutes({}), [1, 2, 3]);
  assert.deepEqual(minutes({ lines: "2" }), [2, 3]);
  assert.deepEqual(minutes({ action: "deploy" }), [1, 3]);
  assert.deepEqual(minutes({ action: "deploy", status: "failed" }), [3]);
  assert.deepEqual(minutes({ since: "2m" }), [2, 3]);
  assert.deepEqual(minutes({ until: "2026-11-23T14:27:01Z" }), [1, 2]);
});

Deno.test("parseAuditFilter(): says which option is malformed", () => {
  const wrong = [
    [{ lines: "many" }, /--lines many/],
    [{ status: "ok" }, /--status ok/],
    [{ since: "yesterday" }, /--since yesterday/],
    [{ until: "1y" }, /--until 1y/],
  ] as const;
  for (const [options, pattern] of wrong) {
    assert.throws(() => parseAuditFilter(options, NOW_MS), pattern);
  }
});
