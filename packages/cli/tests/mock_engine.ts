import { PROXY_CONTAINER } from "@jiji/core";
import { behaves, type MockContainer, type MockServerState } from "./mock_server_state.ts";

/** How a mocked command ended; `undefined` when the command is unknown. */
export type MockResult =
  | { readonly exitCode: number; readonly stdout: string; readonly stderr: string }
  | undefined;

/** Success with this output. */
export function ok(stdout = ""): MockResult {
  return { exitCode: 0, stdout, stderr: "" };
}

/** Failure with this complaint. */
export function failed(exitCode: number, stderr: string): MockResult {
  return { exitCode, stdout: "", stderr };
}

/** `docker …` or `podman …` without the program's name. */
export function runEngine(state: MockServerState, args: readonly string[]): MockResult {
  const [command, ...rest] = args;
  switch (command) {
    case "run":
      return run(state, rest);
    case "rename":
      return rename(state, rest);
    case "stop":
      return rest[0] === "--time" && rest.length === 3
        ? onContainer(state, rest[2], (container) => container.running = false)
        : undefined;
    case "start":
      return rest.length === 1
        ? onContainer(state, rest[0], (one) => one.running = true)
        : undefined;
    case "rm":
      return rest[0] === "--force" && rest[1] === "--volumes" && rest.length === 3
        ? onContainer(state, rest[2], (container) => {
          state.containers.splice(state.containers.indexOf(container), 1);
        })
        : undefined;
    case "pull":
      return pull(state, rest.at(-1) ?? "");
    case "image":
      return rest.slice(0, 3).join(" ") === "inspect --format {{.Id}}"
        ? state.images.has(rest[3] ?? "") ? ok("sha256:1\n") : failed(1, "No such image")
        : undefined;
    case "images":
      return ok(listImages(state, rest.at(-1) ?? ""));
    case "rmi":
      return state.images.delete(rest[0] ?? "") ? ok() : failed(1, "No such image");
    case "exec":
      return exec(state, rest);
    default:
      return undefined;
  }
}

function onContainer(
  state: MockServerState,
  name: string | undefined,
  act: (container: MockContainer) => unknown,
): MockResult {
  const container = state.find(name ?? "");
  if (container === undefined) return failed(1, `Error: No such container: ${name}`);
  act(container);
  return ok(`${name}\n`);
}

function rename(state: MockServerState, [from, to]: readonly string[]): MockResult {
  if (to === undefined) return undefined;
  if (state.find(to) !== undefined) {
    return failed(1, `Conflict. The name "/${to}" is already in use`);
  }
  return onContainer(state, from, (container) => container.name = to);
}

function pull(state: MockServerState, image: string): MockResult {
  if (behaves(image, "missing")) return failed(1, `manifest for ${image} not found`);
  state.images.add(image);
  return ok(`${image}\n`);
}

function listImages(state: MockServerState, repository: string): string {
  return [...state.images].filter((image) => image.startsWith(`${repository}:`)).reverse()
    .map((image) =>
      JSON.stringify({
        id: image,
        repository,
        tag: image.slice(repository.length + 1),
        created: "2026-11-23",
      }) + "\n"
    ).join("");
}

/** Flags of `run` that jiji uses; each takes a value. */
const RUN_FLAGS = new Set([
  "--name",
  "--network",
  "--ip",
  "--mac-address",
  "--dns",
  "--dns-search",
  "--dns-option",
  "--restart",
  "--stop-timeout",
  "--env-file",
  "--publish",
  "--volume",
  "--cpus",
  "--memory",
  "--gpus",
  "--device",
  "--cap-add",
  "--label",
  "--log-driver",
  "--log-opt",
  "--sysctl",
]);

/** Flags and values by flag, and what follows them; undefined for a flag that jiji does not use. */
function parseRun(
  args: readonly string[],
): { flags: Map<string, string[]>; image: string } | undefined {
  const flags = new Map<string, string[]>();
  for (let at = 0; at < args.length; at++) {
    const word = args[at]!;
    if (word === "--detach" || word === "--privileged") continue;
    if (!word.startsWith("--")) return { flags, image: word };
    const value = args[++at];
    if (!RUN_FLAGS.has(word) || value === undefined) return undefined;
    flags.set(word, [...flags.get(word) ?? [], value]);
  }
  return undefined;
}

function run(state: MockServerState, args: readonly string[]): MockResult {
  const parsed = parseRun(args);
  const one = (flag: string) => parsed?.flags.get(flag)?.[0] ?? "";
  const name = one("--name");
  if (parsed === undefined || name === "") return undefined;
  const { image } = parsed;
  if (state.find(name) !== undefined) {
    return failed(125, `Conflict. The container name "/${name}" is already in use`);
  }
  if (behaves(image, "unstartable")) return failed(127, "exec: no such file or directory");
  const envFile = one("--env-file");
  if (envFile !== "" && !state.files.has(envFile)) {
    return failed(125, `open ${envFile}: no such file`);
  }
  const labels = (parsed.flags.get("--label") ?? []).map((label) => {
    const equals = label.indexOf("=");
    return [label.slice(0, equals), label.slice(equals + 1)] as const;
  });
  const container: MockContainer = {
    id: crypto.randomUUID().replaceAll("-", "").padEnd(64, "0"),
    name,
    image,
    running: false,
    exitCode: 0,
    createdAtMs: state.cluster.nextMs(),
    labels: Object.fromEntries(labels),
    address: one("--ip"),
    hostPorts: (parsed.flags.get("--publish") ?? []).map(hostPortOf),
    environment: new TextDecoder().decode(state.files.get(envFile)?.bytes),
  };
  return start(state, container);
}

/** `8080/tcp` of `[ip:]8080:80[/tcp]`. */
function hostPortOf(text: string): string {
  const [ports = "", protocol = "tcp"] = text.split("/");
  return `${ports.split(":").at(-2)}/${protocol}`;
}

/** Docker keeps a container that could not start, in the state `created`. */
function start(state: MockServerState, container: MockContainer): MockResult {
  const running = state.containers.filter((other) => other.running);
  state.containers.push(container);
  const taken = running.flatMap((other) => other.hostPorts)
    .find((port) => container.hostPorts.includes(port));
  if (taken !== undefined) {
    return failed(125, `Bind for 0.0.0.0:${taken} failed: port is already allocated`);
  }
  if (container.address !== "" && running.some((other) => other.address === container.address)) {
    return failed(125, "Address already in use");
  }
  container.running = !behaves(container.image, "crashes");
  container.exitCode = container.running ? 0 : 1;
  if (container.name === PROXY_CONTAINER) state.proxyVolume = true;
  return ok(`${container.id}\n`);
}

function exec(state: MockServerState, [name, ...command]: readonly string[]): MockResult {
  const proxy = state.find(PROXY_CONTAINER);
  if (name !== PROXY_CONTAINER || command[0] !== "kamal-proxy") return undefined;
  if (proxy?.running !== true) return failed(1, `Error: container ${name} is not running`);
  const [, verb, route = "", ...flags] = command;
  if (verb === "list") return ok();
  if (verb === "remove") {
    return state.routes.delete(route) ? ok() : failed(1, "Error: service not found");
  }
  return verb === "deploy" ? deployRoute(state, route, flags) : undefined;
}

const DEPLOY_FLAGS =
  /^--(target|(deploy|drain|target)-timeout|(canonical-)?host|(strip-)?path-prefix|tls|tls-(redirect|certificate-path|private-key-path)|forward-headers|buffer-(requests|responses|memory)|max-(request|response)-body|log-(request|response)-header|health-check-(path|port|interval|timeout|host)|force)(=|$)/;

/** As kamal-proxy does: unhealthy targets leave the former ones in place. */
function deployRoute(
  state: MockServerState,
  route: string,
  flags: readonly string[],
): MockResult {
  if (!flags.every((flag) => DEPLOY_FLAGS.test(flag))) return undefined;
  const targets = flags.filter((flag) => flag.startsWith("--target="))
    .map((flag) => flag.slice("--target=".length));
  if (targets.length === 0) return undefined;
  const healthy = targets.every((target) => state.answersAt(target.split(":")[0]!));
  if (state.proxyRefuses || (!healthy && !flags.includes("--force"))) {
    return failed(1, "Error: target failed to become healthy within configured timeout (30s)");
  }
  if (!state.proxyLies) state.routes.set(route, targets);
  return ok();
}
