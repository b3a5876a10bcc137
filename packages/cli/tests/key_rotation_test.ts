import assert from "node:assert/strict";
import type { ServerStatus } from "@jiji/core";
import {
  NEXT_KEY_SCRIPT,
  openChange,
  planRotation,
  renderKeyStep,
} from "../src/lib/network/key_rotation.ts";

function row(id: string, facts: { key?: string; next?: string; accepts?: string[] } = {}) {
  const { key = `key-of-${id}`, next, accepts } = facts;
  return {
    id,
    hostname: id,
    subnet: "10.210.1.0/24",
    wireguardIp: "10.210.1.1",
    wireguardPubkey: key,
    managementIp: "fdcc::1",
    endpoints: [],
    lastSeenMs: 1,
    removedAtMs: null,
    doc: {
      version: "1.0.0",
      ...(next === undefined ? {} : { next_key: next }),
      ...(accepts === undefined ? {} : { accepts }),
    },
  };
}

function status(id: string | null, changes: Partial<ServerStatus> = {}): ServerStatus {
  return {
    format: 1,
    version: "1",
    server_id: id,
    generated_at_ms: 1,
    servers: [row("s1"), row("s2"), row("s3")],
    containers: [],
    peers: [],
    liveness: { format: 1, written_at_ms: 1, silent: [], rtt_ms: {} },
    units: { "jiji-corrosion.service": "active" },
    problems: [],
    ...changes,
  };
}

Deno.test("planRotation(): what is under way comes first, then by name", () => {
  const servers = [row("s1"), row("s2", { next: "new" }), row("s3")];
  const plan = planRotation(
    new Map(["s3", "s2", "s1"].map((id) => [id, status(id, { servers })])),
  );
  assert.deepEqual(plan.refusals, []);
  assert.deepEqual(plan.steps.map(renderKeyStep), [
    "s2: finish the change of key-of-s… that is under way",
    "s1: new WireGuard key in place of key-of-s…; identity and Corrosion follow",
    "s3: new WireGuard key in place of key-of-s…; identity and Corrosion follow",
  ]);
});

Deno.test("planRotation(): a member that could not learn of the key keeps it from being announced", () => {
  const silent = { format: 1 as const, written_at_ms: 1, silent: ["s3"], rtt_ms: {} };
  const refusals = (one: ServerStatus) => planRotation(new Map([["s1", one]])).refusals;
  assert.match(refusals(status("s1", { liveness: silent })).join(), /s3 does not answer s1/);
  const old = [row("s1"), { ...row("s2"), doc: {} }];
  assert.match(refusals(status("s1", { servers: old })).join(), /s2 runs a jiji-daemon that knows/);
  assert.match(refusals(status("s1", { servers: null })).join(), /corrosion does not answer/);
  assert.match(refusals(status(null)).join(), /not a member/);
});

Deno.test("openChange(): tells who is waited for, from the announcement to the last link", () => {
  const open = (one: ServerStatus | undefined, other: ServerStatus = status("s2")) =>
    openChange({ server: "s1" }, {
      nextKey: "new",
      statuses: new Map([...(one ? [["s1", one] as const] : []), ["s2", other]]),
    }).join("; ");
  assert.match(open(undefined), /s1 does not answer/);
  assert.equal(open(status("s1")), "announcing");
  const announced = [row("s1", { next: "new" }), row("s2", { accepts: ["new"] }), row("s3")];
  assert.match(open(status("s1", { servers: announced })), /waiting for s3 to know the key/);
  announced[2] = row("s3", { accepts: ["new"] });
  assert.equal(open(status("s1", { servers: announced })), "changing over");
  assert.equal(open(status("s1", { servers: null })), "corrosion returns");
  const changed = [row("s1", { key: "new" }), row("s2"), row("s3")];
  assert.equal(open(status("s1", { servers: changed })), "s2: state");
  const there = status("s2", { servers: changed });
  const deaf = { format: 1 as const, written_at_ms: 1, silent: ["s2"], rtt_ms: {} };
  assert.equal(open(status("s1", { servers: changed, liveness: deaf }), there), "hearing s2");
  assert.equal(open(status("s1", { servers: changed }), there), "");
});

Deno.test("NEXT_KEY_SCRIPT: makes a key once, readable for root alone, and never prints it", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(
    `${folder}/wg`,
    '#!/bin/sh\n[ "$1" = genkey ] && echo secret$$ && exit\nsed s/secret/public/\n',
    {
      mode: 0o755,
    },
  );
  const script = NEXT_KEY_SCRIPT.replaceAll("/etc/jiji", folder);
  const run = async (kind: string) => {
    const child = new Deno.Command("sh", {
      args: ["-s", "--", kind],
      env: { PATH: `${folder}:${Deno.env.get("PATH")}` },
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(script));
    await writer.close();
    return new TextDecoder().decode((await child.output()).stdout).trim();
  };
  const first = await run("change");
  assert.match(first, /^public\d+$/);
  assert.equal(await run("change"), first, "a run that was killed is taken up");
  const { mode } = await Deno.stat(`${folder}/wireguard.key.next`);
  assert.equal((mode ?? 0) & 0o777, 0o600);
  await Deno.rename(`${folder}/wireguard.key.next`, `${folder}/wireguard.key`);
  assert.equal(await run("finish"), first, "done meanwhile: the present key is the new one");
  await Deno.remove(folder, { recursive: true });
});
