/** Names, addresses and paths of a lab: all derive from the lab's name and a server's number. */

/** Where labs keep their disposable state, a folder a lab. */
export const STATE_ROOT = "/var/lib/jiji-lab";
/** Most servers a lab can have: their addresses are 203.0.113.11 and up. */
export const SERVERS_MAX = 200;
/** Address of the operator's laptop. */
export const LAPTOP_ADDRESS = "203.0.113.1";
/** Prefix length of the lab's network. Source: RFC 5737, TEST-NET-3. */
export const PREFIX_LENGTH = 24;

/** A party of the lab's network: a server by its name, or the laptop. */
export type PartyName = string;

/**
 * Checks a lab's name: it becomes part of namespace, control group and folder names.
 * @throws Error when it can't be
 */
export function parseLabName(text: string): string {
  if (/^[a-z0-9][a-z0-9-]{0,23}$/.test(text)) return text;
  throw new Error(
    `JIJI_LAB is "${text}": a lab's name has 1 to 24 characters a–z, 0–9 and -, and no leading -`,
  );
}

/**
 * Number of a server's name, `s3` → 3.
 * @throws Error when it is no server name
 */
export function parseServerName(text: string): number {
  const number = Number(/^s([1-9][0-9]{0,2})$/.exec(text)?.[1] ?? "0");
  if (number >= 1 && number <= SERVERS_MAX) return number;
  throw new Error(`"${text}" is no server name: servers are s1, s2, …`);
}

/** Address of a server: s1 is 203.0.113.11. */
export function serverAddress(number: number): string {
  return `203.0.113.${10 + number}`;
}

/** Hardware address of a party, the same at every boot. The first byte says "locally made". */
export function hardwareAddress(number: number): string {
  return `02:1a:b0:00:71:${(10 + number).toString(16).padStart(2, "0")}`;
}

/** Everything of a lab that has a name of its own on this machine. */
export interface LabPaths {
  /** The lab's name. */
  readonly name: string;
  /** Folder with all state. */
  readonly state: string;
  /** File that says what this lab is. */
  readonly description: string;
  /** Lock that commands changing the lab take. */
  readonly lock: string;
  /** Control group below each hierarchy, without leading slash. */
  readonly group: string;
  /** Folder of the laptop: home, engine. */
  readonly laptop: string;
}

/** The paths of a lab. */
export function labPaths(name: string): LabPaths {
  const state = `${STATE_ROOT}/${name}`;
  return {
    name,
    state,
    description: `${state}/lab.json`,
    lock: `${STATE_ROOT}/.${name}.lock`,
    group: `jiji-lab/${name}`,
    laptop: `${state}/laptop`,
  };
}

/** Network namespace of a party (`s1`, `laptop`) or of the switch between them (`switch`). */
export function namespaceName(lab: string, party: PartyName): string {
  return `jiji.${lab}.${party}`;
}

/** The lab a network namespace belongs to, if any. */
export function labOfNamespace(namespace: string): string | undefined {
  return /^jiji\.([a-z0-9-]+)\.[a-z0-9]+$/.exec(namespace)?.[1];
}

/** File of a named network namespace. Source: ip-netns(8). */
export function namespaceFile(namespace: string): string {
  return `/run/netns/${namespace}`;
}
