import { containerName, isLeavingName, type ServiceKey } from "@jiji/core";
import type { DeployStep, ObservedHost } from "../../types/deployment.ts";
import type { ObservedContainer } from "../engine/inspect.ts";
import { recoverInstance, retire } from "./instance_recovery.ts";

/** A place for one container of a service on one server: its name, and what is there. */
export interface Slot {
  /** 1 for the first. */
  readonly index: number;
  readonly name: string;
  /** The container that serves there once {@link Slot.recover} is done. */
  readonly current: ObservedContainer | undefined;
  /** Finishes or undoes what an earlier run left. */
  readonly recover: readonly DeployStep[];
  readonly cause: string | undefined;
}

/**
 * Slots of a service on a server: those that are wanted, then those in which a container of the
 * service still is. Containers of other projects, and of nobody, fill none.
 */
export function findSlots(key: ServiceKey, count: number, host: ObservedHost): Slot[] {
  const own = host.containers.filter(({ labels }) =>
    labels?.project === key.project && labels.service === key.service
  );
  const last = Math.max(count, 0, ...own.map((container) => slotIndex(key, container.name)));
  return Array.from({ length: last }, (_, at) => findSlot(key, at + 1, host));
}

/** Index in a container's name, whatever the container is about to become; 0 for another's name. */
function slotIndex(key: ServiceKey, name: string): number {
  const base = name.replace(/_(old|leaving)_\d+$/, "");
  const first = containerName(key);
  if (base === first) return 1;
  const number = base.startsWith(`${first}-`) ? base.slice(first.length + 1) : "";
  return /^[1-9]\d{0,3}$/.test(number) ? Number(number) : 0;
}

function findSlot(key: ServiceKey, index: number, host: ObservedHost): Slot {
  const name = containerName(key, index);
  const leaving = host.containers.filter((container) =>
    isLeavingName(container.name) && container.name.startsWith(`${name}_leaving_`)
  );
  const recovery = recoverInstance(name, host.containers, host.proxyState);
  return {
    index,
    name,
    current: recovery.current,
    recover: [
      ...leaving.flatMap(retire),
      ...recovery.steps,
    ],
    cause: recovery.cause ?? (leaving.length > 0 ? "finishes an interrupted deploy" : undefined),
  };
}

/** Whether a server has any container of a service, under whatever name. */
export function hasService(key: ServiceKey, host: ObservedHost): boolean {
  return host.containers.some(({ labels, name }) =>
    labels?.project === key.project && labels.service === key.service &&
    slotIndex(key, name) > 0
  );
}

/** Pinned address of a container, also while it is stopped; "" when it has none. */
export function addressOf(container: ObservedContainer): string {
  return container.labels?.address || container.address;
}
