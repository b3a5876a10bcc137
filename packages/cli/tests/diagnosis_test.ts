import assert from "node:assert/strict";
import type { ProbeReport } from "@jiji/core";
import { renderProbeReport, wrapText } from "../src/lib/output/probe_report_text.ts";
import { diagnose, type DiagnosisFacts } from "../src/lib/health/diagnosis.ts";
import { gateError, UnhealthyContainerError } from "../src/lib/health/health_gate.ts";
import { desiredOf } from "./deployment_fixture.ts";
import { MockCluster } from "./mock_server_state.ts";
import { MockSSHManager } from "./mocks.ts";

const FACTS: DiagnosisFacts = { timeoutMs: 30_000, environmentNames: ["PORT"], memory: "64m" };

/** A container that runs, whose check by HTTP on port 3000 was refused, and what differs. */
function report(facts: {
  readonly outcome?: string;
  readonly log?: string;
  readonly state?: Partial<ProbeReport["state"]>;
  readonly status?: number;
  readonly headers?: Record<string, string>;
  readonly body?: string;
  readonly check?: ProbeReport["check"];
  readonly listening?: ProbeReport["listening"];
  readonly goodPaths?: string[];
}): ProbeReport {
  const { status } = facts;
  return {
    healthy: false,
    tries: [{
      at_ms: 1,
      outcome: facts.outcome ??
        `GET :3000/up → ${status ?? "Connection refused (os error 111)"}`,
    }],
    state: { running: true, exit_code: null, oom_killed: false, restarts: 0, ...facts.state },
    logs_tail: facts.log ?? "",
    check: facts.check ?? { kind: "http", port: 3000, path: "/up", host: "shop.example.com" },
    answer: status === undefined
      ? null
      : { status, headers: facts.headers ?? {}, body: facts.body ?? "" },
    good_paths: facts.goodPaths ?? [],
    listening: facts.listening === undefined ? null : facts.listening,
  };
}

const ended = (exitCode: number) => ({ running: false, exit_code: exitCode });

const CASES: readonly [name: string, report: ProbeReport, kind: string, text: RegExp][] = [
  [
    "another port",
    report({ listening: [{ ip: "0.0.0.0", port: 8080 }] }),
    "wrong_port",
    /listens on 8080, not on 3000.*write 8080 in `ports` and `app_port`/,
  ],
  [
    "loopback only",
    report({ listening: [{ ip: "127.0.0.1", port: 3000 }] }),
    "loopback_only",
    /127\.0\.0\.1:3000 only.*0\.0\.0\.0:3000/,
  ],
  [
    "loopback of IPv6 beside another port",
    report({ listening: [{ ip: "::1", port: 3000 }, { ip: "::", port: 9 }] }),
    "loopback_only",
    /::1:3000 only/,
  ],
  ["nothing listens yet", report({ listening: [] }), "slow_start", /after 30 s.*deploy_timeout/],
  [
    "nothing listens, the log says what is missing",
    report({ listening: [], log: "Error: connect ECONNREFUSED 10.0.0.1:5432\nretrying" }),
    "dependency",
    /ECONNREFUSED 10\.0\.0\.1:5432.*network dns/,
  ],
  [
    "no HTTP on the port",
    report({ outcome: "GET :3000/up → no HTTP answer", listening: [{ ip: "::", port: 3000 }] }),
    "not_http",
    /does not speak plain HTTP/,
  ],
  [
    "no answer in time",
    report({
      outcome: "GET :3000/up → no answer in 5000 ms",
      listening: [{ ip: "::", port: 3000 }],
    }),
    "slow_answer",
    /does not answer in time/,
  ],
  [
    "wrong path",
    report({ status: 404, goodPaths: ["/health", "/"] }),
    "wrong_path",
    /nothing at \/up \(404\).*2xx: \/health, \/;/,
  ],
  ["wrong path, no other", report({ status: 404 }), "wrong_path", /one that answers with 2xx/],
  [
    "to HTTPS",
    report({ status: 301, headers: { location: "https://shop.example.com/up" } }),
    "redirect_https",
    /redirects plain HTTP to HTTPS \(301/,
  ],
  ["elsewhere", report({ status: 302, headers: { location: "/start" } }), "redirect", /\/start/],
  [
    "to the login",
    report({ status: 302, headers: { location: "/users/sign_in" } }),
    "login",
    /302/,
  ],
  ["login", report({ status: 401 }), "login", /asks for a login \(401\)/],
  [
    "host of Django",
    report({ status: 400, log: "Invalid HTTP_HOST header: 'shop.example.com'" }),
    "host_refused",
    /it refuses Host: shop\.example\.com \(400\).*add shop\.example\.com/,
  ],
  [
    "host of Rails",
    report({ status: 403, body: "<h1>Blocked hosts: shop.example.com</h1>" }),
    "host_refused",
    /it refuses/,
  ],
  [
    "host without a name",
    report({ status: 400, check: { kind: "http", port: 3000, path: "/up" } }),
    "host_refused",
    /may refuse the container's address/,
  ],
  [
    "server error",
    report({ status: 500, log: "boot\nPG::Error: relation missing\nGET /up 500" }),
    "server_error",
    /with 500; its log says: PG::Error/,
  ],
  ["odd status", report({ status: 418 }), "status", /answers with 418/],
  [
    "memory",
    report({ state: { ...ended(137), oom_killed: true } }),
    "out_of_memory",
    /limit of 64m.*raise `memory`/,
  ],
  [
    "processor",
    report({ state: ended(1), log: "exec /app: exec format error" }),
    "architecture",
    /another kind of processor/,
  ],
  [
    "processor, in the engine's words",
    report({ state: { ...ended(255), error: "exec /app: exec format error" } }),
    "architecture",
    /processor/,
  ],
  ["no command", report({ state: ended(127) }), "command_missing", /exit 127/],
  ["no program", report({ state: ended(126) }), "command_not_executable", /exit 126/],
  ["killed", report({ state: ended(137) }), "killed", /SIGKILL/],
  ["memory fault", report({ state: ended(139) }), "segfault", /SIGSEGV/],
  ["done", report({ state: ended(0) }), "ended", /stay in the foreground/],
  [
    "a variable in a sentence",
    report({ state: ended(1), log: "Error: DATABASE_URL is not set\nbye" }),
    "missing_variable",
    /misses the variable DATABASE_URL/,
  ],
  [
    "a variable of Python",
    report({ state: ended(1), log: "KeyError: 'SECRET_KEY'" }),
    "missing_variable",
    /SECRET_KEY/,
  ],
  [
    "a variable of the shell",
    report({ state: ended(2), log: "/run.sh: line 3: API_TOKEN: unbound variable" }),
    "missing_variable",
    /API_TOKEN/,
  ],
  [
    "a variable that is there is no cause",
    report({ state: ended(1), log: "PORT is not set" }),
    "crash",
    /exit code 1: PORT is not set/,
  ],
  [
    "permission",
    report({ state: ended(1), log: "open /data/db: permission denied" }),
    "permission",
    /open \/data\/db/,
  ],
  [
    "port taken",
    report({ state: ended(1), log: "bind: address already in use" }),
    "address_in_use",
    /taken/,
  ],
  [
    "again and again",
    report({ state: { running: true, restarts: 3 }, log: "no config\n" }),
    "crash",
    /ends at once: no config/,
  ],
  [
    "command that fails",
    report({
      check: { kind: "command", command: "test -f /ready" },
      outcome: "run test -f /ready → 1: not ready",
    }),
    "check_command",
    /→ 1: not ready.*services exec -- test -f \/ready/,
  ],
  [
    "command that is not there",
    report({ check: { kind: "command", command: "curl" }, outcome: "run curl → 127: not found" }),
    "check_command",
    /not in the image/,
  ],
  [
    "the image's check",
    report({ check: { kind: "engine" }, outcome: "HEALTHCHECK → unhealthy" }),
    "image_healthcheck",
    /own HEALTHCHECK/,
  ],
];

for (const [name, found, kind, text] of CASES) {
  Deno.test(`diagnose(): ${name}`, () => {
    const diagnosis = diagnose(found, FACTS);
    assert.equal(diagnosis?.kind, kind);
    assert.match(`${diagnosis.cause} ${diagnosis.advice}`, text);
    for (const line of renderProbeReport(found, diagnosis).split("\n")) {
      assert.ok(line.length <= 80, line);
    }
  });
}

Deno.test("diagnose(): a report of an older server gives no guess", () => {
  const { check: _, answer: __, good_paths: ___, listening: ____, ...old } = report({});
  assert.equal(diagnose(old, FACTS), undefined);
  assert.match(renderProbeReport(old, undefined), /^ {2}Probe {9}GET :3000\/up/);
});

Deno.test("diagnose(): any log gives a cause or none, never an error", () => {
  for (const log of ["\u0000", "(".repeat(5_000), "A".repeat(8_000), "\n\n", "KeyError: ''"]) {
    for (const state of [ended(1), { running: true }]) {
      const found = report({ log, state });
      assert.doesNotThrow(() => renderProbeReport(found, diagnose(found, FACTS)));
    }
  }
});

Deno.test("wrapText(): cuts between words, then within them, and keeps what is indented", () => {
  assert.deepEqual(wrapText("one two three", 7), ["one two", "three"]);
  assert.deepEqual(wrapText("abcdefgh", 3), ["abc", "def", "gh"]);
  assert.deepEqual(wrapText("   at x y", 8), ["   at x", "   y"]);
  assert.deepEqual(wrapText("", 10), [""]);
});

Deno.test("renderProbeReport(): the whole evidence at 80 columns", async (t) => {
  const log = Array.from({ length: 30 }, (_, index) => `line ${index + 1} ${"word ".repeat(20)}`);
  const found = report({
    status: 301,
    headers: { location: "https://shop.example.com/up", server: "puma" },
    log: log.join("\n"),
    listening: [{ ip: "0.0.0.0", port: 3000 }, { ip: "::1", port: 9229 }],
  });
  const text = renderProbeReport(found, diagnose(found, FACTS));
  assert.ok(text.includes("line 30"), "all lines are shown");
  await t.assertSnapshot(text.split("\n").slice(0, 14).join("\n"));
});

Deno.test("gateError(): secrets of the service are hidden, also where a line is wrapped", async () => {
  using cluster = new MockCluster(["s1"]);
  const secret = "correct-horse-battery-staple-0123456789-abcdefghijklmnopqrstuvwxyz-9876543210";
  const { desired, environments } = await desiredOf(cluster, {
    services: "  web: {image: 'nginx:1', hosts: [s1], environment: {secrets: [TOKEN]}}\n",
    secrets: { TOKEN: secret },
  });
  const found = report({
    status: 500,
    body: secret,
    headers: { location: `/x?token=${secret}` },
    log: `Error with a long line in front of what is secret: ${secret}`,
    outcome: `GET :3000/up?${secret} → 500`,
  });
  const error = gateError(new MockSSHManager(cluster.servers.get("s1")!), {
    name: "shop-web",
    timeoutMs: 30_000,
    result: {
      exitCode: 3,
      signal: undefined,
      stdout: JSON.stringify(found),
      stderr: "",
      durationMs: 1,
    },
    service: desired[0]!,
    environment: environments.get("web")!,
  });
  assert.ok(error instanceof UnhealthyContainerError);
  assert.match(error.message, /^shop-web on s1 did not get healthy in 30 s\n {2}Probably/);
  const shown = error.message + JSON.stringify([error.report, error.diagnosis]);
  for (const part of ["correct-horse", "abcdefghij", "9876543210"]) {
    assert.ok(!shown.includes(part), `${part} is shown`);
  }
});
