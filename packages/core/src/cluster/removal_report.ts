import * as v from "valibot";
import { parseReport } from "./parse_report.ts";

const RemovalSchema = v.object({
  /** The server's name; null when it was removed before. */
  removed: v.nullable(v.string()),
  /** When it was removed, Unix ms; absent in reports of older servers. */
  removed_at_ms: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1))),
});

/** What `jiji-daemon servers remove NAME` prints. */
export type RemovalReport = v.InferOutput<typeof RemovalSchema>;

/**
 * The report in `text`.
 *
 * @throws {Error} naming the first field that is wrong.
 */
export function parseRemovalReport(text: string): RemovalReport {
  return parseReport(text, { schema: RemovalSchema, name: "jiji-daemon servers remove" });
}
