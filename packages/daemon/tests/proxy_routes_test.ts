import assert from "node:assert/strict";
import {
  argvRouteRepair,
  desiredRoutes,
  dwell,
  findRestored,
  type JudgedContainer,
  type ObservedRoutes,
  planRouteRepairs,
} from "../src/proxy_routes.ts";
import { VOUCHED_FLAGS } from "@jiji/core/cluster";
import { container } from "./builders.ts";

function judged(
  one: ReturnType<typeof container>,
  health: JudgedContainer["health"] = "healthy",
): JudgedContainer {
  return { container: one, health };
}

/** A proxy that has this one route, set by a command. */
function route(...targets: string[]): ObservedRoutes {
  return { state: new Map([["casa-web-3000", targets]]), restored: new Set() };
}

const NO_ROUTES: ObservedRoutes = { state: new Map(), restored: new Set() };

Deno.test("desiredRoutes(): the newest healthy container of each instance", () => {
  const routes = desiredRoutes([
    judged(container(1)),
    judged(container(2)),
    judged(container(3), "starting"),
    judged(container(4, { labels: { instance: "s1-2" } })),
  ]);
  assert.deepEqual(routes.map((one) => one.targets), [["10.210.1.3:3000", "10.210.1.5:3000"]]);
});

Deno.test("desiredRoutes(): degraded ones rather than none, and no other service's name", () => {
  assert.equal(desiredRoutes([judged(container(1), "degraded")]).length, 1);
  assert.deepEqual(desiredRoutes([judged(container(1), "unhealthy")]), []);
  const thief = container(1, {
    labels: { service: "evil", proxy: [{ name: "casa-web-3000", app_port: 1, flags: [] }] },
  });
  assert.deepEqual(desiredRoutes([judged(thief)]), []);
});

Deno.test("planRouteRepairs(): a missing route and a dead target are repaired", () => {
  const now = [judged(container(2))];
  assert.deepEqual(planRouteRepairs(now, NO_ROUTES).map((one) => one.cause), [
    "the route is missing",
  ]);
  const [repair] = planRouteRepairs(now, route("10.210.1.99:3000"));
  assert.ok(repair);
  assert.match(repair.cause, /10\.210\.1\.99/);
  assert.equal(
    argvRouteRepair("docker", repair.route).join(" "),
    "docker exec kamal-proxy kamal-proxy deploy casa-web-3000 --target=10.210.1.3:3000 " +
      "--host=casa.example --deploy-timeout=10s",
  );
});

Deno.test("planRouteRepairs(): a deploy in progress is left alone", () => {
  const old = container(1, { name: "casa-web_old_1" });
  const fresh = container(2);
  for (const health of ["starting", "healthy", "unhealthy"] as const) {
    assert.deepEqual(
      planRouteRepairs([judged(old), judged(fresh, health)], route("10.210.1.2:3000")),
      [],
      `the old one still serves while the new one is ${health}`,
    );
  }
  assert.deepEqual(planRouteRepairs([judged(old), judged(fresh)], route("10.210.1.3:3000")), []);
});

Deno.test("planRouteRepairs(): other projects' routes and targets by name are not ours", () => {
  const now = [judged(container(2))];
  const { state } = route("casa-web:3000");
  const foreign = new Map([...state, ["other-app-80", ["10.9.9.9:80"]]]);
  assert.deepEqual(planRouteRepairs(now, { state: foreign, restored: new Set() }), []);
});

Deno.test("planRouteRepairs(): an address that another service has now is dead for this one", () => {
  const other = container(5, { labels: { service: "api", proxy: [] } });
  const now = [judged(container(2)), judged(other)];
  const repairs = planRouteRepairs(now, route("10.210.1.6:3000"));
  assert.equal(repairs.length, 1);
});

Deno.test("dwell(): a repair waits until the fault has lasted", () => {
  const repairs = planRouteRepairs([judged(container(2))], NO_ROUTES);
  const first = dwell(repairs, { since: new Map(), nowMs: 0 });
  assert.deepEqual(first.due, []);
  assert.equal(dwell(repairs, { since: first.since, nowMs: 2_000 }).due.length, 1);
  const mended = dwell([], { since: first.since, nowMs: 1_000 });
  assert.equal(mended.since.size, 0);
});

Deno.test("planRouteRepairs(): a fit instance that is left out comes back, not during a deploy", () => {
  const second = { labels: { instance: "s1-2" } };
  const now = [judged(container(1)), judged(container(2, second))];
  const [repair] = planRouteRepairs(now, route("10.210.1.2:3000"));
  assert.match(repair?.cause ?? "", /10\.210\.1\.3:3000 is left out/);
  assert.ok((repair?.dwellMs ?? 0) > 2_000);
  const replacing = [...now, judged(container(3, { name: "casa-web_old_1764000000000" }))];
  assert.deepEqual(planRouteRepairs(replacing, route("10.210.1.2:3000")), []);
});

Deno.test("desiredRoutes(): a container that is about to go is no target", () => {
  const leaving = container(2, {
    name: "casa-web-2_leaving_1764000000000",
    labels: { instance: "s1-2" },
  });
  const routes = desiredRoutes([judged(container(1)), judged(leaving)]);
  assert.deepEqual(routes.map((one) => one.targets), [["10.210.1.2:3000"]]);
});

/** Two instances of a service whose check kamal-proxy can't make. */
function vouchedPair(health: JudgedContainer["health"] = "healthy"): JudgedContainer[] {
  const proxy = [{ name: "casa-web-3000", app_port: 3000, flags: [...VOUCHED_FLAGS] }];
  return [
    judged(container(1, { labels: { proxy } })),
    judged(container(2, { labels: { proxy, instance: "s1-2" } }), health),
  ];
}
const PAIR = route("10.210.1.2:3000", "10.210.1.3:3000");

Deno.test("planRouteRepairs(): who fails a check that is ours leaves the route, if others are left", () => {
  assert.deepEqual(planRouteRepairs(vouchedPair(), PAIR), []);
  const [repair] = planRouteRepairs(vouchedPair("unhealthy"), PAIR);
  assert.equal(repair?.cause, "10.210.1.3:3000 fails its check");
  assert.deepEqual(repair.route.targets, ["10.210.1.2:3000"]);
  const none = vouchedPair("unhealthy").map((one) => ({ ...one, health: "unhealthy" as const }));
  assert.deepEqual(planRouteRepairs(none, PAIR), [], "a bad answer is better than none");
  const byHttp = [judged(container(1)), judged(container(2), "unhealthy")];
  assert.deepEqual(planRouteRepairs(byHttp, PAIR), [], "kamal-proxy sees to those itself");
});

Deno.test("planRouteRepairs(): what kamal-proxy put back without a voucher is set at once", () => {
  const restored = new Set(["casa-web-3000"]);
  const [repair] = planRouteRepairs(vouchedPair(), { ...PAIR, restored });
  assert.equal(repair?.dwellMs, 0);
  assert.deepEqual(repair.route.targets, ["10.210.1.2:3000", "10.210.1.3:3000"]);
  const deploying = [...vouchedPair(), judged(container(3, { name: "casa-web_old_1764" }))];
  assert.deepEqual(planRouteRepairs(deploying, { ...PAIR, restored }), []);
});

Deno.test("findRestored(): vouched routes all of whose targets are older than the proxy's start", () => {
  const containers = vouchedPair().map((one) => one.container);
  const found = (proxyStartedAtMs: number, { state } = PAIR) => [
    ...findRestored(containers, { state, proxyStartedAtMs }),
  ];
  assert.deepEqual(found(3_000), ["casa-web-3000"]);
  assert.deepEqual(found(1_500), [], "one of them was made after it, so that the route was set");
  assert.deepEqual(found(3_000, NO_ROUTES), []);
  const byHttp = [container(1), container(2)];
  assert.deepEqual([...findRestored(byHttp, { ...PAIR, proxyStartedAtMs: 3_000 })], []);
});
