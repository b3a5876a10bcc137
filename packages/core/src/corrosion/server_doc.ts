import * as v from "valibot";
import { normalizeIp } from "../net/ip.ts";
import { isWireguardKey } from "../net/management_ip.ts";

/**
 * What a server tells of itself beside the columns of its row. Every field may be absent: another
 * version wrote the row, or nobody yet. New facts come here, never in new columns.
 */
export interface ServerDoc {
  /** Version of the jiji-daemon that wrote the row. */
  readonly version?: string | undefined;
  /** `SCHEMA_VERSION` of that daemon. */
  readonly schema?: number | undefined;
  /**
   * Its WireGuard public key and identity, as the columns have them. Transactions arrive in any order
   * and columns one by one: what must agree with `next_key` stands beside it, and counts.
   */
  readonly key?: string | undefined;
  readonly identity?: string | undefined;
  /** Whether others see it at an address that none of its interfaces has. */
  readonly nat?: boolean | undefined;
  /** Which secret its preshared keys are made from: a short hash of it. */
  readonly psk?: string | undefined;
  /** WireGuard public key that it is about to change to. */
  readonly next_key?: string | undefined;
  /** Next keys of other servers that this one takes for theirs already. */
  readonly accepts?: readonly string[] | undefined;
}

/** Longest `doc` that is read, characters: rows of 500 servers must stay cheap to gossip. */
const DOC_CHARACTERS_MAX = 4_096;
/** More servers do not change their keys at a time. */
const ACCEPTS_MAX = 16;

/** A field that is malformed counts as absent; the others stay. */
function field<T>(schema: v.GenericSchema<unknown, T>) {
  return v.optional(v.fallback(v.union([schema, v.undefined()]), undefined));
}

const WireguardKey = v.pipe(v.string(), v.check(isWireguardKey));

/** Shape of a {@link ServerDoc}; what does not have it is left out. */
export const ServerDocSchema: v.GenericSchema<unknown, ServerDoc> = v.object({
  version: field(v.pipe(v.string(), v.regex(/^[0-9A-Za-z.+-]{1,64}$/))),
  schema: field(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(1_000_000))),
  key: field(WireguardKey),
  identity: field(v.pipe(
    v.string(),
    v.check((ip) => ip.includes(":") && normalizeIp(ip) === ip),
  )),
  nat: field(v.boolean()),
  psk: field(v.pipe(v.string(), v.regex(/^[a-f0-9]{16}$/))),
  next_key: field(WireguardKey),
  accepts: field(v.pipe(v.array(WireguardKey), v.maxLength(ACCEPTS_MAX))),
});

/** The facts in a `doc` cell; unknown and malformed ones are left out, other text gives none. */
export function parseServerDoc(cell: string): ServerDoc {
  if (cell.length > DOC_CHARACTERS_MAX) return {};
  try {
    const parsed = v.safeParse(ServerDocSchema, JSON.parse(cell));
    return parsed.success ? JSON.parse(renderServerDoc(parsed.output)) : {};
  } catch {
    return {};
  }
}

/** Text of a `doc` cell; equal facts give equal text. */
export function renderServerDoc(doc: ServerDoc): string {
  const known = Object.entries(doc).filter(([, value]) => value !== undefined);
  return JSON.stringify(Object.fromEntries(known.sort(([a], [b]) => a < b ? -1 : 1)));
}
