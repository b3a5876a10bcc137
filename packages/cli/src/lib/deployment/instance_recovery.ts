import type { ProxyState } from "@jiji/core";
import type { ObservedContainer } from "../engine/inspect.ts";
import type { DeployStep } from "../../types/deployment.ts";

/** What an interrupted deploy left, and what to do about it. */
export interface Recovery {
  /** The container that serves once the steps are done. */
  readonly current: ObservedContainer | undefined;
  readonly steps: readonly DeployStep[];
  readonly cause: string | undefined;
}

/** Seconds that a left-over old container gets to finish. */
const GRACE_SECONDS = 10;

/**
 * Decides from names, labels and the proxy's own listing whether an interrupted replacement is to
 * be finished (the proxy already leads to the new container) or undone (the old one is renamed
 * back). Without leftovers nothing is to do.
 */
export function recoverInstance(
  name: string,
  containers: readonly ObservedContainer[],
  proxyState: ProxyState | undefined,
): Recovery {
  const current = containers.find((container) => container.name === name);
  const olds = containers
    .filter((container) => isOldName(container.name, name))
    .sort((a, b) => oldTime(b.name) - oldTime(a.name));
  const [newestOld, ...olderOlds] = olds;
  if (!newestOld) return { current, steps: [], cause: undefined };
  const dropOlder = olderOlds.flatMap((old) => retire(old));
  if (current && isSwitchedTo(current, proxyState)) {
    return {
      current,
      steps: [...retire(newestOld), ...dropOlder],
      cause: "finishes an interrupted deploy",
    };
  }
  const restore: DeployStep[] = [
    ...(current ? [{ kind: "removeContainer", name: current.name } as const] : []),
    { kind: "renameContainer", from: newestOld.name, to: name },
    ...(newestOld.running ? [] : [{ kind: "resumeContainer", name } as const]),
  ];
  return {
    current: { ...newestOld, name, running: true },
    steps: [...restore, ...dropOlder],
    cause: "undoes an interrupted deploy",
  };
}

/** Ends and removes a container that an interrupted run left behind. */
export function retire(container: ObservedContainer): DeployStep[] {
  return [
    { kind: "stopContainer", name: container.name, graceSeconds: GRACE_SECONDS },
    { kind: "removeContainer", name: container.name },
  ];
}

/** Whether a name is that of a container being replaced: `{name}_old_{epoch ms}`. */
export function isOldName(candidate: string, name: string): boolean {
  return candidate.startsWith(`${name}_old_`) && /^\d+$/.test(candidate.slice(name.length + 5));
}

function oldTime(name: string): number {
  return Number(name.slice(name.lastIndexOf("_") + 1));
}

/** A replacement was verified once every route of the new container leads to it. */
function isSwitchedTo(container: ObservedContainer, proxyState: ProxyState | undefined): boolean {
  const routes = container.labels?.proxy ?? [];
  if (!container.running || routes.length === 0) return false;
  return routes.every((route) =>
    proxyState?.get(route.name)?.includes(`${container.address}:${route.app_port}`)
  );
}
