/** The words of bin/lab: its help, and reading its arguments. */
import { ENGINE_KINDS, type EngineKind } from "./model.ts";

/** A mistake in how bin/lab was called; it ends with exit code 2. */
export class LabUsageError extends Error {
  /** Class name, as errors carry it. */
  override readonly name = "LabUsageError";
}

/** Help of one command. */
export interface CommandHelp {
  /** Its synopsis, without `bin/lab`. */
  readonly usage: string;
  /** What it does, in a line. */
  readonly summary: string;
  /** What there is to know. */
  readonly text: string;
}

/** Help by command. */
export const HELP: Readonly<Record<string, CommandHelp>> = {
  up: {
    usage: "up [N] [--engine none|docker|docker-current|podman]",
    summary: "boot N servers s1… (default 3; bare: SSH only)",
    text: `Boots servers s1 … sN at 203.0.113.11 and up, and the operator's laptop at 203.0.113.1.
On a running lab it adds the servers that are missing, with the engine given here.
What a crash left of the lab is cleaned first. The first use on a machine prepares all
that is needed, which takes minutes; later ones take seconds.

  --engine none            bare servers (default)
  --engine docker          with Docker 20.10 of Debian, and WireGuard
  --engine docker-current  with a current Docker (prepared at first use: 8 minutes)
  --engine podman          with Podman 4.3 of Debian, and WireGuard`,
  },
  run: {
    usage: "run -- CMD [ARG…]",
    summary: "run CMD as the operator's laptop",
    text:
      `Runs CMD inside the lab's network, in the current folder, with build/ of this checkout first
on PATH, the operator's SSH key in ~/.ssh, a Docker and a Podman to build with, and
JIJI_CORROSION set. Input, output, signals and the exit code are those of CMD.`,
  },
  shell: {
    usage: "shell",
    summary: "a shell as the operator's laptop",
    text: `Opens a shell in the same surroundings as "run".`,
  },
  on: {
    usage: "on sN [-- CMD [ARG…]]",
    summary: "run CMD as root on server sN (no CMD: a shell)",
    text:
      `Runs CMD as root on the server, from /root with a clean environment, without SSH: it works
when sshd does not. Input, output, signals and the exit code are those of CMD.`,
  },
  cut: {
    usage: "cut sA [sB|laptop]",
    summary: "drop all packets between sA and sB (no sB: everyone)",
    text:
      `Makes a partition: packets between the two are dropped, both ways; other links stay. With one
name, that party is cut from everyone. Cuts add up until "heal".`,
  },
  heal: { usage: "heal", summary: "end all cuts", text: "Takes all cuts away." },
  kill: {
    usage: "kill sN…",
    summary: "power loss of server sN",
    text:
      `Ends everything on the server at the same instant, without any shutdown. Its disk stays.`,
  },
  boot: {
    usage: "boot sN…",
    summary: "power on of server sN",
    text: `Boots the server again with the disk and the addresses it had, and waits for its SSH.`,
  },
  status: {
    usage: "status [--json]",
    summary: "servers, their state and load, cuts",
    text: `Shows the lab. With --json as one JSON object.`,
  },
  down: {
    usage: "down [--all]",
    summary: "end the lab; nothing of it stays",
    text:
      `Ends the lab's processes, mounts, namespaces and control groups and deletes its state, also
when any of it crashed. With --all every lab of this machine.`,
  },
  prepare: {
    usage: "prepare [NAME…]",
    summary: "prepare what labs need, without starting one",
    text:
      `Builds and downloads into $JIJI_CACHE (default ~/.cache/jiji). Without names, all that a lab of
bare servers needs. Done once; what is there already costs one look.`,
  },
  leftovers: {
    usage: "leftovers",
    summary: "list what is left of any lab; fails when there is something",
    text:
      `Lists processes, mounts, namespaces, control groups and state folders of all labs, a line each,
and ends with 1 when there is any. For tests: nothing may be left after "down".`,
  },
};

/** Help of bin/lab, or of one of its commands. */
export function renderHelp(command?: string): string {
  const help = command === undefined ? undefined : HELP[command];
  if (help) return `usage: bin/lab ${help.usage}\n\n${help.text}\n`;
  const width = Math.max(...Object.keys(HELP).map((name) => name.length));
  const lines = Object.entries(HELP).map(([name, entry]) =>
    `  ${name.padEnd(width)}  ${entry.summary}\n`
  );
  return `usage: bin/lab COMMAND …

Real servers on this machine, to try jiji on: systemd, SSH, disks, a network of their own.

${lines.join("")}
"bin/lab COMMAND --help" tells more. Labs side by side: give each a name in JIJI_LAB
(default "default"). docs/lab.md explains how a lab works.
`;
}

/** What `up` was asked for. */
export interface UpRequest {
  /** How many servers there shall be. */
  readonly count: number;
  /** What those to add come with. */
  readonly engine: EngineKind;
}

/**
 * Reads the arguments of `up`.
 * @throws LabUsageError when they are wrong
 */
export function parseUp(args: readonly string[]): UpRequest {
  let count = 3;
  let engine: EngineKind = "none";
  const rest = args.flatMap((arg) => arg.startsWith("--engine=") ? arg.split("=", 2) : [arg]);
  for (let index = 0; index < rest.length; index++) {
    const arg = rest[index] ?? "";
    if (arg === "--engine") engine = parseEngine(rest[++index]);
    else if (/^[1-9][0-9]{0,2}$/.test(arg) && Number(arg) <= 200) count = Number(arg);
    else throw new LabUsageError(`"${arg}" is not a number of servers from 1 to 200`);
  }
  return { count, engine };
}

function parseEngine(text: string | undefined): EngineKind {
  const engine = ENGINE_KINDS.find((kind) => kind === text);
  if (engine) return engine;
  throw new LabUsageError(`--engine is one of ${ENGINE_KINDS.join(", ")}, not "${text ?? ""}"`);
}

/**
 * The command after an optional `--`.
 * @throws LabUsageError when there is none
 */
export function parseCommandLine(args: readonly string[]): readonly string[] {
  const command = args[0] === "--" ? args.slice(1) : args;
  if (command.length === 0) throw new LabUsageError("a command to run is missing");
  return command;
}
