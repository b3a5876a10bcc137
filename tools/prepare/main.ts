/** Prepares things named as arguments (default: all a lab needs) and prints where they lie. */
import { LAB_THINGS, prepare } from "./prepare.ts";
import { writeError, writeOut } from "./progress.ts";
import { THINGS } from "./table.ts";
import type { ThingName } from "./thing.ts";

/**
 * Names of things, checked.
 * @throws Error when one is unknown
 */
export function parseNames(args: readonly string[]): readonly ThingName[] {
  return args.map((arg) => {
    const thing = THINGS.find((candidate) => candidate.name === arg);
    if (thing) return thing.name;
    const known = THINGS.map((candidate) => candidate.name).join(", ");
    throw new Error(`nothing is known about "${arg}"; there are: ${known}`);
  });
}

if (import.meta.main) {
  try {
    const wanted = Deno.args.length > 0 ? parseNames(Deno.args) : LAB_THINGS;
    const slots = await prepare(wanted);
    for (const name of wanted) writeOut(`${name} ${slots(name)}\n`);
  } catch (error) {
    writeError(`${error instanceof Error ? error.message : String(error)}\n`);
    Deno.exit(1);
  }
}
