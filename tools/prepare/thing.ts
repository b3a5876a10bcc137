/** What a prepared thing is, and how all that is wanted gets prepared side by side. */
import { recipeKey, slotPath } from "./cache.ts";

/** What a build may use. */
export interface BuildContext {
  /** Folder to build into; renamed into the cache when the build is done. */
  readonly stage: string;
  /** Folder of a thing this one needs. */
  readonly slot: (name: ThingName) => string;
  /** Shows what the build is doing now. */
  readonly say: (detail: string) => void;
}

/** Names of all that can be prepared. */
export type ThingName =
  | "corrosion"
  | "docker-current"
  | "hub"
  | "images"
  | "kamal-proxy"
  | "machine"
  | "packages"
  | "root"
  | "root-docker"
  | "root-docker-current"
  | "root-podman"
  | "runc-current";

/** One thing to prepare. */
export interface Thing {
  /** What others call it. */
  readonly name: ThingName;
  /** What it is, in a few words, for the progress lines. */
  readonly title: string;
  /** All that decides its content: changing it makes a new slot. */
  readonly recipe: string;
  /** Things it is made from: when one of these changes, so does this. */
  readonly needs: readonly ThingName[];
  /** Things that must be there first, but leave no trace in its content. */
  readonly after?: readonly ThingName[];
  /** For what lives outside the cache too: false when it is gone and must be made again. */
  readonly isPresent?: () => Promise<boolean>;
  /** Makes it in the stage folder. */
  readonly build: (context: BuildContext) => Promise<void>;
}

/** A thing with the slot it belongs in. */
export interface PlannedThing extends Thing {
  /** Its folder in the cache. */
  readonly slot: string;
}

/** All that must be there before a thing is made. */
export function prerequisites(thing: Thing): readonly ThingName[] {
  return [...thing.needs, ...thing.after ?? []];
}

/**
 * Puts the wanted things and all they need in an order in which each comes after what it needs.
 * @throws Error when a name is unknown or things need each other in a circle
 */
export function planOrder(
  table: readonly Thing[],
  wanted: readonly ThingName[],
): readonly Thing[] {
  const byName = new Map(table.map((thing) => [thing.name, thing]));
  const order: Thing[] = [];
  const state = new Map<ThingName, "open" | "done">();
  const visit = (name: ThingName): void => {
    if (state.get(name) === "done") return;
    if (state.get(name) === "open") throw new Error(`${name} needs itself in a circle`);
    const thing = byName.get(name);
    if (!thing) throw new Error(`nothing is known about preparing "${name}"`);
    state.set(name, "open");
    prerequisites(thing).forEach(visit);
    state.set(name, "done");
    order.push(thing);
  };
  wanted.forEach(visit);
  return order;
}

/** Names the slot of each thing: a new recipe also moves all that is built from it. */
export async function planSlots(
  order: readonly Thing[],
  root: string,
): Promise<ReadonlyMap<ThingName, PlannedThing>> {
  const planned = new Map<ThingName, PlannedThing>();
  for (const thing of order) {
    const below = thing.needs.map((name) => planned.get(name)?.slot ?? name);
    const key = await recipeKey([thing.name, thing.recipe, ...below]);
    planned.set(thing.name, { ...thing, slot: slotPath(root, thing.name, { key }) });
  }
  return planned;
}
