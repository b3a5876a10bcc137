import {
  allocateContainerAddress,
  parseCidr,
  PROXY_CONTAINER,
  proxyAddress,
  serviceLabel,
} from "@jiji/core";
import type {
  DeploymentPlan,
  DeployStep,
  DesiredService,
  InstancePlan,
  NameExpectation,
  ObservedHost,
} from "../../types/deployment.ts";
import { isOnJijiNetwork } from "../engine/container_run.ts";
import {
  certificateSteps,
  finishSteps,
  imageSteps,
  releaseSteps,
  retireSteps,
  routeSteps,
  startSteps,
  switchSteps,
  undoSteps,
} from "./deployment_steps.ts";
import { changedParts, parseFingerprint } from "./fingerprints.ts";
import { addressOf, findSlots, hasService, type Slot } from "./service_slots.ts";

/** What a plan depends on beside wish and observation. */
export interface PlanOptions {
  /** Unix ms; names old containers. */
  readonly nowMs: number;
  /** Id of this deploy; goes into labels. */
  readonly deployment: string;
  /** Replace even what is as it should be. */
  readonly force: boolean;
  /** Whether services' release commands run: on a deploy, not on the way back. */
  readonly release: boolean;
  /** Folder on the servers for environment files; gone after a reboot. */
  readonly envFolder: string;
  /** Servers that go first, alone; see `deploy.canary`. */
  readonly canary: readonly string[];
}

/** What becomes of a slot. */
export type Fate = "keep" | "create" | "replace" | "remove" | "none";

/** A slot with its future. */
export interface JudgedSlot extends Slot {
  readonly fate: Fate;
  readonly causes: readonly string[];
  /** Address of the container that will be there; "" when none or not on jiji's network. */
  readonly address: string;
}

/** A service on a server, judged: what the steps are made from. */
export interface Judgement {
  readonly service: DesiredService;
  readonly host: ObservedHost;
  readonly slots: readonly JudgedSlot[];
  /** Instances wanted there. */
  readonly count: number;
  readonly options: PlanOptions;
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
  const taken = new Map([...hosts].map(([name, host]) => [name, takenAddresses(host)]));
  const proxies = new Set(
    [...hosts.values()].filter(isProxyRunning).map((host) => host.name),
  );
  return {
    deployment: options.deployment,
    services: services.map((service) => {
      const names = [...hosts.values()]
        .filter((host) => service.hosts.includes(host.name) || hasService(service, host))
        .map((host) => host.name).sort();
      const instances = names.map((name) => {
        const host = hosts.get(name)!;
        const plan = planInstance(service, host, {
          ...options,
          taken: taken.get(name)!,
          proxyRuns: proxies.has(name),
        });
        if (plan.prepare.some((step) => step.kind === "installProxy")) proxies.add(name);
        return plan;
      });
      return { service, instances: withRelease(service, instances, { ...options, taken, hosts }) };
    }),
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
  /** Addresses given out on this server; new ones are added. */
  readonly taken: Set<string>;
  readonly proxyRuns: boolean;
}

function planInstance(
  service: DesiredService,
  host: ObservedHost,
  options: InstanceOptions,
): InstancePlan {
  const count = service.hosts.includes(host.name) ? service.scale : 0;
  const slots = findSlots(service, count, host).map((slot) =>
    judgeSlot(slot, { service, host, count, options })
  );
  const judgement: Judgement = { service, host, slots, count, options };
  const prepare: DeployStep[] = service.routes.length > 0 && count > 0 && !options.proxyRuns
    ? [{ kind: "installProxy", address: proxyAddress(parseCidr(host.config.block)!) }]
    : [];
  const base = {
    service: service.service,
    host: host.name,
    recover: slots.flatMap((slot) => slot.recover),
    before: slots.find((slot) => slot.current)?.current?.labels?.version,
    release: [],
  };
  if (slots.every((slot) => slot.fate === "keep" || slot.fate === "none")) {
    const routes = missingRoutes(judgement, options.proxyRuns);
    const causes = routes.length > 0 ? ["proxy does not lead to it"] : [];
    return {
      ...base,
      action: routes.length > 0 ? "route" : "as is",
      causes: [...recoveryCauses(slots), ...causes],
      prepare: routes.length > 0 ? [...prepare, ...certificateSteps(service)] : [],
      start: [],
      switch: routes,
      expect: [],
      retire: [],
      undo: [],
    };
  }
  const starts = slots.some((slot) => slot.fate === "create" || slot.fate === "replace");
  return {
    ...base,
    action: actionOf(judgement),
    causes: causesOf(judgement),
    prepare: starts ? [...prepare, ...imageSteps(service, judgement.host)] : [],
    start: startSteps(judgement),
    switch: switchSteps(judgement),
    expect: expectations(judgement),
    retire: [...retireSteps(judgement), ...finishSteps(judgement)],
    undo: undoSteps(judgement),
  };
}

interface SlotContext {
  readonly service: DesiredService;
  readonly host: ObservedHost;
  readonly count: number;
  readonly options: InstanceOptions;
}

function judgeSlot(slot: Slot, context: SlotContext): JudgedSlot {
  const { service, host, count, options } = context;
  const { current } = slot;
  if (slot.index > count) {
    return { ...slot, fate: current ? "remove" : "none", causes: [], address: "" };
  }
  const causes = replacementCauses(service, current, options);
  if (current && causes.length === 0) {
    return { ...slot, fate: "keep", causes, address: addressOf(current) };
  }
  const address = isOnJijiNetwork(service.spec.networkMode)
    ? allocateContainerAddress(parseCidr(host.config.block)!, options.taken)
    : "";
  if (address) options.taken.add(address);
  return { ...slot, fate: current ? "replace" : "create", causes, address };
}

/** Why the container has to be replaced; empty when it may stay. */
function replacementCauses(
  service: DesiredService,
  current: Slot["current"],
  options: PlanOptions,
): string[] {
  if (!current) return ["not there yet"];
  const causes: string[] = [];
  const there = parseFingerprint(current.labels);
  const wanted = service.fingerprint;
  if (there.image !== wanted.image) {
    const before = current.labels?.version || "unknown";
    causes.push(
      before === service.version ? "image content changed" : `image ${before} → ${service.version}`,
    );
  }
  if (there.environment !== wanted.environment) {
    causes.push(changedParts("environment", there.parts, wanted.parts));
  }
  if (there.options !== wanted.options) {
    causes.push(changedParts("options", there.parts, wanted.parts));
  }
  if (!current.running) causes.push(`container is ${current.status}`);
  if (causes.length === 0 && options.force) causes.push("forced");
  return causes;
}

function recoveryCauses(slots: readonly Slot[]): string[] {
  return [...new Set(slots.flatMap((slot) => slot.cause ?? []))];
}

/** Instances that are there, by the slots that have a container. */
function present(slots: readonly JudgedSlot[]): number {
  return slots.filter((slot) => slot.current).length;
}

function actionOf({ slots, count }: Judgement): InstancePlan["action"] {
  if (count === 0) return "remove";
  if (present(slots) === 0) return "create";
  return slots.some((slot) => slot.fate === "replace") ? "replace" : "scale";
}

/** A cause that all wanted instances share is told once; others name their instance. */
function causesOf({ service, host, slots, count }: Judgement): string[] {
  const wanted = slots.slice(0, count);
  const before = present(slots);
  const scaled = before > 0 && before !== count ? [`scale ${before} → ${count}`] : [];
  if (count === 0) {
    return [...recoveryCauses(slots), `${host.name} is not among the hosts of ${service.service}`];
  }
  // A new instance beside others is told by the scale.
  const telling = wanted.filter((slot) => before === 0 || slot.fate === "replace");
  const shared = (cause: string) => telling.every((slot) => slot.causes.includes(cause));
  const whole = telling.length === wanted.length || scaled.length > 0;
  const causes = telling.flatMap((slot) =>
    slot.causes.map((cause) =>
      shared(cause) && (whole || telling.length > 1) ? cause : `${slot.name}: ${cause}`
    )
  );
  const gone = scaled.length === 0
    ? wanted.filter((slot) => before > 0 && slot.fate === "create")
      .map((slot) => `${slot.name}: not there`)
    : [];
  return [...new Set([...recoveryCauses(slots), ...scaled, ...causes, ...gone])];
}

/** Routes whose targets are not exactly the instances that are there. */
function missingRoutes(judgement: Judgement, proxyRuns: boolean): DeployStep[] {
  const { host, slots, count } = judgement;
  if (count === 0) return [];
  const wanted = slots.slice(0, count).map((slot) => slot.address);
  return routeSteps(judgement).filter((step) => {
    if (step.kind !== "routeProxy") return false;
    const targets = host.proxyState?.get(step.route.name) ?? [];
    const same = targets.length === wanted.length &&
      step.targets.every((target) => targets.includes(target));
    return !proxyRuns || !same;
  });
}

/** What every jiji-dns must answer before old containers may go. */
function expectations({ service, host, slots }: Judgement): InstancePlan["expect"] {
  if (!isOnJijiNetwork(service.spec.networkMode)) return [];
  const name = `${serviceLabel(service)}.${host.config.service_domain}`;
  return slots.flatMap((slot): NameExpectation[] => {
    if (slot.fate === "keep" || slot.fate === "none") return [];
    const lacks = slot.current ? addressOf(slot.current) || undefined : undefined;
    if (slot.fate === "remove") return lacks === undefined ? [] : [{ name, has: undefined, lacks }];
    return [{ name, has: slot.address, lacks }];
  });
}

interface ReleaseFacts extends PlanOptions {
  readonly taken: ReadonlyMap<string, Set<string>>;
  readonly hosts: ReadonlyMap<string, ObservedHost>;
}

/**
 * Adds the release command to one server's plan: a canary's where there is one. It runs when image
 * or environment change or nothing runs yet, not for a container that merely broke.
 */
function withRelease(
  service: DesiredService,
  instances: readonly InstancePlan[],
  facts: ReleaseFacts,
): InstancePlan[] {
  if (!service.release || !facts.release) return [...instances];
  const starting = instances.filter((plan) => plan.start.length > 0);
  const runs = instances.filter((plan) => plan.action !== "remove");
  const isNew = runs.every((plan) => plan.before === undefined);
  const changed = starting.some((plan) =>
    plan.causes.some((cause) => /^(image|environment|forced)/.test(cause))
  );
  if (!isNew && !changed) return [...instances];
  const chosen = starting.find((plan) => facts.canary.includes(plan.host)) ?? starting[0];
  return instances.map((plan) =>
    plan === chosen
      ? {
        ...plan,
        release: releaseSteps(service, facts.hosts.get(plan.host)!, {
          ...facts,
          taken: facts.taken.get(plan.host)!,
        }),
      }
      : plan
  );
}
