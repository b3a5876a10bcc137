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
      return { doing: `shipping ${step.files.length} files`, done: "files" };
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
    case "pruneImages":
      return { doing: `pruning images of ${step.repository}`, done: "pruned" };
    default:
      return assertNever(step);
  }
}

/** What a step acts on, for `--plan`. */
function subject(step: DeployStep): string {
  switch (step.kind) {
    case "installProxy":
      return step.address;
    case "pullImage":
      return step.image;
    case "shipFiles":
      return step.files.map((file) => file.remote).join(" ");
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
    case "pruneImages":
      return `${step.repository} to ${step.retain}`;
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
  const phases = ["recover", "prepare", "start", "switch", "retire"] as const;
  return plan.services.flatMap(({ instances }) =>
    instances.flatMap((instance) => {
      const cause = instance.causes.join(", ");
      const lines = (steps: readonly DeployStep[], phase: string) =>
        steps.map((step) =>
          `[${instance.host}] ${phase} ${step.kind} ${subject(step)}` + (cause ? ` — ${cause}` : "")
        );
      const expect = instance.expect.map((wish) =>
        `[${instance.host}] await ${wish.name} +${wish.has}${wish.lacks ? ` -${wish.lacks}` : ""}`
      );
      return phases.flatMap((phase) =>
        phase === "retire"
          ? [...expect, ...lines(instance.retire, phase)]
          : lines(instance[phase], phase)
      );
    })
  );
}
