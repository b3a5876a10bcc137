/** Prepares all that is wanted, side by side, and tells where each thing lies. */
import { cacheRoot, ensureSlot, removeTree } from "./cache.ts";
import { exists } from "./command.ts";
import { ProgressDisplay } from "./progress.ts";
import { THINGS } from "./table.ts";
import { type PlannedThing, planOrder, planSlots, prerequisites, type ThingName } from "./thing.ts";

/** Where prepared things lie. */
export type Slots = (name: ThingName) => string;

/** What the demo, the tests and every lab need. */
export const LAB_THINGS: readonly ThingName[] = ["corrosion", "machine", "root", "hub", "images"];

/**
 * Prepares the wanted things and all they need; what is there already costs one look.
 * @throws Error naming each thing that could not be prepared; the others are finished first
 */
export async function prepare(wanted: readonly ThingName[]): Promise<Slots> {
  const root = cacheRoot((name) => Deno.env.get(name));
  const planned = await planSlots(planOrder(THINGS, wanted), root);
  const slots: Slots = (name) => {
    const thing = planned.get(name);
    if (!thing) throw new Error(`${name} was not prepared`);
    return thing.slot;
  };
  const missing = await missingThings([...planned.values()]);
  if (missing.length > 0) await buildAll(planned, { missing, slots, root });
  return slots;
}

async function missingThings(things: readonly PlannedThing[]): Promise<readonly PlannedThing[]> {
  const there = await Promise.all(things.map(async (thing) => {
    if (!await exists(thing.slot)) return false;
    if (!thing.isPresent || await thing.isPresent()) return true;
    await removeTree(thing.slot);
    return false;
  }));
  return things.filter((_, index) => !there[index]);
}

async function buildAll(
  planned: ReadonlyMap<ThingName, PlannedThing>,
  options: {
    readonly missing: readonly PlannedThing[];
    readonly slots: Slots;
    readonly root: string;
  },
): Promise<void> {
  using display = new ProgressDisplay({
    live: Deno.stderr.isTerminal() && !Deno.env.get("CI"),
  });
  const names = options.missing.map((thing) => thing.name).join(", ");
  display.note(`preparing ${names} (kept in ${options.root}, done once)`);
  const running = new Map<ThingName, Promise<void>>();
  for (const thing of planned.values()) {
    if (!options.missing.includes(thing)) {
      running.set(thing.name, Promise.resolve());
      continue;
    }
    const needed = prerequisites(thing).map((name) => running.get(name) ?? Promise.resolve());
    const built = Promise.all(needed).then(() => buildOne(thing, options.slots, display));
    running.set(thing.name, built);
  }
  const outcomes = await Promise.allSettled(running.values());
  const failures = new Set(
    outcomes.flatMap((outcome) => outcome.status === "rejected" ? [String(outcome.reason)] : []),
  );
  if (failures.size > 0) {
    throw new Error(`${[...failures].join("\n")}\nRun the same command again once mended.`);
  }
}

async function buildOne(
  thing: PlannedThing,
  slots: Slots,
  display: ProgressDisplay,
): Promise<void> {
  const { name, title } = thing;
  const startedAtMs = performance.now();
  const elapsed = () => performance.now() - startedAtMs;
  display.emit({ kind: "started", name, title });
  const say = (detail: string) => display.emit({ kind: "detail", name, detail });
  try {
    await ensureSlot({
      slot: thing.slot,
      onWait: () => say("another run is preparing it, waiting for that"),
      build: (stage) => thing.build({ stage, slot: slots, say }),
    });
  } catch (error) {
    display.emit({ kind: "failed", name, ms: elapsed() });
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`${name} could not be prepared: ${reason}`, { cause: error });
  }
  display.emit({ kind: "finished", name, ms: elapsed() });
}
