// deno-lint-ignore-file no-console -- a command line tool prints.
/**
 * Fuzzes jiji-dns for as long as asked; ends with 1 and the packet's bytes at the first wrong answer.
 *
 * Usage: deno task fuzz:dns [--minutes N | --seconds 60] [--seed N]
 */
import { parseArgs } from "node:util";
import { fuzz } from "./fuzz.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    minutes: { type: "string" },
    seed: { type: "string" },
  },
});
const seed = values.seed === undefined ? Date.now() % 1_000_000_007 : Number(values.seed);
const seconds = values.minutes === undefined ? Number(values.seconds) : Number(values.minutes) * 60;
if (!(seconds > 0)) throw new Error("--minutes and --seconds are numbers above 0");
console.log(`seed ${seed}, ${seconds} s`);
console.log(JSON.stringify(await fuzz({ seed, milliseconds: seconds * 1_000 })));
