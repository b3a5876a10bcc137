import * as v from "valibot";

/** Shape of what `jiji-dns names --json` prints. */
export const DnsNamesSchema = v.object({
  /** Whether jiji-dns has read the cluster's state. */
  filled: v.boolean(),
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
