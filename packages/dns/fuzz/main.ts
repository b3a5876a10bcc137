// deno-lint-ignore-file no-console -- a command line tool prints.
/**
 * Fuzzes jiji-dns for as long as asked. Usage: deno task fuzz:dns [--seconds 60] [--seed N]
 */
import { parseArgs } from "node:util";
import { fuzz } from "./fuzz.ts";

const { values } = parseArgs({
  options: { seconds: { type: "string", default: "60" }, seed: { type: "string" } },
});
const seed = values.seed === undefined ? Date.now() % 1_000_000_007 : Number(values.seed);
console.log(`seed ${seed}, ${values.seconds} s`);
console.log(JSON.stringify(await fuzz({ seed, milliseconds: Number(values.seconds) * 1_000 })));
