import assert from "node:assert/strict";
import { isNewerVersion, parseVersion, renderVersionSkew } from "@jiji/core/cluster";

Deno.test("renderVersionSkew(): names those that differ, not those that do not tell", () => {
  const servers = [
    { server: "s3", version: "0.2.0" },
    { server: "s1", version: "0.1.0" },
    { server: "s4", version: undefined },
    { server: "s2", version: "0.2.0" },
  ];
  assert.equal(
    renderVersionSkew("0.1.0", servers),
    "versions of jiji differ: 0.1.0 here, 0.2.0 on s2, 0.2.0 on s3",
  );
  assert.equal(renderVersionSkew("0.1.0", servers.slice(1, 3)), undefined);
});

Deno.test("parseVersion(): versions alone, whatever a file on a server holds", () => {
  assert.equal(parseVersion("0.1.0\n"), "0.1.0");
  assert.equal(parseVersion("1.20.300-rc.1"), "1.20.300-rc.1");
  for (
    const text of [undefined, "", "1.2", "v1.2.3", "1.2.3; reboot", "1.2.3\u001b[2J", "1.2.3-"]
  ) {
    assert.equal(parseVersion(text), undefined, text);
  }
});

Deno.test("isNewerVersion(): compares numbers, not texts", () => {
  assert(isNewerVersion("0.10.0", "0.9.9"));
  assert(isNewerVersion("1.0.0", "0.99.99"));
  assert(!isNewerVersion("0.9.9", "0.10.0"));
  assert(!isNewerVersion("1.2.3", "1.2.3"));
  assert(!isNewerVersion("1.2.3-rc.1", "1.2.3"));
});
