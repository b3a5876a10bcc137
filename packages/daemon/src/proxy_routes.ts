/**
 * Which routes the server's kamal-proxy must have, and which are broken. Pure. A deploy in progress
 * is never fought: a route whose targets are running containers of its service is left alone.
 */
import {
  isLeavingName,
  isVouched,
  newestPerInstance,
  PROXY_CONTAINER,
  type ProxyState,
  serviceLabel,
} from "@jiji/core/cluster";
import type { HealthStatus } from "@jiji/core/corrosion";
import { parseIpv4 } from "@jiji/core/net";
import type { Argv } from "@jiji/core/runtime";
import { argvProxyExec, type Engine } from "./engine/argv.ts";
import type { ObservedContainer } from "./engine/containers.ts";

/** A repair waits for the new target's health no longer than this; kamal-proxy's own default is 30 s. */
export const REPAIR_DEPLOY_TIMEOUT = "10s";
/** A route must be broken for this long, milliseconds: a command may be in the middle of its work. */
export const REPAIR_DWELL_MS = 2_000;
/** A fit instance must be left out of its route for this long: a deploy adds its own by itself. */
export const ADD_DWELL_MS = 10_000;

/** A container with the health the daemon found. */
export interface JudgedContainer {
  readonly container: ObservedContainer;
  readonly health: HealthStatus;
}

/** A route that must exist. */
export interface DesiredRoute {
  readonly name: string;
  /** `{project}/{service}`. */
  readonly service: string;
  /** `ip:port`, sorted. */
  readonly targets: readonly string[];
  readonly flags: readonly string[];
}

/** Routes that the labels of the fit containers ask for: healthy ones, degraded where none is. */
export function desiredRoutes(judged: readonly JudgedContainer[]): DesiredRoute[] {
  const contenders = judged.flatMap(({ container, health }) => {
    const { labels, ip } = container;
    if (!labels || !container.running || ip === undefined) return [];
    if (isLeavingName(container.name)) return [];
    const { project, service, instance } = labels;
    const startedAtMs = container.createdAtMs;
    return [{
      ...{ id: container.id, project, service, serverId: "", instance, startedAtMs },
      ...{ labels, ip, health },
    }];
  });
  const routes = new Map<string, DesiredRoute & { readonly newestMs: number }>();
  for (const service of new Set(contenders.map(serviceKey))) {
    const own = contenders.filter((one) => serviceKey(one) === service);
    const healthy = own.filter((one) => one.health === "healthy");
    const fit = healthy.length > 0 ? healthy : own.filter((one) => one.health === "degraded");
    for (const one of newestPerInstance(fit)) {
      for (const route of one.labels.proxy) {
        // A label cannot claim the name of another service's route.
        if (!route.name.startsWith(`${serviceLabel(one)}-`)) continue;
        const known = routes.get(route.name);
        if (known && known.service !== service) continue;
        const newest = !known || one.startedAtMs > known.newestMs;
        const targets = [...(known?.targets ?? []), `${one.ip}:${route.app_port}`];
        routes.set(route.name, {
          name: route.name,
          service,
          targets: [...new Set(targets)].sort(),
          flags: newest ? route.flags : known.flags,
          newestMs: newest ? one.startedAtMs : known.newestMs,
        });
      }
    }
  }
  return [...routes.values()].map(({ newestMs: _, ...route }) => route)
    .sort((a, b) => a.name < b.name ? -1 : 1);
}

function serviceKey(one: { readonly project: string; readonly service: string }): string {
  return `${one.project}/${one.service}`;
}

/** A route to set again. */
export interface RouteRepair {
  readonly route: DesiredRoute;
  readonly cause: string;
  /** How long it must have been due, milliseconds. */
  readonly dwellMs: number;
}

/** What is known of the routes that kamal-proxy has. */
export interface ObservedRoutes {
  readonly state: ProxyState;
  /** Names of those that it may have put back by itself; see {@link findRestored}. */
  readonly restored: ReadonlySet<string>;
}

/**
 * Routes that are missing, that lead to an address where no running container of their service is,
 * or that leave out an instance which is fit again. Of vouched routes kamal-proxy can't check the
 * targets: those too that lead to an instance which fails its check while another does not, and
 * those that it put back by itself. Targets that are not addresses were set by someone else's hand
 * and are left alone, and so are routes that no label asks for.
 */
export function planRouteRepairs(
  judged: readonly JudgedContainer[],
  observed: ObservedRoutes,
): RouteRepair[] {
  return desiredRoutes(judged).flatMap((route) => {
    const targets = observed.state.get(route.name) ?? [];
    if (targets.length === 0) {
      return [{ route, cause: "the route is missing", dwellMs: REPAIR_DWELL_MS }];
    }
    const own = new Map(judged.flatMap(({ container, health }) => {
      const { labels, ip, running } = container;
      const isOwn = running && labels && serviceKey(labels) === route.service;
      return isOwn && ip !== undefined ? [[ip, health] as const] : [];
    }));
    const dead = targets.filter((target) => {
      const host = hostOf(target);
      return parseIpv4(host) !== undefined && !own.has(host);
    });
    if (dead.length > 0) {
      const cause = `nothing runs at ${dead.join(", ")}`;
      return [{ route, cause, dwellMs: REPAIR_DWELL_MS }];
    }
    const ours = targets.every((target) => own.has(hostOf(target)));
    if (!ours || isBeingReplaced(route, judged)) return [];
    const failing = targets.filter((target) => own.get(hostOf(target)) === "unhealthy");
    if (isVouched(route) && failing.length > 0) {
      const cause = `${failing.join(", ")} fails its check`;
      return [{ route, cause, dwellMs: REPAIR_DWELL_MS }];
    }
    if (observed.restored.has(route.name)) {
      return [{ route, cause: "kamal-proxy was started anew and can't check it", dwellMs: 0 }];
    }
    const left = route.targets.filter((target) => !targets.includes(target));
    if (left.length === 0) return [];
    return [{ route, cause: `${left.join(", ")} is left out`, dwellMs: ADD_DWELL_MS }];
  });
}

/**
 * Vouched routes that kamal-proxy may have put back by itself when it was started: all their targets
 * are older than its start. It makes its check of each at once, and where nobody vouches that fails: of
 * several targets all are left out then, until the route is set anew; a single one is kept, unless
 * the answer comes in the very moment. Source: kamal-proxy 0.9.2, `service.go`, `UnmarshalJSON`.
 */
export function findRestored(
  containers: readonly ObservedContainer[],
  o: { readonly state: ProxyState; readonly proxyStartedAtMs: number },
): Set<string> {
  const madeAtMs = new Map(containers.map((one) => [one.ip, one.createdAtMs]));
  const vouched = new Set(
    containers.flatMap((one) => one.labels?.proxy ?? []).filter(isVouched).map(({ name }) => name),
  );
  return new Set(
    [...o.state].filter(([name, targets]) =>
      vouched.has(name) &&
      targets.every((target) => (madeAtMs.get(hostOf(target)) ?? 0) < o.proxyStartedAtMs)
    ).map(([name]) => name),
  );
}

/** Address in `ip:port`. */
function hostOf(target: string): string {
  return target.split(":")[0] ?? "";
}

/** Whether a deploy of the route's service is under way: an old container waits beside the new. */
function isBeingReplaced(route: DesiredRoute, judged: readonly JudgedContainer[]): boolean {
  return judged.some(({ container }) =>
    container.labels !== undefined && serviceKey(container.labels) === route.service &&
    /_(old|leaving)_\d+$/.test(container.name)
  );
}

/** Repairs that have been due long enough, and since when each of the others has been due. */
export function dwell(
  repairs: readonly RouteRepair[],
  o: { readonly since: ReadonlyMap<string, number>; readonly nowMs: number },
): { readonly due: readonly RouteRepair[]; readonly since: ReadonlyMap<string, number> } {
  const since = new Map(
    repairs.map(({ route }) => [route.name, o.since.get(route.name) ?? o.nowMs]),
  );
  const due = repairs.filter(({ route, dwellMs }) =>
    o.nowMs - (since.get(route.name) ?? o.nowMs) >= dwellMs
  );
  return { due, since };
}

/** The command that sets a route. Source: kamal-proxy 0.9.2, `kamal-proxy deploy --help`. */
export function argvRouteRepair(engine: Engine, route: DesiredRoute): Argv {
  return argvProxyExec(engine, {
    container: PROXY_CONTAINER,
    args: [
      "deploy",
      route.name,
      ...route.targets.map((target) => `--target=${target}`),
      ...route.flags.filter((flag) => !flag.startsWith("--deploy-timeout")),
      `--deploy-timeout=${REPAIR_DEPLOY_TIMEOUT}`,
    ],
  });
}
