import {
  allocateContainerAddress,
  containerName,
  oldContainerName,
  parseCidr,
  PROXY_CONTAINER,
  proxyAddress,
  serverAddress,
  serviceLabel,
} from "@jiji/core";
import type {
  DeploymentPlan,
  DeployStep,
  DesiredService,
  Fingerprint,
  InstancePlan,
  ObservedHost,
} from "../../types/deployment.ts";
import { argvRun, isOnJijiNetwork } from "../engine/container_run.ts";
import type { ObservedContainer } from "../engine/inspect.ts";
import { recoverInstance, type Recovery } from "./instance_recovery.ts";

/** What a plan depends on beside wish and observation. */
export interface PlanOptions {
  /** Unix ms; names old containers. */
  readonly nowMs: number;
  /** Id of this deploy; goes into labels. */
  readonly deployment: string;
  /** Replace even what is as it should be. */
  readonly force: boolean;
  /** Folder on the servers for environment files; gone after a reboot. */
  readonly envFolder: string;
}

/** Text of a fingerprint in a container's label. */
export function renderFingerprint(fingerprint: Fingerprint): string {
  return `i=${fingerprint.image},e=${fingerprint.environment},o=${fingerprint.options}`;
}

/**
 * Decides what happens to every service on every observed server. Pure: the same wish and
 * observation give the same plan, and planning after it was carried out gives nothing to do.
 */
export function planDeployment(
  services: readonly DesiredService[],
  hosts: ReadonlyMap<string, ObservedHost>,
  options: PlanOptions,
): DeploymentPlan {
  const addresses = new Map([...hosts].map(([name, host]) => [name, takenAddresses(host)]));
  const proxies = new Set(
    [...hosts.values()].filter(isProxyRunning).map((host) => host.name),
  );
  return {
    deployment: options.deployment,
    services: services.map((service) => ({
      service,
      instances: [...service.hosts].sort().flatMap((name) => {
        const host = hosts.get(name);
        if (!host) return [];
        const plan = planInstance(service, host, {
          ...options,
          taken: addresses.get(name)!,
          proxyRuns: proxies.has(name),
        });
        if (plan.prepare.some((step) => step.kind === "installProxy")) proxies.add(name);
        return [plan];
      }),
    })),
  };
}

function takenAddresses(host: ObservedHost): Set<string> {
  const texts = host.containers.flatMap((container) => [
    container.address,
    container.labels?.address ?? "",
  ]);
  return new Set(texts.filter(Boolean));
}

function isProxyRunning(host: ObservedHost): boolean {
  return host.containers.some((container) =>
    container.name === PROXY_CONTAINER && container.running
  );
}

interface InstanceOptions extends PlanOptions {
  /** Addresses given out on this server; the new one is added. */
  readonly taken: Set<string>;
  readonly proxyRuns: boolean;
}

function planInstance(
  service: DesiredService,
  host: ObservedHost,
  options: InstanceOptions,
): InstancePlan {
  const name = containerName(service);
  const recovery = recoverInstance(name, host.containers, host.proxyState);
  const prepare: DeployStep[] = service.routes.length > 0 && !options.proxyRuns
    ? [{ kind: "installProxy", address: proxyAddress(parseCidr(host.config.block)!) }]
    : [];
  const causes = replacementCauses(service, recovery, options);
  const base = {
    service: service.service,
    host: host.name,
    recover: recovery.steps,
    before: recovery.current?.labels?.version,
  };
  if (causes.length > 0 || !recovery.current) {
    return replacement({ service, host, recovery, options, base, prepare, causes });
  }
  const routes = missingRoutes(service, host, recovery.current);
  const recoverCause = recovery.cause === undefined ? [] : [recovery.cause];
  return {
    ...base,
    action: routes.length > 0 ? "route" : "as is",
    causes: [...recoverCause, ...(routes.length > 0 ? ["proxy does not lead to it"] : [])],
    prepare: routes.length > 0 ? prepare : [],
    start: [],
    switch: routes,
    expect: [],
    retire: [],
    undo: [],
  };
}

/** Why the container has to be replaced; empty when it may stay. */
function replacementCauses(
  service: DesiredService,
  recovery: Recovery,
  options: PlanOptions,
): string[] {
  const { current } = recovery;
  if (!current) return ["not there yet"];
  const causes: string[] = [];
  const there = parseFingerprint(current.labels?.config ?? "");
  const wanted = service.fingerprint;
  if (there.image !== wanted.image) {
    causes.push(`image ${current.labels?.version || "unknown"} → ${service.version}`);
  }
  if (there.environment !== wanted.environment) causes.push("environment changed");
  if (there.options !== wanted.options) causes.push("options changed");
  if (!current.running) causes.push(`container is ${current.status}`);
  if (causes.length === 0 && options.force) causes.push("forced");
  return causes;
}

function parseFingerprint(text: string): Partial<Fingerprint> {
  const match = /^i=([a-f0-9]+),e=([a-f0-9]+),o=([a-f0-9]+)$/.exec(text);
  return match ? { image: match[1]!, environment: match[2]!, options: match[3]! } : {};
}

function missingRoutes(
  service: DesiredService,
  host: ObservedHost,
  current: ObservedContainer,
): DeployStep[] {
  return service.routes
    .filter((route) => {
      const targets = host.proxyState?.get(route.name) ?? [];
      return !isProxyRunning(host) ||
        !targets.includes(`${current.labels?.address || current.address}:${route.app_port}`);
    })
    .map((route) => ({
      kind: "routeProxy",
      route,
      targets: [`${current.labels?.address || current.address}:${route.app_port}`],
      drainTimeoutMs: service.drainTimeoutMs,
    }));
}

interface Replacing {
  readonly service: DesiredService;
  readonly host: ObservedHost;
  readonly recovery: Recovery;
  readonly options: InstanceOptions;
  readonly base: Pick<InstancePlan, "service" | "host" | "recover" | "before">;
  readonly prepare: readonly DeployStep[];
  readonly causes: readonly string[];
}

function replacement(replacing: Replacing): InstancePlan {
  const { service, host, recovery, options } = replacing;
  const name = containerName(service);
  const old = recovery.current;
  const oldName = oldContainerName(name, options.nowMs);
  const networked = isOnJijiNetwork(service.spec.networkMode);
  const address = networked
    ? allocateContainerAddress(parseCidr(host.config.block)!, options.taken)
    : "";
  if (address) options.taken.add(address);
  const routes = routeSteps(service, address);
  return {
    ...replacing.base,
    action: old ? "replace" : "create",
    causes: [...(recovery.cause === undefined ? [] : [recovery.cause]), ...replacing.causes],
    prepare: [...replacing.prepare, ...imageSteps(service)],
    start: startSteps(replacing, { name, oldName, address }),
    switch: routes,
    expect: networked ? [expectation(service, host, { address, old })] : [],
    retire: old ? retireSteps(service, old, oldName) : [],
    undo: undoSteps(replacing, { name, oldName }),
  };
}

function imageSteps(service: DesiredService): DeployStep[] {
  const steps: DeployStep[] = [
    { kind: "pullImage", image: service.spec.image, always: service.pull === "always" },
  ];
  if (service.files.length > 0) steps.push({ kind: "shipFiles", files: service.files });
  return steps;
}

interface Naming {
  readonly name: string;
  readonly oldName: string;
  readonly address: string;
}

function startSteps(replacing: Replacing, naming: Naming): DeployStep[] {
  const { service, host, recovery, options } = replacing;
  const block = parseCidr(host.config.block)!;
  const envFile = `${options.envFolder}/${naming.name}-${options.deployment}.env`;
  const argv = argvRun(service.spec, {
    engine: host.config.engine,
    name: naming.name,
    dnsServer: serverAddress(block),
    serviceDomain: host.config.service_domain,
    envFile,
    jijiLabels: {
      project: service.project,
      service: service.service,
      instance: host.name,
      version: service.version,
      deployment: options.deployment,
      config: renderFingerprint(service.fingerprint),
      health: service.health,
      proxy: service.routes,
      ports: service.ports,
      address: naming.address,
    },
  });
  const old: DeployStep[] = recovery.current
    ? [
      ...(service.stopFirst
        ? [
          {
            kind: "stopContainer",
            name: naming.name,
            graceSeconds: service.spec.stopGraceSeconds,
          } as const,
        ]
        : []),
      { kind: "renameContainer", from: naming.name, to: naming.oldName },
    ]
    : [];
  return [
    ...old,
    { kind: "startContainer", name: naming.name, argv, envFile },
    { kind: "healthGate", name: naming.name, timeoutMs: service.healthTimeoutMs },
  ];
}

function routeSteps(service: DesiredService, address: string): DeployStep[] {
  return service.routes.map((route) => ({
    kind: "routeProxy",
    route,
    targets: [`${address}:${route.app_port}`],
    drainTimeoutMs: service.drainTimeoutMs,
  }));
}

function expectation(
  service: DesiredService,
  host: ObservedHost,
  change: { readonly address: string; readonly old: ObservedContainer | undefined },
) {
  return {
    name: `${serviceLabel(service)}.${host.config.service_domain}`,
    has: change.address,
    lacks: change.old?.labels?.address || change.old?.address || undefined,
  };
}

function retireSteps(
  service: DesiredService,
  old: ObservedContainer,
  oldName: string,
): DeployStep[] {
  const kept = new Set(service.routes.map((route) => route.name));
  const dropped = (old.labels?.proxy ?? []).filter((route) => !kept.has(route.name));
  return [
    ...dropped.map((route) => ({ kind: "removeRoute", route: route.name }) as const),
    {
      kind: "stopContainer",
      name: oldName,
      graceSeconds: service.spec.stopGraceSeconds,
    },
    { kind: "removeContainer", name: oldName },
    ...pruneSteps(service),
  ];
}

function pruneSteps(service: DesiredService): DeployStep[] {
  const colon = service.spec.image.lastIndexOf(":");
  if (!service.built || colon < 0) return [];
  return [{
    kind: "pruneImages",
    repository: service.spec.image.slice(0, colon),
    keep: service.spec.image,
    retain: service.retain,
    bestEffort: true,
  }];
}

/** Old routes come back before the new container goes; then the old one gets its name again. */
function undoSteps(
  replacing: Replacing,
  naming: { readonly name: string; readonly oldName: string },
): DeployStep[] {
  const { service, recovery } = replacing;
  const old = recovery.current;
  if (!old) return [{ kind: "removeContainer", name: naming.name }];
  const address = old.labels?.address || old.address;
  const routes: DeployStep[] = (old.labels?.proxy ?? []).map((route) => ({
    kind: "routeProxy",
    route,
    targets: [`${address}:${route.app_port}`],
    drainTimeoutMs: service.drainTimeoutMs,
  }));
  // A container that was stopped first must run again before a route can lead to it.
  return service.stopFirst
    ? [
      { kind: "removeContainer", name: naming.name },
      { kind: "renameContainer", from: naming.oldName, to: naming.name },
      { kind: "resumeContainer", name: naming.name },
      ...routes,
    ]
    : [
      ...routes,
      { kind: "removeContainer", name: naming.name },
      { kind: "renameContainer", from: naming.oldName, to: naming.name },
    ];
}
