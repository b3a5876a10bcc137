import { assertNever } from "@jiji/core";
import type { DeploymentPlan, DeployStep, InstancePlan } from "../../types/deployment.ts";

/** A step in words: while it runs, and once it is done. */
export interface StepWords {
  readonly doing: string;
  readonly done: string;
}

/** Words of a step for one line of progress. */
export function renderStep(step: DeployStep): StepWords {
  switch (step.kind) {
    case "installProxy":
      return { doing: "installing kamal-proxy", done: "proxy" };
    case "pullImage":
      return { doing: `pulling ${step.image}`, done: "pulled" };
    case "shipFiles":
      return { doing: `shipping ${plural(step.files.length, "file")}`, done: "files" };
    case "shipCertificates":
      return { doing: `shipping ${step.certificates.length} certificates`, done: "certificates" };
    case "renameContainer":
      return { doing: `renaming ${step.from}`, done: "renamed" };
    case "startContainer":
      return { doing: `starting ${step.name}`, done: "started" };
    case "resumeContainer":
      return { doing: `starting ${step.name} again`, done: "started again" };
    case "healthGate":
      return { doing: `waiting until ${step.name} is healthy`, done: "healthy" };
    case "routeProxy":
      return { doing: `switching ${step.route.name}`, done: "switched" };
    case "removeRoute":
      return { doing: `removing the route ${step.route}`, done: "route removed" };
    case "stopContainer":
      return { doing: `stopping ${step.name}`, done: "stopped" };
    case "removeContainer":
      return { doing: `removing ${step.name}`, done: "removed" };
    case "runRelease":
      return { doing: `running the release command`, done: "released" };
    case "removeImages":
      return { doing: `removing ${plural(step.images.length, "old image")}`, done: "pruned" };
    case "keepRelease":
      return { doing: "keeping the release for rollback", done: "kept" };
    case "writeAudit":
      return { doing: "writing the audit log", done: "logged" };
    default:
      return assertNever(step);
  }
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** What a step acts on, for `--plan`. */
function subject(step: DeployStep): string {
  switch (step.kind) {
    case "installProxy":
      return step.address;
    case "pullImage":
      return step.image;
    case "shipFiles":
      return [...step.files, ...(step.folders ?? [])].map((one) => one.remote).join(" ");
    case "shipCertificates":
      return step.certificates.map((certificate) => certificate.name).join(" ");
    case "renameContainer":
      return `${step.from} → ${step.to}`;
    case "startContainer":
    case "resumeContainer":
    case "stopContainer":
    case "removeContainer":
      return step.name;
    case "healthGate":
      return `${step.name} within ${step.timeoutMs / 1000} s`;
    case "routeProxy":
      return `${step.route.name} → ${step.targets.join(" ")}`;
    case "removeRoute":
      return step.route;
    case "runRelease":
      return `${step.name} within ${step.timeoutMs / 1000} s`;
    case "removeImages":
      return step.images.join(" ");
    case "keepRelease":
      return step.file;
    case "writeAudit":
      return step.message;
    default:
      return assertNever(step);
  }
}

/** One line a service and action: name, servers, action, causes. */
export function renderPlanSummary(plan: DeploymentPlan): string[] {
  const rows: [string, string, string, string][] = [];
  for (const { service, instances } of plan.services) {
    const groups = new Map<string, InstancePlan[]>();
    for (const instance of instances) {
      const key = JSON.stringify([instance.action, instance.causes]);
      groups.set(key, [...(groups.get(key) ?? []), instance]);
    }
    for (const group of groups.values()) {
      const { action, causes } = group[0]!;
      const hosts = group.map((instance) => instance.host).join(" ");
      rows.push([service.service, hosts, action, causes.join(", ")]);
    }
  }
  const width = (column: 0 | 1 | 2) => Math.max(0, ...rows.map((row) => row[column].length));
  const widths = [width(0), width(1), width(2)] as const;
  return rows.map(([service, hosts, action, cause]) =>
    `  ${service.padEnd(widths[0])}  ${hosts.padEnd(widths[1])}  ${
      action.padEnd(widths[2])
    }  ${cause}`
      .trimEnd()
  );
}

/** Every step of a plan, one a line: `[host] phase kind subject — cause`. */
export function renderPlanSteps(plan: DeploymentPlan): string[] {
  const phases = ["recover", "prepare", "release", "start", "switch", "retire"] as const;
  return plan.services.flatMap(({ instances }) =>
    instances.flatMap((instance) => {
      const cause = instance.causes.join(", ");
      const lines = (steps: readonly DeployStep[], phase: string) =>
        steps.map((step) =>
          `[${instance.host}] ${phase} ${step.kind} ${subject(step)}` + (cause ? ` — ${cause}` : "")
        );
      const expect = instance.expect.map((wish) =>
        [
          `[${instance.host}] await ${wish.name}`,
          ...(wish.has === undefined ? [] : [`+${wish.has}`]),
          ...(wish.lacks === undefined ? [] : [`-${wish.lacks}`]),
        ].join(" ")
      );
      return phases.flatMap((phase) =>
        phase === "retire"
          ? [...expect, ...lines(instance.retire, phase)]
          : lines(instance[phase], phase)
      );
    })
  );
}
