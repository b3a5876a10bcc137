import * as v from "valibot";
import {
  type Argv,
  CONTAINER_NETWORK,
  isVouched,
  PROXY_CONTAINER,
  PROXY_VOLUME,
  PROXY_VOLUME_TARGET,
  type ProxyRoute,
  SERVER_PATHS,
} from "@jiji/core";
import { PROXY_IMAGE } from "../../constants.ts";
import { argvPinned } from "./container_run.ts";
import { argvExec, type EngineName } from "./engine_commands.ts";

/** What `kamal-proxy` needs to start on a server. */
export interface ProxyPlace {
  readonly engine: EngineName;
  /** Pinned address in the server's block. */
  readonly address: string;
  readonly dnsServer: string;
}

/** `docker run` of the proxy. Its image listens on 80 and 443 (kamal-proxy 0.9.2 `run` defaults). */
export function argvRunProxy(place: ProxyPlace): Argv {
  return [
    place.engine,
    "run",
    "--detach",
    "--name",
    PROXY_CONTAINER,
    "--network",
    CONTAINER_NETWORK,
    ...argvPinned(place.engine, place.address),
    "--dns",
    place.dnsServer,
    "--restart",
    // podman-restart.service brings back only `always` after a reboot. Source: podman-run(1).
    place.engine === "podman" ? "always" : "unless-stopped",
    // The image runs as its own user; Docker lets it listen on 80, Podman must be told.
    ...(place.engine === "podman" ? ["--sysctl", "net.ipv4.ip_unprivileged_port_start=0"] : []),
    "--publish",
    "80:80",
    "--publish",
    "443:443",
    "--volume",
    `${PROXY_VOLUME}:${PROXY_VOLUME_TARGET}`,
    "--log-opt",
    "max-size=10m",
    "--label",
    "jiji.proxy.address=" + place.address,
    PROXY_IMAGE,
  ];
}

/**
 * Points a route at exactly these targets, through the CLI inside the proxy's own container: CLI
 * and server of kamal-proxy must be of one version. It returns when the targets are healthy and the
 * former ones have drained.
 */
export function argvDeployRoute(
  engine: EngineName,
  route: ProxyRoute,
  options: {
    readonly targets: readonly string[];
    readonly drainTimeoutMs: number;
    readonly deployTimeoutMs: number;
  },
): Argv {
  const argv = argvExec(engine, PROXY_CONTAINER, [
    "kamal-proxy",
    "deploy",
    route.name,
    ...options.targets.map((target) => `--target=${target}`),
    `--deploy-timeout=${options.deployTimeoutMs}ms`,
    `--drain-timeout=${options.drainTimeoutMs}ms`,
    ...route.flags,
  ]);
  if (!isVouched(route)) return argv;
  const timeoutMs = options.deployTimeoutMs + options.drainTimeoutMs + VOUCH_SPARE_MS;
  return [
    `${SERVER_PATHS.bin}/jiji-daemon`,
    "vouch",
    `--targets=${options.targets.join(",")}`,
    `--timeout-ms=${timeoutMs}`,
    "--",
    ...argv,
  ];
}

/** What starting a voucher takes beside the command, with room to spare, milliseconds. */
const VOUCH_SPARE_MS = 15_000;

/** Lets a route take no further requests (503) and returns when those in flight have ended. */
export function argvStopRoute(
  engine: EngineName,
  name: string,
  options: { readonly drainTimeoutMs: number },
): Argv {
  const drain = `--drain-timeout=${options.drainTimeoutMs}ms`;
  return argvExec(engine, PROXY_CONTAINER, ["kamal-proxy", "stop", name, drain]);
}

/** Takes a route away. It does not wait for requests in flight. */
export function argvRemoveRoute(engine: EngineName, name: string): Argv {
  return argvExec(engine, PROXY_CONTAINER, ["kamal-proxy", "remove", name]);
}

/** Host names and paths that a route of the proxy answers. */
export interface ProxyClaim {
  /** Name of the route. */
  readonly name: string;
  /** "" is any host. */
  readonly hosts: readonly string[];
  /** `/` is every path. */
  readonly pathPrefixes: readonly string[];
}

const ClaimsFile = v.array(v.looseObject({
  name: v.string(),
  options: v.looseObject({
    hosts: v.nullish(v.array(v.string())),
    path_prefixes: v.nullish(v.array(v.string())),
  }),
}));

/** What the routes in the proxy's state file answer; undefined for half a file. */
export function parseProxyClaims(text: string): ProxyClaim[] | undefined {
  if (text.trim() === "") return [];
  try {
    const parsed = v.safeParse(ClaimsFile, JSON.parse(text));
    if (!parsed.success) return undefined;
    return parsed.output.map(({ name, options }) => ({
      name,
      hosts: options.hosts?.length ? options.hosts : [""],
      pathPrefixes: options.path_prefixes?.length ? options.path_prefixes : ["/"],
    }));
  } catch {
    return undefined;
  }
}
