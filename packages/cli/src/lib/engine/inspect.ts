import * as v from "valibot";
import {
  CONTAINER_NETWORK,
  type ContainerLabels,
  parseContainerLabels,
  parseIpv4,
} from "@jiji/core";

const PortBinding = v.object({ HostIp: v.optional(v.string()), HostPort: v.string() });

const Inspect = v.object({
  id: v.pipe(v.string(), v.regex(/^[a-f0-9]{12,64}$/)),
  name: v.string(),
  image: v.string(),
  imageName: v.string(),
  created: v.string(),
  state: v.object({
    status: v.string(),
    running: v.boolean(),
    exitCode: v.number(),
    startedAt: v.string(),
  }),
  labels: v.nullable(v.record(v.string(), v.string())),
  networks: v.nullable(
    v.record(v.string(), v.nullable(v.looseObject({ IPAddress: v.optional(v.string()) }))),
  ),
  ports: v.nullish(v.record(v.string(), v.nullable(v.array(PortBinding)))),
});

/** A port of the server that a container has while it runs. */
export interface HostPort {
  /** Undefined for every address. */
  readonly hostIp: string | undefined;
  readonly hostPort: number;
  readonly protocol: "tcp" | "udp";
}

/** A container on a host, as the engine reports it. */
export interface ObservedContainer {
  readonly id: string;
  readonly name: string;
  /** Id of the image it was made from. */
  readonly imageId: string;
  readonly imageName: string;
  readonly createdAtMs: number;
  readonly running: boolean;
  readonly status: string;
  readonly exitCode: number;
  /** Address on jiji's network while running, "" otherwise. */
  readonly address: string;
  /** Ports of the server that it has, or would have if it ran. */
  readonly published: readonly HostPort[];
  /** Undefined when the container is not ours. */
  readonly labels: ContainerLabels | undefined;
}

/**
 * Containers from lines printed with `INSPECT_FORMAT`. Lines that do not parse are given back by
 * number so that the caller can say so; they are never guessed at.
 */
export function parseInspectLines(
  text: string,
): { readonly containers: ObservedContainer[]; readonly refused: number[] } {
  const containers: ObservedContainer[] = [];
  const refused: number[] = [];
  text.split("\n").forEach((line, index) => {
    if (!line.trim()) return;
    const container = parseInspectLine(line);
    if (container) containers.push(container);
    else refused.push(index + 1);
  });
  return { containers, refused };
}

function parseInspectLine(line: string): ObservedContainer | undefined {
  let raw: unknown;
  try {
    raw = JSON.parse(line);
  } catch {
    return undefined;
  }
  const parsed = v.safeParse(Inspect, raw);
  if (!parsed.success) return undefined;
  const found = parsed.output;
  const address = found.networks?.[CONTAINER_NETWORK]?.IPAddress ?? "";
  return {
    id: found.id,
    // Docker writes names with a leading slash, Podman without.
    name: found.name.replace(/^\//, ""),
    imageId: found.image.replace(/^sha256:/, ""),
    imageName: found.imageName,
    createdAtMs: Date.parse(found.created) || 0,
    running: found.state.running,
    status: found.state.status,
    exitCode: found.state.exitCode,
    address: parseIpv4(address) === undefined ? "" : address,
    published: Object.entries(found.ports ?? {}).flatMap(([key, bindings]) =>
      (bindings ?? []).flatMap((binding) => hostPort(key, binding))
    ),
    labels: parseContainerLabels(found.labels ?? {}),
  };
}

/** A binding such as `80/tcp` to `{HostIp: "", HostPort: "8080"}`. */
function hostPort(key: string, binding: v.InferOutput<typeof PortBinding>): HostPort[] {
  const port = Number(binding.HostPort);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) return [];
  return [{
    hostIp: isEveryAddress(binding.HostIp) ? undefined : binding.HostIp,
    hostPort: port,
    protocol: key.endsWith("/udp") ? "udp" : "tcp",
  }];
}

/** Whether a text stands for every address of the server. */
export function isEveryAddress(ip: string | undefined): boolean {
  return ip === undefined || ["", "*", "0.0.0.0", "::", "[::]"].includes(ip);
}
