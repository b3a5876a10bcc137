// deno-lint-ignore-file no-console -- a command line tool prints.
/** A long run of the simulation: the daemon's own code, hundreds of servers. Behind `bin/sim`. */
import { parseArgs } from "node:util";
import { simulate } from "../packages/daemon/sim/simulate.ts";

const HELP = `Usage: bin/sim [--servers 64] [--minutes 60] [--seed 1] [--psk] [--quiet]

Runs the daemon's duties on simulated servers with a simulated clock and network: loss, delays of
minutes, partitions of any shape, power loss of one or all, lost databases, peers and caches, wrong
clocks, moves, removals, servers added again, clones of a machine, rows that a stranger wrote. After
each step it looks at every kernel's peers and routes, at who wrote what, and at what jiji-dns would
answer. Prints seed, events, faults, violations and what it cost; exit code 1 when something that must
never happen did, or when the cluster does not settle once the faults are over.

  --psk    links have preshared keys, and servers forget that of others with their state
  --quiet  no line for each fault`;

const { values } = parseArgs({
  options: {
    servers: { type: "string", default: "64" },
    minutes: { type: "string", default: "60" },
    seed: { type: "string", default: "1" },
    psk: { type: "boolean", default: false },
    quiet: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  console.log(HELP);
  Deno.exit(0);
}
const [servers, minutes, seed] = [values.servers, values.minutes, values.seed].map(Number);
if (!servers || !minutes || seed === undefined || Number.isNaN(seed) || servers > 2_000) {
  console.error(HELP);
  Deno.exit(2);
}
const startedMs = performance.now();
const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
console.log(`seed ${seed}  ${servers} servers  ${minutes} simulated minutes of faults`);
const report = await simulate({
  servers,
  seed,
  presharedKeys: values.psk,
  faultMs: minutes * 60_000,
  onFault: (atMs, text) => {
    if (!values.quiet) console.log(`${seconds(atMs).padStart(10)}  ${text}`);
  },
});
const { rss } = Deno.memoryUsage();
console.log(`faults       ${report.faults}`);
console.log(`events       ${report.events}`);
console.log(`datagrams    ${report.datagrams}`);
console.log(`simulated    ${seconds(report.simulatedMs)}`);
console.log(
  report.settledAfterMs === undefined
    ? "settled      never"
    : `settled      ${seconds(report.settledAfterMs)} after the last fault`,
);
console.log(`violations   ${report.violations.length}`);
for (const violation of report.violations) console.log(`  ${violation}`);
console.log(`wall time    ${seconds(performance.now() - startedMs)}`);
console.log(`memory       ${Math.round(rss / 1e6)} MB`);
Deno.exit(report.violations.length > 0 ? 1 : 0);
