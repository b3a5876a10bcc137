import {
  type Argv,
  assertNever,
  type Cidr,
  cidrHas,
  parseCidr,
  renderCidr,
  SERVER_PATHS,
  SERVER_UNITS,
} from "@jiji/core";
import type { EngineName } from "../engine/engine_commands.ts";
import { type ManagedFile, UNIT_PATHS } from "./server_files.ts";
import { isMember, type ServerFacts } from "./server_facts.ts";
import { type FirewallName, planHostFirewall } from "./host_firewall.ts";

/** Executables that a server gets from us. */
export type BinaryName = "corrosion" | "jiji-dns" | "jiji-daemon";

/** One thing to do on one server. Data only: it prints, and tests compare what it prints. */
export type ServerStep =
  & { readonly cause: string }
  & (
    | { readonly kind: "installPackages"; readonly packages: readonly string[] }
    | { readonly kind: "enableEngine"; readonly units: readonly string[] }
    | { readonly kind: "createUser" }
    | { readonly kind: "makeKey" }
    | { readonly kind: "uploadBinary"; readonly binary: BinaryName }
    | {
      readonly kind: "openFirewall";
      readonly firewall: FirewallName;
      readonly changes: readonly Argv[];
    }
    | { readonly kind: "writeFile"; readonly file: ManagedFile }
    | { readonly kind: "enableUnits"; readonly units: readonly string[] }
    | { readonly kind: "restartUnits"; readonly units: readonly string[] }
    | { readonly kind: "reloadUnits" }
  );

/** What a server should have before it can get its place in the cluster. */
export interface PreparationWish {
  readonly engine: EngineName;
  /** SHA-256 of the executables that belong to this version, by name. */
  readonly binaries: ReadonlyMap<BinaryName, string>;
  readonly wireguardPort: number;
}

/** Oldest engines whose behaviour jiji knows; Debian 12 has these. */
const ENGINE_MIN: Record<EngineName, readonly [major: number, minor: number]> = {
  docker: [20, 10],
  podman: [4, 3],
};

/** A server that cannot become a member, and why. */
export interface ServerProblem {
  readonly message: string;
  readonly hint: string;
}

/** What stops a server before anything is changed on it; undefined when nothing does. */
export function findServerProblem(
  facts: ServerFacts,
  { engine, clusterCidr }: { readonly engine: EngineName; readonly clusterCidr: Cidr },
): ServerProblem | undefined {
  if (!facts.systemd) {
    return {
      message: "systemd does not run there",
      hint: "jiji needs a Linux server booted with systemd",
    };
  }
  if (facts.machine !== "x86_64" && facts.machine !== "aarch64") {
    return {
      message: `its processor is ${facts.machine}`,
      hint: "jiji has programs for x86_64 and aarch64",
    };
  }
  if (facts.packageManager === undefined && missingTools(facts, engine).length > 0) {
    return {
      message: `no package manager that jiji knows (apt-get, dnf, yum) on ${facts.os}`,
      hint: `install ${missingTools(facts, engine).join(", ")} by hand, then run this again`,
    };
  }
  const version = facts.engines.get(engine) ?? "";
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [minMajor, minMinor] = ENGINE_MIN[engine];
  if (version && (major < minMajor || (major === minMajor && minor < minMinor))) {
    return {
      message: `${engine} ${version} is too old`,
      hint: `upgrade it to ${minMajor}.${minMinor} or later`,
    };
  }
  return isMember(facts) ? undefined : findClash(facts, clusterCidr);
}

/**
 * The cluster's network must be free on every server: a block's route would lead what is there now
 * into the mesh. A wider network around it (that of a VPC) is no clash, since blocks go before it.
 */
function findClash(facts: ServerFacts, clusterCidr: Cidr): ServerProblem | undefined {
  const isWithin = (network: Cidr | undefined) =>
    network !== undefined && network.prefix >= clusterCidr.prefix &&
    cidrHas(clusterCidr, network.base);
  const route = facts.routes.find(({ network }) => isWithin(parseCidr(network)));
  const address = facts.addresses.find((ip) => isWithin(parseCidr(`${ip}/32`)));
  const found = route
    ? `${route.network}${route.device === "" ? "" : ` on ${route.device}`}`
    : address;
  return found === undefined ? undefined : {
    message: `it uses part of ${renderCidr(clusterCidr)} already: ${found}`,
    hint: "set network.cluster_cidr to a private network that no server uses",
  };
}

function missingTools(facts: ServerFacts, engine: EngineName): string[] {
  const missing: string[] = [];
  if (!facts.engines.has(engine)) missing.push(engine);
  if (engine === "podman" && !facts.tools.has("netavark")) missing.push("netavark");
  if (!facts.tools.has("wg") || !facts.tools.has("wg-quick")) missing.push("wireguard-tools");
  if (!facts.kernelWireguard && !facts.tools.has("wireguard-go")) missing.push("wireguard-go");
  if (!facts.tools.has("iptables")) missing.push("iptables");
  return missing;
}

/** Package names by manager where they differ from the tool's. */
const PACKAGES: Record<"apt" | "rpm", Readonly<Record<string, readonly string[]>>> = {
  apt: { docker: ["docker.io"], podman: ["podman", "netavark", "runc"] },
  rpm: { docker: ["moby-engine"], podman: ["podman", "netavark"] },
};

/** Steps that make a server ready to join: packages, user, key, executables, firewall. */
export function planPreparation(facts: ServerFacts, wish: PreparationWish): ServerStep[] {
  const steps: ServerStep[] = [];
  const missing = missingTools(facts, wish.engine);
  if (missing.length > 0) {
    const names = PACKAGES[facts.packageManager === "apt-get" ? "apt" : "rpm"];
    steps.push({
      kind: "installPackages",
      packages: [...new Set(missing.flatMap((tool) => names[tool] ?? [tool]))].sort(),
      cause: `missing: ${missing.join(", ")}`,
    });
  }
  const units = engineUnits(wish.engine).filter((unit) => {
    const fact = facts.units.get(unit);
    return !fact?.enabled || (unit === "docker.service" && !fact.active);
  });
  if (units.length > 0) {
    steps.push({ kind: "enableEngine", units, cause: "must run, and come back after a reboot" });
  }
  if (!facts.userExists) steps.push({ kind: "createUser", cause: "no user jiji" });
  if (facts.publicKey === undefined) steps.push({ kind: "makeKey", cause: "no WireGuard key" });
  for (const [binary, sha256] of wish.binaries) {
    const there = facts.files.get(`${SERVER_PATHS.bin}/${binary}`);
    if (there?.sha256 === sha256) continue;
    steps.push({ kind: "uploadBinary", binary, cause: there ? "other version there" : "missing" });
  }
  const opening = facts.firewall && planHostFirewall(facts.firewall, wish);
  if (facts.firewall && opening) {
    steps.push({ kind: "openFirewall", firewall: facts.firewall.name, ...opening });
  }
  return steps;
}

/** Units that bring the engine and its containers back after a reboot. */
function engineUnits(engine: EngineName): string[] {
  return engine === "docker" ? ["docker.service"] : ["podman-restart.service"];
}

/** Hash of a text, given from outside so that the plan stays pure and synchronous. */
export type HashOf = (text: string) => string;

/** Steps that give a prepared server its files and units. */
export function planConfiguration(
  facts: ServerFacts,
  options: {
    readonly files: readonly ManagedFile[];
    /** Written once, when the server joins. */
    readonly peerSeed: ManagedFile;
    readonly hashOf: HashOf;
  },
): ServerStep[] {
  const wanted = facts.files.has(SERVER_PATHS.peerSeed)
    ? options.files
    : [options.peerSeed, ...options.files];
  const changed = wanted.filter((file) => fileCause(facts, file, options.hashOf) !== undefined);
  const steps: ServerStep[] = changed.map((file) => ({
    kind: "writeFile",
    file,
    cause: fileCause(facts, file, options.hashOf)!,
  }));
  const units = Object.values(SERVER_UNITS);
  const idle = units.filter((unit) => !facts.units.get(unit)?.enabled || !isActive(facts, unit));
  if (idle.length > 0) {
    steps.push({ kind: "enableUnits", units: idle, cause: "must run, and start at boot" });
  }
  const restart = (Object.keys(SERVER_UNITS) as (keyof typeof SERVER_UNITS)[])
    .filter((unit) => !idle.includes(SERVER_UNITS[unit]))
    .filter((unit) => changed.some((file) => file.unit === unit) || isStale(facts, unit, wanted));
  if (restart.length > 0) {
    steps.push({
      kind: "restartUnits",
      units: restart.map((unit) => SERVER_UNITS[unit]),
      cause: "older than its files",
    });
  }
  if (idle.length + restart.length === 0 && changed.some(({ path }) => UNIT_PATHS.includes(path))) {
    steps.push({ kind: "reloadUnits", cause: "holds from the next start on" });
  }
  return steps;
}

function fileCause(facts: ServerFacts, file: ManagedFile, hashOf: HashOf): string | undefined {
  const there = facts.files.get(file.path);
  if (!there) return "missing";
  if (there.sha256 !== hashOf(file.content)) return "content differs";
  const mode = `${file.mode.toString(8)} ${file.owner.replace(":", " ")}`;
  return there.mode === mode ? undefined : `is ${there.mode}, must be ${mode}`;
}

function isActive(facts: ServerFacts, unit: string): boolean {
  return facts.units.get(unit)?.active ?? false;
}

const BINARY_OF_UNIT: Record<keyof typeof SERVER_UNITS, BinaryName | undefined> = {
  wireguard: undefined,
  corrosion: "corrosion",
  dns: "jiji-dns",
  daemon: "jiji-daemon",
};

/** A unit started before its executable or a file of its was written runs something old. */
function isStale(
  facts: ServerFacts,
  unit: keyof typeof SERVER_UNITS,
  files: readonly ManagedFile[],
): boolean {
  const startedAtSeconds = facts.units.get(SERVER_UNITS[unit])?.startedAtSeconds ?? 0;
  const binary = BINARY_OF_UNIT[unit];
  const paths = files.filter((file) => file.unit === unit).map((file) => file.path);
  if (binary !== undefined) paths.push(`${SERVER_PATHS.bin}/${binary}`);
  return paths.some((path) => (facts.files.get(path)?.modifiedAtSeconds ?? 0) > startedAtSeconds);
}

/** One line: what and why. */
export function renderServerStep(step: ServerStep): string {
  return `${step.kind} ${stepSubject(step)} — ${step.cause}`.replace("  ", " ");
}

function stepSubject(step: ServerStep): string {
  switch (step.kind) {
    case "installPackages":
      return step.packages.join(" ");
    case "enableEngine":
    case "enableUnits":
    case "restartUnits":
      return step.units.join(" ");
    case "reloadUnits":
      return "systemd";
    case "createUser":
      return "jiji";
    case "makeKey":
      return SERVER_PATHS.wireguardKey;
    case "uploadBinary":
      return step.binary;
    case "openFirewall":
      return step.firewall;
    case "writeFile":
      return step.file.path;
    default:
      return assertNever(step);
  }
}
