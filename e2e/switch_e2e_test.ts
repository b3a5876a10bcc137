import assert from "node:assert/strict";
import { join } from "node:path";
import { CHECKOUT } from "./lab.ts";
import { chapter, Shop, STORY_ENGINE, tell } from "./shop.ts";
import type { StreamEvent } from "./streams.ts";

/** How long each request takes, seconds; longer than a deploy needs until it switches. */
const SECONDS = 15;
/** Requests of each kind. */
const COUNT = 3;

const CONFIG = `project: shop
builder: {engine: ${STORY_ENGINE}}
servers:
  s1: {host: 203.0.113.11}
deploy: {drain_timeout: 40s}
services:
  web:
    image: busybox:1
    hosts: [s1]
    ports: [3000, 3001]
    directories: [{local: www, remote: /www, mode: "0755"}]
    environment: {clear: {VERSION: v1}}
    command: [sh, -c, "nc -ll -p 3001 -e /www/talk & exec httpd -f -p 3000 -h /www"]
    stop_grace: 1s
    proxy:
      targets:
        - app_port: 3001
          host: ws.example.com
          healthcheck: {tcp: true}
        - app_port: 3000
          response_timeout: 60s
`;

const SCRIPTS: Readonly<Record<string, string>> = {
  "up": "ok\n",
  "talk": `#!/bin/sh
while read -r line; do [ "\${#line}" -gt 1 ] || break; done
printf 'HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n'
exec cat
`,
  "cgi-bin/slow": `#!/bin/sh
sleep "$QUERY_STRING"
printf 'Content-Type: text/plain\\r\\n\\r\\nslow done by %s\\n' "$VERSION"
`,
  "cgi-bin/upload": `#!/bin/sh
count=$(wc -c)
printf 'Content-Type: text/plain\\r\\n\\r\\ngot %s by %s\\n' "$count" "$VERSION"
`,
  "cgi-bin/events": `#!/bin/sh
printf 'Content-Type: text/event-stream\\r\\n\\r\\n'
number=0
while [ "$number" -lt "$QUERY_STRING" ]; do
  printf 'data: %s\\n\\n' "$number"
  number=$((number + 1))
  sleep 1
done
`,
  "cgi-bin/version": `#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n%s\\n' "$VERSION"
`,
};

/** Begins all kinds of long requests; `begun` when every one is under way. */
function beginStreams(shop: Shop) {
  const argv = [Deno.execPath(), "run", "--allow-net", `${CHECKOUT}/e2e/streams.ts`];
  const child = shop.lab.spawn([
    ...argv,
    ...[shop.lab.address("s1"), String(SECONDS), String(COUNT)],
  ]);
  const stderr = new Response(child.stderr).text();
  const events: StreamEvent[] = [];
  const begun = Promise.withResolvers<void>();
  const ended = (async () => {
    let rest = "";
    for await (const piece of child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + piece).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const event: StreamEvent = JSON.parse(line);
        events.push(event);
        if (events.filter((one) => one.event === "begun").length === 4 * COUNT) begun.resolve();
      }
    }
    const complaint = await stderr;
    await child.status;
    begun.reject(new Error(`not every request began: ${JSON.stringify(events)}${complaint}`));
    return events.filter((one) => one.event === "ended");
  })();
  return { begun: begun.promise, ended };
}

Deno.test("switch: long requests, uploads and event streams end on the version they began on", async (t) => {
  await using shop = await Shop.open({ name: "e2e-switch", servers: 1, configure: () => CONFIG });
  await Deno.mkdir(join(shop.folder, "www/cgi-bin"), { recursive: true });
  for (const [name, text] of Object.entries(SCRIPTS)) {
    await Deno.writeTextFile(join(shop.folder, "www", name), text);
  }
  const next = async (from: string, to: string) => {
    await shop.configure((text) => text.replace(`VERSION: ${from}`, `VERSION: ${to}`));
  };

  await chapter(t, "version 1", async () => {
    await shop.must("server", "init");
    await shop.must("deploy");
    assert.match(await shop.page("s1", "/cgi-bin/version"), /v1/);
  });

  await chapter(t, "a redeploy while they are under way", async () => {
    await next("v1", "v2");
    const ended = await shop.underLoad("redeploy during long requests", ["s1"], async () => {
      const streams = beginStreams(shop);
      await streams.begun;
      await shop.must("deploy");
      return await streams.ended;
    });
    assert.match(await shop.page("s1", "/cgi-bin/version"), /v2/);
    for (const kind of ["slow", "upload", "events"] as const) {
      const own = ended.filter((one) => one.kind === kind);
      assert.equal(own.length, COUNT);
      for (const one of own) {
        assert.ok(one.ok, `${kind}: ${one.detail}`);
        if (kind !== "events") assert.match(one.detail ?? "", /by v1\b/, "the old one finished it");
      }
      tell(`${kind}: ${own.map((one) => `${one.detail} after ${one.atMs} ms`).join(", ")}`);
    }
    const sockets = ended.filter((one) => one.kind === "websocket");
    tell(`websocket: ${sockets.map((one) => `${one.detail} after ${one.atMs} ms`).join(", ")}`);
    // kamal-proxy cuts upgraded connections at the switch; docs/deploying.md says what to do.
    assert.ok(sockets.every((one) => one.ok === false && one.atMs < SECONDS * 1_000));
  });

  await chapter(t, "what takes longer than the drain time is ended, and said so", async () => {
    await shop.configure((text) => text.replace("drain_timeout: 40s", "drain_timeout: 2s"));
    await next("v2", "v3");
    const streams = beginStreams(shop);
    await streams.begun;
    await shop.must("deploy");
    const ended = await streams.ended;
    assert.match(await shop.page("s1", "/cgi-bin/version"), /v3/);
    const slow = ended.filter((one) => one.kind === "slow");
    assert.ok(slow.every((one) => one.ok === false && /504/.test(one.detail ?? "")));
    tell(`slow: ${slow.map((one) => `${one.detail} after ${one.atMs} ms`).join(", ")}`);
  });
});
