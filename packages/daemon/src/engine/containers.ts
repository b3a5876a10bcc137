/** Reading `inspect` and `events` of docker and podman. Pure; what does not parse is left out. */
import * as v from "valibot";
import { type ContainerLabels, parseContainerLabels } from "@jiji/core/cluster";
import { CONTAINER_NETWORK } from "@jiji/core/cluster";
import { parseIpv4 } from "@jiji/core/net";

/** Verdict of the image's own HEALTHCHECK; `none` when it has none. */
export type EngineHealth = "none" | "starting" | "healthy" | "unhealthy";

/** A container of this server, as its engine describes it. */
export interface ObservedContainer {
  /** 64 hexadecimal digits. */
  readonly id: string;
  readonly name: string;
  /** Undefined for containers that are not jiji's. */
  readonly labels: ContainerLabels | undefined;
  readonly running: boolean;
  /** Process id of its first process on this server; undefined while it does not run. */
  readonly pid?: number | undefined;
  /** Address in the network `jiji`; undefined while it has none. */
  readonly ip: string | undefined;
  /** When it was made, Unix ms: a restart does not make a container newer than its successor. */
  readonly createdAtMs: number;
  /** When it was last started, Unix ms. */
  readonly startedAtMs: number;
  readonly exitCode: number;
  readonly oomKilled: boolean;
  /** The engine's words on a container that could not start; "" or undefined for none. */
  readonly error?: string | undefined;
  readonly restarts: number;
  readonly engineHealth: EngineHealth;
  /** It was told to end: what its check says until then is no news. Default: no. */
  readonly isEnding?: boolean;
}

const Health = v.nullish(v.object({ Status: v.optional(v.string(), "") }));

const Inspected = v.object({
  Id: v.pipe(v.string(), v.regex(/^[a-f0-9]{12,64}$/)),
  Name: v.string(),
  Created: v.string(),
  RestartCount: v.optional(v.number(), 0),
  State: v.object({
    Running: v.boolean(),
    Pid: v.optional(v.number(), 0),
    Paused: v.optional(v.boolean(), false),
    ExitCode: v.optional(v.number(), 0),
    OOMKilled: v.optional(v.boolean(), false),
    Error: v.optional(v.string(), ""),
    StartedAt: v.string(),
    Health,
    Healthcheck: Health,
  }),
  Config: v.object({ Labels: v.nullish(v.record(v.string(), v.string())) }),
  NetworkSettings: v.object({
    Networks: v.nullish(v.record(
      v.string(),
      v.nullish(v.object({ IPAddress: v.optional(v.string(), "") })),
    )),
  }),
});

/**
 * Containers in the output of `inspect`. Source: Docker Engine API v1.41 ContainerInspect; podman
 * 4.3, which prints the same fields.
 *
 * @throws {Error} when the output is not a JSON list at all.
 */
export function parseInspected(text: string): ObservedContainer[] {
  const list = v.parse(v.array(v.unknown()), JSON.parse(text));
  return list.flatMap((item) => {
    const parsed = v.safeParse(Inspected, item);
    return parsed.success ? [observed(parsed.output)] : [];
  });
}

function observed(raw: v.InferOutput<typeof Inspected>): ObservedContainer {
  const ip = raw.NetworkSettings.Networks?.[CONTAINER_NETWORK]?.IPAddress ?? "";
  return {
    id: raw.Id,
    name: raw.Name.replace(/^\//, ""),
    labels: parseContainerLabels(raw.Config.Labels ?? {}),
    running: raw.State.Running && !raw.State.Paused,
    pid: raw.State.Running && raw.State.Pid > 0 ? raw.State.Pid : undefined,
    ip: parseIpv4(ip) === undefined ? undefined : ip,
    createdAtMs: parseInstant(raw.Created),
    startedAtMs: parseInstant(raw.State.StartedAt),
    exitCode: raw.State.ExitCode,
    oomKilled: raw.State.OOMKilled,
    error: raw.State.Error,
    restarts: raw.RestartCount,
    engineHealth: engineHealth(
      raw.State.Health?.Status || raw.State.Healthcheck?.Status || "",
    ),
  };
}

function engineHealth(status: string): EngineHealth {
  return status === "starting" || status === "healthy" || status === "unhealthy" ? status : "none";
}

/** RFC 3339 with up to nanoseconds; 0 for anything else, such as year 1 of a never-started one. */
function parseInstant(text: string): number {
  const ms = Date.parse(text.replace(/(\.\d{3})\d+/, "$1"));
  return ms > 0 ? ms : 0;
}

/** Ids in the output of `ps -q`. */
export function parseIds(text: string): string[] {
  return text.split("\n").map((line) => line.trim()).filter((id) => /^[a-f0-9]{12,64}$/.test(id));
}
