import assert from "node:assert/strict";
import {
  networkSpec,
  parseNetwork,
  planNetwork,
  renderNetavarkNetwork,
} from "../src/engine/container_network.ts";
import { argvDockerNetworkCreate } from "../src/engine/argv.ts";
import { serverConfig } from "./builders.ts";

const SPEC = networkSpec(serverConfig(1));

const DOCKER = JSON.stringify([{
  Name: "jiji-net",
  IPAM: { Config: [{ Subnet: "10.210.1.0/24", Gateway: "10.210.1.1" }] },
  Options: { "com.docker.network.bridge.name": "jiji-br0" },
}]);

Deno.test("argvDockerNetworkCreate(): the exact words", () => {
  assert.equal(
    argvDockerNetworkCreate(SPEC).join(" "),
    "docker network create --driver bridge --subnet 10.210.1.0/24 --gateway 10.210.1.1 " +
      "--opt com.docker.network.bridge.name=jiji-br0 " +
      "--opt com.docker.network.bridge.trusted_host_interfaces=jiji0 jiji-net",
  );
});

Deno.test("planNetwork(): keeps the network it would make, of either engine", () => {
  assert.deepEqual(planNetwork(SPEC, parseNetwork(DOCKER)), { kind: "keep" });
  const podman = `[${renderNetavarkNetwork(SPEC, { id: "a".repeat(64), createdAtMs: 0 })}]`;
  assert.deepEqual(planNetwork(SPEC, parseNetwork(podman)), { kind: "keep" });
});

Deno.test("planNetwork(): makes a missing one, replaces a wrong one with the reason", () => {
  assert.equal(planNetwork(SPEC, undefined).kind, "create");
  const wrong = parseNetwork(DOCKER.replaceAll("10.210.1.", "10.9.1."));
  const plan = planNetwork(SPEC, wrong);
  assert.ok(plan.kind === "replace" && plan.cause.includes("10.9.1.0/24"));
  const unnamed = parseNetwork(DOCKER.replace("jiji-br0", "br-123"));
  assert.equal(planNetwork(SPEC, unnamed).kind, "replace");
});

Deno.test("parseNetwork(): anything else is no network", () => {
  for (const text of ["", "[]", "{}", "[1]", "null"]) assert.equal(parseNetwork(text), undefined);
});
