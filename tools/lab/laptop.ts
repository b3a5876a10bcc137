/** The operator's laptop: a place in the lab's network with a key and an engine to build with. */
import { removeTree } from "../prepare/cache.ts";
import { waitFor } from "../prepare/command.ts";
import { HUB_ADDRESS, HUB_REGISTRY } from "../prepare/root.ts";
import { killGroup } from "./cgroups.ts";
import { shellQuote, shellWords, startDetached } from "./detached.ts";
import { type LabPaths, LAPTOP_ADDRESS, namespaceFile, namespaceName } from "./names.ts";
import { plugIn } from "./network.ts";
import { createKey, type LabContext } from "./server.ts";

/** Longest wait for one answer of the engine, in milliseconds. */
const ENGINE_ANSWER_MS = 2000;

/** Socket of the laptop's engine. */
export function laptopSocket(paths: LabPaths): string {
  return `${paths.laptop}/docker.sock`;
}

/** Control group of the laptop's engine. */
export function laptopEngineGroup(paths: LabPaths): string {
  return `${paths.group}/laptop`;
}

/** Control group of all that is run as the operator. */
export function operatorGroup(paths: LabPaths): string {
  return `${paths.group}/operator`;
}

/** Configuration files of the laptop, by path below its folder. */
export function laptopFiles(paths: LabPaths): Readonly<Record<string, string>> {
  const { laptop } = paths;
  return {
    "resolv.conf": `nameserver ${HUB_ADDRESS}\noptions timeout:2 attempts:2\n`,
    "daemon.json": `${
      JSON.stringify({
        "registry-mirrors": [`http://${HUB_REGISTRY}`],
        "insecure-registries": [HUB_REGISTRY],
        "data-root": `${laptop}/engine`,
        "exec-root": `${laptop}/run`,
        "pidfile": `${laptop}/docker.pid`,
        "hosts": [`unix://${laptopSocket(paths)}`],
        "cgroup-parent": `/${laptopEngineGroup(paths)}/containers`,
        "userland-proxy": false,
        "dns": [HUB_ADDRESS],
      })
    }\n`,
    "containers/storage.conf": `[storage]
driver = "overlay"
graphroot = "${laptop}/podman"
runroot = "${laptop}/podman-run"
`,
    "containers/containers.conf": `[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
cgroups = "disabled"

[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"

[network]
network_backend = "netavark"
`,
    "containers/registries.conf": `unqualified-search-registries = ["docker.io"]

[[registry]]
prefix = "docker.io"
location = "docker.io"

[[registry.mirror]]
location = "${HUB_REGISTRY}"
insecure = true

[[registry]]
location = "localhost:31270"
insecure = true
`,
  };
}

/** Control group of the keeper. */
export function keeperGroup(paths: LabPaths): string {
  return `${paths.group}/keeper`;
}

/**
 * Starts a process that does nothing but stay in the machine's own namespaces: through it bin/lab
 * finds its way back when it is called from within \`run\`.
 */
export async function startKeeper(context: LabContext): Promise<void> {
  await startDetached(context.layout, {
    group: keeperGroup(context.paths),
    log: `${context.paths.laptop}/keeper.log`,
    sharesMounts: true,
    script: "exec sleep infinity",
  });
}

/** Makes the laptop: its place in the network, its home and key, its engine's configuration. */
export async function createLaptop(context: LabContext): Promise<void> {
  const { paths } = context;
  for (const name of ["home", "bin", "containers", "engine"]) {
    await Deno.mkdir(`${paths.laptop}/${name}`, { recursive: true });
  }
  for (const [path, text] of Object.entries(laptopFiles(paths))) {
    await Deno.writeTextFile(`${paths.laptop}/${path}`, text);
  }
  // The client that belongs to the engine, whatever else the machine has.
  await Deno.symlink("/usr/bin/docker", `${paths.laptop}/bin/docker`);
  await createKey(paths);
  await plugIn(paths.name, {
    name: "laptop",
    address: LAPTOP_ADDRESS,
    hardwareAddress: "02:1a:b0:00:71:01",
  });
}

/** Whether the laptop's engine answers. Source: Docker Engine API, `GET /_ping`. */
async function engineAnswers(paths: LabPaths): Promise<boolean> {
  try {
    using connection = await Deno.connect({ transport: "unix", path: laptopSocket(paths) });
    const late = setTimeout(() => connection.close(), ENGINE_ANSWER_MS);
    try {
      await connection.write(new TextEncoder().encode("GET /_ping HTTP/1.0\r\n\r\n"));
      const answer = new Uint8Array(64);
      const length = await connection.read(answer);
      return new TextDecoder().decode(answer.subarray(0, length ?? 0)).includes(" 200 ");
    } finally {
      clearTimeout(late);
    }
  } catch {
    return false;
  }
}

/** Starts the laptop's engine unless it answers, and returns without waiting for it. */
export async function startLaptopEngine(context: LabContext): Promise<void> {
  const { paths, layout } = context;
  if (await engineAnswers(paths)) return;
  const group = laptopEngineGroup(paths);
  await killGroup(layout, group);
  for (const left of ["docker.pid", "docker.sock", "run"]) {
    await removeTree(`${paths.laptop}/${left}`);
  }
  await startDetached(layout, {
    group,
    log: `${paths.laptop}/engine.log`,
    network: namespaceFile(namespaceName(paths.name, "laptop")),
    // Nothing of it shows in the machine's own /run.
    script: [
      "mount -t tmpfs -o mode=755 tmpfs /run",
      `exec ${shellWords(["/usr/sbin/dockerd", "--config-file", `${paths.laptop}/daemon.json`])}`,
    ].join("\n"),
  });
}

/**
 * Waits until the laptop's engine answers.
 * @throws Error naming its log when it does not in 30 s
 */
export async function waitForLaptopEngine(context: LabContext): Promise<void> {
  const check = async () => await engineAnswers(context.paths) ? true : undefined;
  if (await waitFor(check, { timeoutMs: 30_000 })) return;
  throw new Error(`the laptop's engine does not start; see ${context.paths.laptop}/engine.log`);
}

/** Environment of what is run as the operator; an undefined value takes the variable away. */
export function operatorEnvironment(
  paths: LabPaths,
  options: {
    readonly checkout: string;
    readonly path: string;
    readonly home: string;
    readonly cache: string;
    readonly corrosion: string;
    readonly denoDir: string | undefined;
  },
): Readonly<Record<string, string | undefined>> {
  const containers = `${paths.laptop}/containers`;
  return {
    PATH: `${options.checkout}/build:${paths.laptop}/bin:${options.path}`,
    HOME: `${paths.laptop}/home`,
    DENO_DIR: options.denoDir ?? `${options.home}/.cache/deno`,
    DOCKER_HOST: `unix://${laptopSocket(paths)}`,
    CONTAINERS_STORAGE_CONF: `${containers}/storage.conf`,
    CONTAINERS_CONF: `${containers}/containers.conf`,
    CONTAINERS_REGISTRIES_CONF: `${containers}/registries.conf`,
    JIJI_CACHE: options.cache,
    JIJI_CORROSION: options.corrosion,
    JIJI_LAB: paths.name,
    JIJI_LAB_INSIDE: paths.name,
    DOCKER_CONTEXT: undefined,
    SSH_AUTH_SOCK: undefined,
    SSH_AGENT_PID: undefined,
  };
}

/** Shell text that sets an environment. */
export function shellEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
): string {
  return Object.entries(environment).map(([name, value]) =>
    value === undefined ? `unset ${name}` : `export ${name}=${shellQuote(value)}`
  ).join("\n");
}

/**
 * Shell commands that become the operator and then the command given as arguments. The SSH client
 * looks in the user's real home, so the lab's keys are put there, for this command alone.
 */
export function renderOperatorScript(options: {
  readonly join: string;
  readonly environment: string;
  readonly laptop: string;
}): string {
  const { laptop } = options;
  return [
    options.join,
    'home=$(getent passwd "$(id -u)" | cut -d: -f6)',
    'mkdir -p -m 700 "$home/.ssh"',
    `mount --bind ${shellQuote(`${laptop}/home/.ssh`)} "$home/.ssh"`,
    `mount --bind ${shellQuote(`${laptop}/resolv.conf`)} /etc/resolv.conf`,
    options.environment,
    'exec "$@"',
  ].join("\n");
}
