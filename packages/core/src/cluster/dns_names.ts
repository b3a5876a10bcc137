import * as v from "valibot";

/** Shape of what `jiji-dns names --json` prints. */
export const DnsNamesSchema = v.object({
  /** Whether jiji-dns has read the cluster's state. */
  filled: v.boolean(),
  /** Since Corrosion was last heard, ms; null when not since the start. Older servers do not tell. */
  heard_ms_ago: v.optional(v.nullable(v.number())),
  names: v.array(v.object({
    name: v.string(),
    containers: v.array(v.object({
      address: v.string(),
      server: v.string(),
      /** `{project}-{service}`. */
      service: v.string(),
      version: v.string(),
      health: v.string(),
      answered: v.boolean(),
      /** Why it is or is not answered, for people. */
      why: v.string(),
    })),
  })),
});

/** Names with their containers, and what is answered why. */
export type DnsNames = v.InferOutput<typeof DnsNamesSchema>;

/** Heartbeats of servers come every few seconds: silence for this long means an outage, ms. */
const OUTAGE_MS = 60_000;

/** What to say of the age of these names; undefined when they are of this moment. */
export function ageOfNames(names: DnsNames): string | undefined {
  const { heard_ms_ago: heard } = names;
  if (heard === undefined || (heard !== null && heard < OUTAGE_MS)) return undefined;
  return heard === null
    ? "Corrosion was not heard since jiji-dns started: these are the names known before"
    : `Corrosion was last heard ${Math.round(heard / 1000)} s ago: these are the names of then`;
}

/**
 * The names in `text`.
 *
 * @throws {Error} naming the first field that is wrong.
 */
export function parseDnsNames(text: string): DnsNames {
  const parsed = v.safeParse(DnsNamesSchema, JSON.parse(text));
  if (parsed.success) return parsed.output;
  const issue = parsed.issues[0];
  throw new Error(`names of jiji-dns: ${v.getDotPath(issue) ?? "top level"}: ${issue.message}`);
}
