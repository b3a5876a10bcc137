import assert from "node:assert/strict";
import fc from "fast-check";
import { JijiError } from "@jiji/core";
import {
  chooseRelease,
  parseReleases,
  type ReleaseRecord,
} from "../src/lib/deployment/release_records.ts";
import type { DesiredService } from "../src/types/deployment.ts";

function record(version: string, atMs: number): ReleaseRecord {
  const service: DesiredService = {
    project: "shop",
    service: "web",
    version,
    hosts: ["s1"],
    scale: 1,
    release: { command: ["migrate"], timeoutMs: 1 },
    spec: {
      image: `localhost:31270/shop-web:${version}`,
      command: [],
      published: [],
      volumes: [],
      networkMode: "bridge",
      restart: "unless-stopped",
      devices: [],
      privileged: false,
      capAdd: [],
      labels: {},
      stopGraceSeconds: 10,
    },
    fingerprint: {
      image: "a",
      environment: "b",
      options: "c",
      parts: { environment: {}, options: {} },
    },
    health: { kind: "engine", interval_ms: 1, timeout_ms: 1 },
    healthTimeoutMs: 1,
    routes: [],
    ports: [],
    stopFirst: false,
    drainTimeoutMs: 1,
    retain: 3,
    files: [],
    built: true,
    pull: "always",
  };
  return { format: 1, atMs, service, environment: { KEY: "value" } };
}

Deno.test("parseReleases(): gives back what was written, and passes over what is not a release", () => {
  const one = record("v1", 1);
  const text = `${JSON.stringify(one)}\n{"format":2}\nhalf a li\n\n${JSON.stringify(one)}`;
  assert.deepEqual(parseReleases(text), [one, one]);
});

Deno.test("parseReleases(): a record of an older jiji has one instance and no parts", () => {
  const { scale: _, fingerprint, ...service } = record("v1", 1).service;
  const { parts: __, ...hashes } = fingerprint;
  const old = { ...record("v1", 1), service: { ...service, fingerprint: hashes } };
  assert.deepEqual(parseReleases(JSON.stringify(old)), [record("v1", 1)]);
});

Deno.test("parseReleases(): never throws on what a server sends", () => {
  fc.assert(fc.property(fc.string(), (text) => assert(Array.isArray(parseReleases(text)))));
  fc.assert(fc.property(fc.json(), (text) => assert(Array.isArray(parseReleases(text)))));
});

Deno.test("chooseRelease(): the newest that is not the one running, or the one named", () => {
  const kept = [record("v3", 3), record("v2", 2), record("v1", 1)];
  const choose = (running: string | undefined, to?: string) =>
    chooseRelease(kept, { service: "web", running, to }).service.version;
  assert.equal(choose("v3"), "v2");
  assert.equal(choose("v2"), "v3");
  assert.equal(choose(undefined), "v3");
  assert.equal(choose("v3", "v1"), "v1");
  assert.equal(choose("v3", "v3"), "v3");
});

Deno.test("chooseRelease(): without one, says which are kept and what serves", () => {
  const kept = [record("v2", 2)];
  assert.throws(
    () => chooseRelease(kept, { service: "web", running: "v2", to: "v9" }),
    (error) => {
      assert(error instanceof JijiError);
      assert.match(error.message, /web has no release v9 to go back to/);
      assert.equal(error.hint, "kept are: v2");
      assert.match(error.serving ?? "", /web v2; nothing was changed/);
      return true;
    },
  );
  assert.throws(() => chooseRelease([], { service: "web", running: "v1", to: undefined }));
});
