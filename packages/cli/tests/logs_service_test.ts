import assert from "node:assert/strict";
import { argvLogsOf, parseLogLine } from "../src/lib/services/logs_service.ts";

Deno.test("argvLogsOf(): a hundred lines unless a time, a pattern or a number is given", () => {
  const of = (wish: Parameters<typeof argvLogsOf>[2]) =>
    argvLogsOf("docker", "shop-web", wish).join(" ");
  assert.equal(of({}), "docker logs --timestamps --tail 100 shop-web");
  assert.equal(of({ since: "10m" }), "docker logs --timestamps --since 10m shop-web");
  assert.equal(of({ grep: "x" }), "docker logs --timestamps shop-web");
  assert.equal(
    of({ lines: "5", since: "1h" }),
    "docker logs --timestamps --since 1h --tail 5 shop-web",
  );
  assert.equal(
    of({ follow: true, lines: "0" }),
    "docker logs --timestamps --follow --tail 0 shop-web",
  );
});

Deno.test("argvLogsOf(): a container's name or a time is one argument, whatever is in it", () => {
  const argv = argvLogsOf("podman", "a; rm -rf /", { since: "$(reboot)" });
  assert.deepEqual(argv, ["podman", "logs", "--timestamps", "--since", "$(reboot)", "a; rm -rf /"]);
});

Deno.test("parseLogLine(): takes the engine's time off, and leaves other lines whole", () => {
  assert.deepEqual(parseLogLine("2026-11-23T02:54:46.696262349Z GET /up", "s1 web"), {
    time: "2026-11-23T02:54:46.696262349Z",
    source: "s1 web",
    text: "GET /up",
  });
  assert.deepEqual(parseLogLine("2026-11-23T02:54:46Z", "s1 web").text, "");
  assert.deepEqual(parseLogLine("Error: no such container", "s1 web"), {
    time: "",
    source: "s1 web",
    text: "Error: no such container",
  });
});
