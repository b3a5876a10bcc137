import assert from "node:assert/strict";
import { findServer, lowerFolders, planNewServers } from "../model.ts";

const slots = {
  "root": "/c/root/1",
  "root-docker": "/c/root-docker/2",
  "root-podman": "/c/root-podman/3",
  "root-docker-current": "/c/root-docker-current/4",
};

Deno.test("lowerFolders(): puts an engine's layer above the bare root", () => {
  assert.equal(lowerFolders("none", slots), "/c/root/1/root");
  assert.equal(lowerFolders("podman", slots), "/c/root-podman/3/diff:/c/root/1/root");
  assert.equal(
    lowerFolders("docker-current", slots),
    "/c/root-docker-current/4/diff:/c/root-docker/2/diff:/c/root/1/root",
  );
});

Deno.test("planNewServers(): adds only servers that are missing, and planning again adds none", () => {
  const first = planNewServers([], { count: 2, engine: "none", slots });
  assert.deepEqual(first.map((server) => server.name), ["s1", "s2"]);
  const more = planNewServers(first, { count: 3, engine: "podman", slots });
  assert.deepEqual(more.map((server) => [server.name, server.engine]), [["s3", "podman"]]);
  const all = [...first, ...more];
  assert.deepEqual(planNewServers(all, { count: 3, engine: "none", slots }), []);
});

Deno.test("findServer(): names the servers there are when it finds none", () => {
  const servers = planNewServers([], { count: 2, engine: "none", slots });
  const lab = { phase: "up", servers, cuts: [], slots } as const;
  assert.equal(findServer(lab, "s2").address, "203.0.113.12");
  assert.throws(() => findServer(lab, "s3"), /it has s1, s2/);
});
