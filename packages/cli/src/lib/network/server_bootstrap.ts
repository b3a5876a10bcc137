import {
  type Clock,
  isLinked,
  JijiError,
  makeMeshSecret,
  managementIp,
  meshSecretId,
  messageOf,
  parseServerStatus,
  type PeerSeed,
  randomHex,
  renderPeerSeeds,
  renderVersionSkew,
  SCHEMA_SQL,
  Secret,
  SERVER_PATHS,
  SERVER_UNITS,
  type ServerRow,
  type ServerStatus,
  waitFor,
} from "@jiji/core";
import { OBSERVE_TIMEOUT_MS, READY_TIMEOUT_MS } from "../../constants.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { mustRun, mustRunScript } from "../../utils/remote.ts";
import type { Emit } from "../output/events.ts";
import { type Artifact, sha256OfText } from "./artifacts.ts";
import {
  type ClusterSettings,
  planCluster,
  type PreparedServer,
  type ServerPlace,
} from "./cluster_plan.ts";
import { type ManagedFile, managedFiles } from "./server_files.ts";
import { isMember, OBSERVE_SCRIPT, parseServerFacts, type ServerFacts } from "./server_facts.ts";
import {
  findServerProblem,
  planConfiguration,
  planPreparation,
  renderServerStep,
  type ServerStep,
} from "./server_plan.ts";
import { applyServerStep, stepDetail } from "./server_steps.ts";

/** A server to bring into the cluster, with its open connection. */
export interface BootstrapTarget {
  readonly name: string;
  /** Address of the configuration. */
  readonly hostAddress: string;
  readonly host: RemoteHost;
}

/** What bootstrapping needs. */
export interface BootstrapOptions {
  readonly settings: ClusterSettings;
  /** Engine and packages must be there: a server that lacks some fails instead of getting them. */
  readonly networkOnly?: boolean;
  readonly artifacts: readonly Artifact[];
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly emit: Emit;
}

/** How it ended for one server. */
export interface BootstrapOutcome {
  readonly name: string;
  /** Steps that were done, in order; none when everything was in place. */
  readonly steps: readonly ServerStep[];
  readonly block: string | undefined;
  readonly error: unknown;
}

/** A server on its way; `error` ends it, the others go on. */
interface Progress {
  readonly target: BootstrapTarget;
  facts: ServerFacts;
  readonly steps: ServerStep[];
  error: unknown;
}

/**
 * Makes every target a member of one cluster: observe all → prepare each → give each its place →
 * configure each → wait until each sees all others. A server that fails leaves the others alone and
 * is finished by the next run.
 *
 * @throws {JijiError} when the cluster as a whole cannot be planned; nothing was configured then.
 */
export async function bootstrapServers(
  targets: readonly BootstrapTarget[],
  options: BootstrapOptions,
): Promise<BootstrapOutcome[]> {
  const runs = await Promise.all(targets.map((target) => observe(target, options)));
  const live = () => runs.filter((run) => run.error === undefined);
  await forEach(live(), (run) => prepare(run, options));
  const rows = await clusterRows(live(), options);
  const mesh = await meshSecret(live());
  const settings = { ...options.settings, meshSecretId: mesh.id };
  const places = planCluster(await prepared(live()), rows, settings);
  await registerNewcomers(live(), { places, secretId: mesh.id }, options);
  await forEach(
    live(),
    (run) =>
      configure(run, { place: places.get(run.target.name)!, meshSecret: mesh.secret }, options),
  );
  const reachable = live().map((run) => run.target.name);
  const expected = { members: expectedServers(rows, reachable), reachable };
  await forEach(live(), (run) => awaitReady(run, expected, options));
  return runs.map((run) => ({
    name: run.target.name,
    steps: run.steps,
    block: places.get(run.target.name)?.config.block,
    error: run.error,
  }));
}

/** Each server goes its own way; what it throws is kept for the report. */
async function forEach(
  runs: readonly Progress[],
  work: (run: Progress) => Promise<void>,
): Promise<void> {
  await Promise.all(runs.map(async (run) => {
    try {
      await work(run);
    } catch (error) {
      run.error = error;
    }
  }));
}

async function observeFacts(target: BootstrapTarget, options: BootstrapOptions) {
  const text = await mustRunScript(target.host, OBSERVE_SCRIPT, {
    what: "looking at the server failed",
    timeoutMs: OBSERVE_TIMEOUT_MS,
    signal: options.signal,
  });
  return parseServerFacts(text, options.clock.nowMs());
}

async function observe(target: BootstrapTarget, options: BootstrapOptions): Promise<Progress> {
  const run: Progress = { target, facts: NO_FACTS, steps: [], error: undefined };
  await forEach([run], async () => {
    run.facts = await observeFacts(target, options);
    const problem = findServerProblem(run.facts, options.settings);
    if (problem) throw new JijiError(`${target.name}: ${problem.message}`, { hint: problem.hint });
  });
  return run;
}

const NO_FACTS: ServerFacts = parseServerFacts("@machine none\n", 0);

async function prepare(run: Progress, options: BootstrapOptions): Promise<void> {
  const steps = planPreparation(run.facts, {
    engine: options.settings.engine,
    binaries: new Map(options.artifacts.map((artifact) => [artifact.name, artifact.sha256])),
    wireguardPort: options.settings.wireguardPort,
  });
  const installing = steps.find(({ kind }) =>
    kind === "installPackages" || kind === "enableEngine"
  );
  if (options.networkOnly && installing) {
    const { name } = run.target;
    throw new JijiError(`${name} is not prepared: ${renderServerStep(installing)}`, {
      hint: `prepare it with: jiji server init --hosts ${name}`,
    });
  }
  await applySteps(run, steps, options);
  if (steps.length > 0) run.facts = await observeFacts(run.target, options);
}

async function applySteps(
  run: Progress,
  steps: readonly ServerStep[],
  options: BootstrapOptions,
): Promise<void> {
  const { clock, emit, settings } = options;
  for (const step of steps) {
    options.signal.throwIfAborted();
    const title = stepDetail(step, settings.engine);
    const startedMs = clock.monotonicMs();
    emit({ kind: "started", lane: run.target.name, title });
    try {
      await applyServerStep(run.target.host, step, {
        facts: run.facts,
        artifacts: options.artifacts,
        signal: options.signal,
      });
    } catch (error) {
      const message = messageOf(error).split("\n")[0] ?? "";
      emit({ kind: "failed", lane: run.target.name, title, message });
      throw error;
    }
    run.steps.push(step);
    const durationMs = clock.monotonicMs() - startedMs;
    emit({ kind: "finished", lane: run.target.name, title, durationMs });
  }
}

async function prepared(runs: readonly Progress[]): Promise<PreparedServer[]> {
  return await Promise.all(runs.map(async (run) => {
    const publicKey = run.facts.publicKey;
    if (publicKey === undefined) {
      throw new JijiError(`${run.target.name} has no readable WireGuard key`, {
        hint: `look at ${SERVER_PATHS.wireguardKey} there`,
      });
    }
    return {
      name: run.target.name,
      host: run.target.hostAddress,
      facts: run.facts,
      publicKey,
      managementIp: await managementIp(publicKey),
    };
  }));
}

async function readStatus(run: Progress, signal: AbortSignal): Promise<ServerStatus | undefined> {
  const argv = [`${SERVER_PATHS.bin}/jiji-daemon`, "status", "--json"] as const;
  const result = await run.target.host.run(argv, { timeoutMs: OBSERVE_TIMEOUT_MS, signal });
  return result.exitCode === 0 ? parseServerStatus(result.stdout) : undefined;
}

/** All server rows ever written, from the first member that knows them. */
async function clusterRows(
  runs: readonly Progress[],
  options: BootstrapOptions,
): Promise<readonly ServerRow[]> {
  const rows = new Map<string, ServerRow>();
  const members = runs.filter((run) => isMember(run.facts));
  const answers = await Promise.allSettled(members.map((run) => readStatus(run, options.signal)));
  for (const answer of answers) {
    const servers = answer.status === "fulfilled" ? answer.value?.servers : undefined;
    for (const row of servers ?? []) rows.set(row.id, row);
  }
  const joining = members.length < runs.length;
  if (joining && members.length > 0 && rows.size === 0) {
    throw new JijiError("no member of the cluster can tell which addresses are taken", {
      hint: `look at ${SERVER_UNITS.corrosion} on ${members[0]!.target.name} ` +
        "(journalctl -u jiji-corrosion), then run this again",
      serving: "nothing was changed on the members; their containers serve on",
    });
  }
  return [...rows.values()];
}

/** Members learn of newcomers from a row that one of them writes on the operator's word. */
async function registerNewcomers(
  runs: readonly Progress[],
  known: { readonly places: ReadonlyMap<string, ServerPlace>; readonly secretId: string },
  options: BootstrapOptions,
): Promise<void> {
  const { places, secretId } = known;
  const members = runs.filter((run) =>
    isMember(run.facts) && run.facts.units.get(SERVER_UNITS.corrosion)?.active
  );
  const newcomers = runs.filter((run) => places.get(run.target.name)!.joins);
  if (members.length === 0) return;
  for (const run of newcomers) {
    const { config } = places.get(run.target.name)!;
    const seed: PeerSeed & { hostname: string } = {
      server_id: config.server_id,
      public_key: config.wireguard_public_key,
      block: config.block,
      management_ip: config.management_ip,
      endpoints: config.endpoints,
      psk: secretId,
      hostname: config.server_id,
    };
    await mustRun(members[0]!.target.host, [
      `${SERVER_PATHS.bin}/jiji-daemon`,
      "servers",
      "add",
    ], {
      what: `announcing ${run.target.name} failed`,
      timeoutMs: OBSERVE_TIMEOUT_MS,
      stdin: JSON.stringify(seed),
      signal: options.signal,
    });
  }
}

/** The secret that the first member has; a first server makes it. It goes over SSH alone. */
async function meshSecret(runs: readonly Progress[]) {
  const members = runs.filter((run) => isMember(run.facts));
  const secret = [...members, ...runs].find((run) => run.facts.meshSecret)?.facts.meshSecret ??
    makeMeshSecret(crypto.getRandomValues(new Uint8Array(32)));
  return { secret, id: await meshSecretId(secret) };
}

async function configure(
  run: Progress,
  its: { readonly place: ServerPlace; readonly meshSecret: Secret },
  options: BootstrapOptions,
): Promise<void> {
  const { place } = its;
  const token = run.facts.token ?? new Secret(randomHex(32));
  const peerSeed: ManagedFile = {
    path: SERVER_PATHS.peerSeed,
    mode: 0o644,
    owner: "root:root",
    content: renderPeerSeeds(place.peers),
  };
  const steps = planConfiguration(run.facts, {
    files: managedFiles(place.config, {
      bootstrap: place.bootstrap,
      token,
      meshSecret: its.meshSecret,
      schema: SCHEMA_SQL,
    }),
    peerSeed,
    hashOf: sha256OfText,
  });
  await applySteps(run, steps, options);
}

function expectedServers(rows: readonly ServerRow[], names: readonly string[]): string[] {
  const gone = new Set(rows.filter((row) => row.removedAtMs !== null).map((row) => row.id));
  const members = rows.map((row) => row.id).filter((id) => !gone.has(id));
  return [...new Set([...members, ...names])].sort();
}

/** Waits until the server knows every expected server and its own parts run. */
async function awaitReady(
  run: Progress,
  expected: ExpectedServers,
  options: BootstrapOptions,
): Promise<void> {
  const { clock, emit, signal } = options;
  const lane = run.target.name;
  const startedMs = clock.monotonicMs();
  let open: string[] = [];
  const ready = await waitFor(async () => {
    const status = await readStatus(run, signal);
    open = status ? openQuestions(status, expected) : ["jiji-daemon does not answer"];
    if (open.length === 0) return status;
    emit({ kind: "started", lane, title: open[0]! });
    return undefined;
  }, { clock, timeoutMs: READY_TIMEOUT_MS, everyMs: 500, signal });
  const durationMs = clock.monotonicMs() - startedMs;
  if (ready) {
    const summary = run.steps.length === 0 ? "as configured" : "ready";
    // Every server would say the same of those that were left out.
    const others = lane === expected.reachable[0] ? otherVersions(ready) : undefined;
    if (others !== undefined) emit({ kind: "notice", lane, message: others });
    return emit({ kind: "done", lane, summary, durationMs });
  }
  const message = `not ready after ${Math.round(durationMs / 1000)} s: ${open.join("; ")}`;
  emit({ kind: "failed", lane, title: "joining", message });
  throw new JijiError(`${lane} is ${message}`, {
    hint: `ssh to ${run.target.hostAddress} and look at: journalctl -u jiji-daemon ` +
      "-u jiji-corrosion -u jiji-dns -n 50; then run jiji server init again",
  });
}

/** Which members run another version of jiji than this server; undefined when none does. */
export function otherVersions({ servers, version }: ServerStatus): string | undefined {
  const members = (servers ?? []).filter(({ removedAtMs }) => removedAtMs === null);
  const versions = members.map(({ id, doc }) => ({ server: id, version: doc.version }));
  const skew = renderVersionSkew(version, versions);
  return skew && `${skew}; run server init there too`;
}

/** Whom a ready server must know, and whom it must also hear. */
export interface ExpectedServers {
  readonly members: readonly string[];
  /** Servers of this run; one that is down must not keep the others from being ready. */
  readonly reachable: readonly string[];
}

/** What this server is still waiting for; empty when it is a full member. */
export function openQuestions(status: ServerStatus, expected: ExpectedServers): string[] {
  const open: string[] = [];
  if (!status.servers) open.push("state: waiting for corrosion");
  const known = new Set((status.servers ?? []).map((server) => server.id));
  const missing = expected.members.filter((id) => !known.has(id));
  if (status.servers && missing.length > 0) open.push(`state: syncing ${missing.join(", ")}`);
  const others = expected.reachable.filter((id) => id !== status.server_id);
  const silent = others.filter((id) =>
    !isLinked(status.liveness ?? undefined, { id, peers: others.length })
  );
  if (silent.length > 0) open.push(`mesh: waiting for ${silent.join(", ")}`);
  for (const [unit, state] of Object.entries(status.units ?? {})) {
    if (state !== "active") open.push(`${unit} is ${state}`);
  }
  return [...open, ...status.problems];
}
