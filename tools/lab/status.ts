/** What is going on in a lab, as data and as a table. */
import { tryCommand } from "../prepare/command.ts";
import { type CgroupLayout, groupProcesses } from "./cgroups.ts";
import type { Cut } from "./model.ts";
import { isOn, type LabContext, serverGroup } from "./server.ts";

/** One server's state. */
export interface ServerStatus {
  /** `s1`, `s2`, …. */
  readonly name: string;
  /** IPv4 address in the lab's network. */
  readonly address: string;
  /** What it came with. */
  readonly engine: string;
  /** Whether it has power. */
  readonly state: "on" | "off";
  /** How many processes run on it. */
  readonly processes: number;
  /** Memory of its control group, page cache included; 0 when it can't be told. */
  readonly memoryBytes: number;
  /** Processor time since power on. */
  readonly cpuSeconds: number;
}

/** A lab's state. */
export interface LabStatus {
  /** The lab's name. */
  readonly lab: string;
  /** `up`, or `starting` after a crash. */
  readonly phase: string;
  /** Folder with all its state. */
  readonly state: string;
  /** Its servers, by number. */
  readonly servers: readonly ServerStatus[];
  /** Cuts in force. */
  readonly cuts: readonly Cut[];
}

async function readNumber(path: string): Promise<number> {
  return Number(await Deno.readTextFile(path).catch(() => "0"));
}

async function groupNumbers(
  layout: CgroupLayout,
  group: string,
): Promise<{ readonly memoryBytes: number; readonly cpuSeconds: number }> {
  const path = (name: string) => layout.hierarchies.find((entry) => entry.endsWith(`/${name}`));
  if (layout.kind === "unified") {
    const stat = await tryCommand(["cat", `${path("cgroup")}/${group}/cpu.stat`]);
    const microseconds = Number(/usage_usec (\d+)/.exec(stat.stdout)?.[1] ?? 0);
    return {
      memoryBytes: await readNumber(`${path("cgroup")}/${group}/memory.current`),
      cpuSeconds: microseconds / 1e6,
    };
  }
  return {
    memoryBytes: await readNumber(`${path("memory")}/${group}/memory.usage_in_bytes`),
    cpuSeconds: await readNumber(`${path("cpuacct")}/${group}/cpuacct.usage`) / 1e9,
  };
}

/** Looks at a lab. */
export async function observeStatus(context: LabContext): Promise<LabStatus> {
  const { paths, layout, lab } = context;
  const servers = await Promise.all(lab.servers.map(async (server): Promise<ServerStatus> => {
    const group = serverGroup(paths, server);
    return {
      name: server.name,
      address: server.address,
      engine: server.engine,
      state: await isOn(context, server) ? "on" : "off",
      processes: (await groupProcesses(layout, group)).length,
      ...await groupNumbers(layout, group),
    };
  }));
  return { lab: paths.name, phase: lab.phase, state: paths.state, servers, cuts: lab.cuts };
}

/** A lab's state for people. */
export function renderStatus(status: LabStatus): string {
  const head = ["server", "state", "address", "engine", "processes", "memory", "cpu"];
  const rows = status.servers.map((server) => [
    server.name,
    server.state,
    server.address,
    server.engine,
    String(server.processes),
    `${Math.round(server.memoryBytes / 1e6)} MB`,
    `${server.cpuSeconds.toFixed(1)} s`,
  ]);
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0))
  );
  const line = (row: readonly string[]) =>
    row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd();
  const cuts = status.cuts.length === 0
    ? "no cuts"
    : status.cuts.map((cut) => `${cut.from} ⨯ ${cut.to === "*" ? "everyone" : cut.to}`).join(", ");
  return [`lab ${status.lab} (${status.phase}), state in ${status.state}`, line(head)]
    .concat(rows.map(line), cuts, "").join("\n");
}
