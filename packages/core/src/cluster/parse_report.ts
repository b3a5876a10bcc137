import * as v from "valibot";

/**
 * What one of our programs printed as JSON for another to read.
 *
 * @throws {Error} naming the program and the first field that is wrong.
 */
export function parseReport<T>(
  text: string,
  o: { readonly schema: v.GenericSchema<unknown, T>; readonly name: string },
): T {
  const parsed = v.safeParse(o.schema, JSON.parse(text));
  if (parsed.success) return parsed.output;
  const issue = parsed.issues[0];
  throw new Error(`${o.name}: ${v.getDotPath(issue) ?? "top level"}: ${issue.message}`);
}
