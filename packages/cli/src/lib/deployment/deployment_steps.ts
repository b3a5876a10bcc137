/** The steps that carry out what a plan decided; pure. */
import {
  allocateContainerAddress,
  type ContainerLabels,
  instanceName,
  leavingContainerName,
  oldContainerName,
  parseCidr,
  type ProxyRoute,
  serverAddress,
  serviceLabel,
} from "@jiji/core";
import type { DeployStep, DesiredService, ObservedHost } from "../../types/deployment.ts";
import { argvRun, argvRunOnce, isOnJijiNetwork } from "../engine/container_run.ts";
import type { JudgedSlot, Judgement, PlanOptions } from "./deployment_plan.ts";
import { renderFingerprint } from "./fingerprints.ts";
import { byWorth } from "../services/image_prune_service.ts";
import { releaseFile } from "./release_records.ts";
import { addressOf } from "./service_slots.ts";

/** Gets image and files to the server. */
export function imageSteps(service: DesiredService, host: ObservedHost): DeployStep[] {
  const always = service.pull === "always";
  const pull: DeployStep = {
    kind: "pullImage",
    image: service.spec.image,
    always,
    ...(service.authFolder === undefined ? {} : { authFolder: service.authFolder }),
  };
  const isThere = always
    ? service.imageDigest !== undefined &&
      host.imageDigests?.get(service.spec.image) === service.imageDigest
    : host.images.includes(service.spec.image);
  const steps: DeployStep[] = isThere ? [] : [pull];
  const { files, folders = [] } = service;
  if (files.length + folders.length > 0) steps.push({ kind: "shipFiles", files, folders });
  return [...steps, ...certificateSteps(service)];
}

/** Gets certificates that users brought to the proxy. */
export function certificateSteps({ certificates = [] }: DesiredService): DeployStep[] {
  return certificates.length > 0 ? [{ kind: "shipCertificates", certificates }] : [];
}

function isChanging(slot: JudgedSlot): boolean {
  return slot.fate === "create" || slot.fate === "replace";
}

/** Every new container starts before the first is waited for. */
export function startSteps(judgement: Judgement): DeployStep[] {
  const { service, slots } = judgement;
  const changing = slots.filter(isChanging);
  return [
    ...changing.flatMap((slot) => [
      ...moveAsideSteps(judgement, slot),
      startStep(judgement, slot),
    ]),
    ...changing.map((slot): DeployStep => ({
      kind: "healthGate",
      name: slot.name,
      timeoutMs: service.healthTimeoutMs,
      deployment: judgement.options.deployment,
    })),
  ];
}

function moveAsideSteps({ service, options }: Judgement, slot: JudgedSlot): DeployStep[] {
  if (!slot.current) return [];
  const stop: DeployStep = {
    kind: "stopContainer",
    name: slot.name,
    graceSeconds: service.spec.stopGraceSeconds,
  };
  const rename: DeployStep = {
    kind: "renameContainer",
    from: slot.name,
    to: oldContainerName(slot.name, options.nowMs),
  };
  return service.stopFirst ? [stop, rename] : [rename];
}

function startStep({ service, host, options }: Judgement, slot: JudgedSlot): DeployStep {
  const envFile = envFileOf(slot.name, options);
  return {
    kind: "startContainer",
    name: slot.name,
    envFile,
    argv: argvRun(service.spec, {
      ...placeOf(host, slot.name),
      envFile,
      jijiLabels: labelsOf(service, {
        instance: instanceName(host.name, slot.index),
        deployment: options.deployment,
        address: slot.address,
      }),
    }),
  };
}

function envFileOf(name: string, options: PlanOptions): string {
  return `${options.envFolder}/${name}-${options.deployment}.env`;
}

function placeOf(host: ObservedHost, name: string) {
  return {
    engine: host.config.engine,
    name,
    dnsServer: serverAddress(parseCidr(host.config.block)!),
    serviceDomain: host.config.service_domain,
  };
}

function labelsOf(
  service: DesiredService,
  place: { readonly instance: string; readonly deployment: string; readonly address: string },
): ContainerLabels {
  return {
    project: service.project,
    service: service.service,
    version: service.version,
    config: renderFingerprint(service.fingerprint),
    parts: service.fingerprint.parts,
    health: service.health,
    proxy: service.routes,
    ports: service.ports,
    ...place,
  };
}

/** The service's release command in a container of its own, with the new image and environment. */
export function releaseSteps(
  service: DesiredService,
  host: ObservedHost,
  options: PlanOptions & { readonly taken: Set<string> },
): DeployStep[] {
  const { release } = service;
  if (!release) return [];
  const name = `${serviceLabel(service)}_release`;
  const address = isOnJijiNetwork(service.spec.networkMode)
    ? allocateContainerAddress(parseCidr(host.config.block)!, options.taken)
    : "";
  if (address) options.taken.add(address);
  const envFile = envFileOf(name, options);
  return [{
    kind: "runRelease",
    name,
    envFile,
    timeoutMs: release.timeoutMs,
    argv: argvRunOnce(service.spec, {
      ...placeOf(host, name),
      envFile,
      jijiLabels: labelsOf(service, {
        instance: "",
        deployment: options.deployment,
        address,
      }),
      command: release.command,
    }),
  }];
}

/** Every route to all instances that are wanted. */
export function routeSteps({ service, slots, count }: Judgement): DeployStep[] {
  return service.routes.map((route) => ({
    kind: "routeProxy",
    route,
    targets: slots.slice(0, count).map((slot) => `${slot.address}:${route.app_port}`),
    drainTimeoutMs: service.drainTimeoutMs,
  }));
}

/** Routes move, then containers without successor get the name that takes them out of every answer. */
export function switchSteps(judgement: Judgement): DeployStep[] {
  const { slots, count, options } = judgement;
  return [
    ...(count > 0 ? routeSteps(judgement) : []),
    ...slots.filter((slot) => slot.fate === "remove").map((slot): DeployStep => ({
      kind: "renameContainer",
      from: slot.name,
      to: leavingContainerName(slot.name, options.nowMs),
    })),
  ];
}

/** Routes of the containers that are there, each with its targets, by name. */
function oldRoutes(slots: readonly JudgedSlot[]): Map<string, [ProxyRoute, string[]]> {
  const routes = new Map<string, [ProxyRoute, string[]]>();
  for (const { current } of slots) {
    for (const route of current?.labels?.proxy ?? []) {
      const target = `${addressOf(current!)}:${route.app_port}`;
      const [known, targets] = routes.get(route.name) ?? [route, []];
      routes.set(route.name, [known, [...targets, target]]);
    }
  }
  return routes;
}

/** What was replaced or is wanted no more goes, routes first. */
export function retireSteps({ service, slots, count, options }: Judgement): DeployStep[] {
  const kept = new Set(count > 0 ? service.routes.map((route) => route.name) : []);
  const dropped = [...oldRoutes(slots).keys()].filter((name) => !kept.has(name));
  const goners = slots.flatMap((slot) => {
    if (slot.fate === "remove") return [leavingContainerName(slot.name, options.nowMs)];
    return slot.fate === "replace" ? [oldContainerName(slot.name, options.nowMs)] : [];
  });
  return [
    ...dropped.map((route): DeployStep => ({
      kind: "removeRoute",
      route,
      drainTimeoutMs: service.drainTimeoutMs,
    })),
    ...goners.map((name): DeployStep => ({
      kind: "stopContainer",
      name,
      graceSeconds: service.spec.stopGraceSeconds,
    })),
    ...goners.map((name): DeployStep => ({ kind: "removeContainer", name })),
  ];
}

/** Old images go, the release is kept for rollback, and the log says what was done. */
export function finishSteps(judgement: Judgement): DeployStep[] {
  const { service, count, options } = judgement;
  const done = count === 0 ? "removed" : "done";
  return [
    ...pruneSteps(judgement),
    ...(count === 0
      ? []
      : [{ kind: "keepRelease", file: releaseFile(options.nowMs), bestEffort: true } as const]),
    { kind: "writeAudit", message: `${service.service}: ${done}`, bestEffort: true },
  ];
}

/** Images past what the service retains; never one that a container uses which stays. */
function pruneSteps({ service, host, slots, count }: Judgement): DeployStep[] {
  const colon = service.spec.image.lastIndexOf(":");
  if (!service.built || colon < 0 || count === 0) return [];
  const repository = service.spec.image.slice(0, colon);
  const goners = new Set(
    slots.filter((slot) => slot.fate === "replace").map((slot) => slot.current?.id),
  );
  const used = new Set(
    host.containers.filter((one) => !goners.has(one.id)).map((one) => one.imageName),
  );
  const others = host.images.filter((image) =>
    image.startsWith(`${repository}:`) && image !== service.spec.image
  );
  const past = byWorth(others, host.releaseImages).slice(Math.max(service.retain - 1, 0));
  const images = past.filter((image) => !used.has(image));
  return images.length > 0 ? [{ kind: "removeImages", images, bestEffort: true }] : [];
}

/** Old routes come back before new containers go; then the old ones get their names again. */
export function undoSteps({ service, slots, options }: Judgement): DeployStep[] {
  const old = oldRoutes(slots);
  const routes = [...old.values()].map(([route, targets]): DeployStep => ({
    kind: "routeProxy",
    route,
    targets,
    drainTimeoutMs: service.drainTimeoutMs,
  }));
  const added = service.routes.filter((route) => !old.has(route.name)).map((route): DeployStep => ({
    kind: "removeRoute",
    route: route.name,
    drainTimeoutMs: 0,
  }));
  const back = slots.flatMap((slot): DeployStep[] => {
    const remove: DeployStep = { kind: "removeContainer", name: slot.name };
    const rename = (from: string): DeployStep => ({ kind: "renameContainer", from, to: slot.name });
    switch (slot.fate) {
      case "create":
        return [remove];
      case "replace":
        return [
          remove,
          rename(oldContainerName(slot.name, options.nowMs)),
          ...(service.stopFirst ? [{ kind: "resumeContainer", name: slot.name } as const] : []),
        ];
      case "remove":
        return [rename(leavingContainerName(slot.name, options.nowMs))];
      default:
        return [];
    }
  });
  // A container that was stopped first must run again before a route can lead to it.
  return service.stopFirst ? [...back, ...routes, ...added] : [...routes, ...added, ...back];
}
