/** Commands to the container engine. Pure: every command has a test of its exact words. */
import { LABELS } from "@jiji/core/cluster";
import type { Argv } from "@jiji/core/runtime";

/** Container engines jiji knows. */
export type Engine = "docker" | "podman";

/** Ids of all of jiji's containers, stopped ones too. */
export function argvListIds(engine: Engine): Argv {
  return [engine, "ps", "-a", "-q", "--no-trunc", "--filter", `label=${LABELS.project}`];
}

/** Everything about these containers, one JSON list. */
export function argvInspect(engine: Engine, names: readonly string[]): Argv {
  return [engine, "inspect", "--type", "container", ...names];
}

/** Container events as they happen, one JSON object a line. */
export function argvEvents(engine: Engine): Argv {
  const format = engine === "docker" ? "{{json .}}" : "json";
  return [engine, "events", "--filter", "type=container", "--format", format];
}

/** Runs a command line with the container's own shell. */
export function argvExecShell(
  engine: Engine,
  exec: { readonly id: string; readonly command: string },
): Argv {
  return [engine, "exec", exec.id, "/bin/sh", "-c", exec.command];
}

/** The last lines a container wrote. */
export function argvLogsTail(
  engine: Engine,
  logs: { readonly id: string; readonly lines: number },
): Argv {
  return [engine, "logs", "--tail", String(logs.lines), logs.id];
}

/** Runs kamal-proxy's own command line in its container. */
export function argvProxyExec(
  engine: Engine,
  proxy: { readonly container: string; readonly args: readonly string[] },
): Argv {
  return [engine, "exec", proxy.container, "kamal-proxy", ...proxy.args];
}

/** Where a volume's files are on the host. */
export function argvVolumePath(engine: Engine, volume: string): Argv {
  return [engine, "volume", "inspect", "--format", "{{.Mountpoint}}", volume];
}

/** A network's description, one JSON list. */
export function argvNetworkInspect(engine: Engine, network: string): Argv {
  return [engine, "network", "inspect", network];
}

/** Removes a network; the engine refuses while a container is attached. */
export function argvNetworkRemove(engine: Engine, network: string): Argv {
  return [engine, "network", "rm", network];
}

/** A network to create. */
export interface NetworkSpec {
  readonly name: string;
  readonly bridge: string;
  readonly subnet: string;
  readonly gateway: string;
  /** Interface whose routed traffic may reach the containers. */
  readonly trustedInterface: string;
}

/**
 * Creates docker's network. Docker 28 and later drop routed traffic unless the bridge trusts the
 * interface it comes from; older versions ignore options they do not know, and having it from the
 * start means that an engine upgrade changes nothing. Podman's network is a file instead, see
 * `renderNetavarkNetwork`.
 */
export function argvDockerNetworkCreate(spec: NetworkSpec): Argv {
  return [
    ...["docker", "network", "create", "--driver", "bridge"] as const,
    ...["--subnet", spec.subnet, "--gateway", spec.gateway],
    ...["--opt", `com.docker.network.bridge.name=${spec.bridge}`],
    ...["--opt", `com.docker.network.bridge.trusted_host_interfaces=${spec.trustedInterface}`],
    spec.name,
  ];
}
