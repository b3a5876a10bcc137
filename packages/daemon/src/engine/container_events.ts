/** Reading the events of docker and podman, and what follows from them without asking. Pure. */
import * as v from "valibot";
import type { ObservedContainer } from "./containers.ts";

/** What happened to a container. */
export interface ContainerEvent {
  readonly id: string;
  /** Docker's words: `start`, `die`, `destroy`, `rename`, `health_status: healthy`, … */
  readonly action: string;
  /** Its new name, where the event tells it. */
  readonly name?: string;
  /** The signal it was sent, a number or a name, where the event tells it. */
  readonly signal?: string;
}

const DockerEvent = v.object({
  Action: v.string(),
  Actor: v.object({
    ID: v.string(),
    Attributes: v.optional(v.object({
      name: v.optional(v.string()),
      signal: v.optional(v.string()),
    })),
  }),
});
const PodmanEvent = v.object({ Status: v.string(), ID: v.string() });

/** Podman's words where they differ. Source: podman-events(1) 4.3. */
const PODMAN_ACTIONS: Readonly<Record<string, string>> = {
  died: "die",
  remove: "destroy",
  removed: "destroy",
};

/** The event in a line of the event stream, or undefined. */
export function parseEvent(line: string): ContainerEvent | undefined {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch {
    return undefined;
  }
  const docker = v.safeParse(DockerEvent, json);
  if (docker.success) {
    const { Action, Actor: { ID, Attributes: { name, signal } = {} } } = docker.output;
    return {
      id: ID,
      action: Action,
      ...(Action === "rename" && name !== undefined ? { name } : {}),
      ...(Action === "kill" && signal !== undefined ? { signal } : {}),
    };
  }
  const podman = v.safeParse(PodmanEvent, json);
  if (!podman.success) return undefined;
  const { Status, ID } = podman.output;
  return { id: ID, action: PODMAN_ACTIONS[Status] ?? Status };
}

/**
 * Whether an event changes what is known of containers. What only comes before or after another
 * (`create` before `start`, `stop` after `die`) does not, nor do `exec_*` and `top`.
 */
export function isTelling(event: ContainerEvent): boolean {
  return /^(start|restart|kill|die|destroy|rename|pause|unpause|health_status)/.test(event.action);
}

/** What events leave of the containers that were known. */
export interface EventOutcome {
  readonly containers: readonly ObservedContainer[];
  /** Ids of those about which the engine must be asked. */
  readonly look: readonly string[];
}

/** Takes over what events say by themselves: asking the engine costs far more than reading them. */
export function applyEvents(
  known: readonly ObservedContainer[],
  events: readonly ContainerEvent[],
): EventOutcome {
  const containers = new Map(known.map((one) => [one.id, one]));
  const look = new Set<string>();
  for (const event of events) {
    const one = containers.get(event.id);
    const action = event.action.split(":")[0];
    if (action === "destroy") {
      containers.delete(event.id);
      look.delete(event.id);
    } else if (action === "die") {
      if (one) containers.set(one.id, { ...one, running: false, pid: undefined });
    } else if (action === "kill") {
      const isEnding = /^(SIG)?(TERM|KILL|9|15)$/.test(event.signal ?? "");
      if (one && isEnding) containers.set(one.id, { ...one, isEnding });
    } else if (action === "rename" && event.name !== undefined) {
      if (one) containers.set(one.id, { ...one, name: event.name });
    } else look.add(event.id);
  }
  return { containers: [...containers.values()], look: [...look] };
}
