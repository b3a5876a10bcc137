/** How large a packet may be on the way to each server: what is tried, and what follows. Pure. */
import * as v from "valibot";
import { MESH_MTU_MAX, MESH_MTU_MIN, SERVER_NAME } from "@jiji/core/cluster";
import { normalizePrefix, parseEndpoint } from "@jiji/core/net";
import type { Argv } from "@jiji/core/runtime";

/**
 * What WireGuard adds to a packet, octets: its header and tag (32), UDP (8), and IPv4 (20) or IPv6
 * (40). Source: the WireGuard paper, section 5.4.6; RFC 791, RFC 8200, RFC 768.
 */
const OVERHEAD = { four: 60, six: 80 } as const;
/** WireGuard fills packets up to a multiple of this. Source: the WireGuard paper, section 5.4.6. */
const PADDING = 16;
/** IPv6 and UDP headers of a probe, octets. */
const PROBE_HEADERS = 48;

/** Largest mesh packet that an outer packet of `underlay` octets can carry to this endpoint. */
export function meshMtuOf(underlay: number, endpoint: string): number {
  const host = parseEndpoint(endpoint)?.host ?? "";
  const room = underlay - (host.includes(":") ? OVERHEAD.six : OVERHEAD.four);
  return clampMtu(room);
}

function clampMtu(octets: number): number {
  return Math.min(
    MESH_MTU_MAX,
    Math.max(MESH_MTU_MIN, Math.floor(octets / PADDING) * PADDING),
  );
}

/** Sizes that are worth a try above `known`, up to `limit`, ascending. */
export function sizesAbove(known: number, limit: number): number[] {
  const sizes: number[] = [];
  for (let size = known + PADDING; size <= limit; size += PADDING) sizes.push(size);
  return sizes;
}

const MessageSchema = v.object({
  jiji: v.literal(1),
  kind: v.picklist(["size", "sized"]),
  from: v.pipe(v.string(), v.regex(SERVER_NAME)),
  seq: v.pipe(v.number(), v.integer(), v.minValue(0)),
  bytes: v.pipe(
    v.number(),
    v.integer(),
    v.minValue(MESH_MTU_MIN),
    v.maxValue(MESH_MTU_MAX),
  ),
});

/** `size` is as large as it says; `sized` is the short answer to it. */
export type SizeMessage = Omit<v.InferOutput<typeof MessageSchema>, "jiji">;

/** The message's bytes; blanks make a probe as large as it says. */
export function encodeSize(message: SizeMessage): Uint8Array<ArrayBuffer> {
  const text = JSON.stringify({ jiji: 1, ...message });
  const octets = message.kind === "size" ? message.bytes - PROBE_HEADERS : 0;
  return new TextEncoder().encode(text.padEnd(octets));
}

/** The message in these bytes, or undefined; a probe that is not as large as it says is none. */
export function decodeSize(bytes: Uint8Array): SizeMessage | undefined {
  if (bytes.length > MESH_MTU_MAX) return undefined;
  try {
    const parsed = v.safeParse(MessageSchema, JSON.parse(new TextDecoder().decode(bytes)));
    if (!parsed.success) return undefined;
    const { kind, from, seq, bytes: size } = parsed.output;
    if (kind === "size" && bytes.length !== size - PROBE_HEADERS) return undefined;
    return { kind, from, seq, bytes: size };
  } catch {
    return undefined;
  }
}

/** Interface and MTU that the kernel would use for packets to this endpoint. */
export interface OuterRoute {
  readonly device: string;
  /** Smaller than the interface's, because a router said so; undefined when none did. */
  readonly mtu: number | undefined;
}

/** Asks the kernel for its route to a host. Source: ip-route(8). */
export function argvRouteGet(host: string): Argv {
  return ["ip", "route", "get", host];
}

/** The route in the output of {@link argvRouteGet}; undefined when there is none. */
export function parseRouteGet(text: string): OuterRoute | undefined {
  const device = /\bdev (\S+)/.exec(text)?.[1];
  const mtu = /\bmtu (?:lock )?(\d{2,5})\b/.exec(text)?.[1];
  return device === undefined ? undefined : { device, mtu: mtu ? Number(mtu) : undefined };
}

/** A route to a block, with its MTU (0 when it has none of its own). */
export type Routes = ReadonlyMap<string, number>;

/** Routes in the output of `ip route show dev DEVICE`, by canonical prefix. */
export function parseRoutes(text: string): Map<string, number> {
  return new Map(
    text.split("\n").flatMap((line): [string, number][] => {
      const words = line.trim().split(/\s+/);
      const prefix = normalizePrefix(words[0] ?? "");
      const mtu = Number(/\bmtu (?:lock )?(\d{2,5})\b/.exec(line)?.[1] ?? 0);
      return prefix === undefined ? [] : [[prefix, mtu]];
    }),
  );
}
