import { systemClock } from "@jiji/core";
import type { DeploymentPlan, DesiredService } from "../src/types/deployment.ts";
import type { ProgressEvent } from "../src/lib/output/events.ts";
import {
  DeploymentOrchestrator,
  ENV_FOLDER,
  type InstanceOutcome,
} from "../src/lib/services/deployment_orchestrator.ts";
import { observeHost } from "../src/lib/deployment/deployment_observation.ts";
import { planDeployment } from "../src/lib/deployment/deployment_plan.ts";
import { desiredService, serviceEnvironment } from "../src/lib/deployment/desired_services.ts";
import { configurationOf } from "./configuration_fixture.ts";
import type { MockCluster } from "./mock_server_state.ts";
import { type KillSwitch, MockSSHManager } from "./mocks.ts";

/** A deploy of every service of a configuration. */
export interface DeployRun {
  /** Text of `services:` and what follows. */
  readonly services: string;
  readonly force?: boolean;
  /** Whether release commands run; as on a deploy, by default. */
  readonly release?: boolean;
  readonly canary?: readonly string[];
  readonly onFailure?: "rollback" | "keep";
  readonly kill?: KillSwitch;
  readonly signal?: AbortSignal;
  readonly secrets?: Readonly<Record<string, string>>;
  /** Called with each host before anything runs. */
  prepare?(host: MockSSHManager): void;
}

/** What a deploy did. */
export interface DeployResult {
  readonly plan: DeploymentPlan;
  readonly outcomes: readonly InstanceOutcome[];
  readonly events: readonly ProgressEvent[];
  readonly hosts: ReadonlyMap<string, MockSSHManager>;
}

/** Services of a configuration, as they should run. */
export async function desiredOf(
  cluster: MockCluster,
  run: DeployRun,
): Promise<{ desired: DesiredService[]; environments: Map<string, Map<string, string>> }> {
  const servers = [...cluster.servers.keys()].map((name, index) =>
    `  ${name}: {host: 203.0.113.${index + 11}}`
  );
  const text = `project: shop\nbuilder: {engine: ${cluster.engine}}\n` +
    `servers:\n${servers.join("\n")}\nservices:\n${run.services}`;
  const configuration = configurationOf(text, { fileValues: run.secrets ?? {} });
  configuration.validate();
  const environments = new Map(
    [...configuration.services.values()].map((service) => [
      service.name,
      serviceEnvironment(service, service.environment.resolveSecrets()),
    ]),
  );
  const desired = await Promise.all(
    [...configuration.services.values()].map((service) => {
      const name = service.image ?? `localhost:31270/shop-${service.name}:1`;
      const version = name.slice(name.lastIndexOf(":") + 1);
      return desiredService(configuration, service, {
        image: { name, identity: name, version },
        environment: environments.get(service.name)!,
      });
    }),
  );
  return { desired, environments };
}

/** Observes, plans and applies, as `jiji deploy` does. */
export async function deployOnce(cluster: MockCluster, run: DeployRun): Promise<DeployResult> {
  const { desired, environments } = await desiredOf(cluster, run);
  const hosts = new Map(
    [...cluster.servers].map(([name, state]) => [name, new MockSSHManager(state, run.kill)]),
  );
  for (const host of hosts.values()) run.prepare?.(host);
  const signal = run.signal ?? new AbortController().signal;
  const what = { engine: cluster.engine, project: "shop" };
  const observed = new Map(
    await Promise.all(
      [...hosts].map(async ([name, host]) =>
        [name, await observeHost(host, what, new AbortController().signal)] as const
      ),
    ),
  );
  const nowMs = cluster.nextMs();
  const plan = planDeployment(desired, observed, {
    nowMs,
    deployment: nowMs.toString(36),
    force: run.force ?? false,
    release: run.release ?? true,
    envFolder: ENV_FOLDER,
    canary: run.canary ?? [],
  });
  const events: ProgressEvent[] = [];
  const outcomes = await new DeploymentOrchestrator({
    hosts,
    witnesses: [],
    observed,
    environments,
    onFailure: run.onFailure ?? "rollback",
    maxParallel: 10,
    canary: { hosts: run.canary ?? [], waitMs: 10_000 },
    audit: { action: "deploy", version: "test" },
    // A drain after a straggler must not make the test wait.
    clock: { ...systemClock, sleep: () => Promise.resolve() },
    signal,
    emit: (event) => events.push(event),
  }).run(plan);
  return { plan, outcomes, events, hosts };
}

/** Results by `service@host`, sorted. */
export function resultsOf(result: DeployResult): Record<string, string> {
  return Object.fromEntries(
    result.outcomes.map(({ service, host, result: end }) => [`${service}@${host}`, end] as const)
      .sort(),
  );
}
