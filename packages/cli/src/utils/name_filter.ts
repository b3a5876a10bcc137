import { UsageError } from "@jiji/core";

/** Something that `-H` or `-S` can choose. */
export interface Nameable {
  readonly name: string;
  /** Further texts that choose it, e.g. a server's address. */
  readonly aliases: readonly string[];
}

/**
 * Items that match any of the comma-separated patterns (`*` and `?` as in a shell), in their own
 * order; all of them without patterns.
 *
 * @throws {UsageError} when a pattern matches nothing: it is a typing error, never "none".
 */
export function filterByName<T extends Nameable>(
  items: readonly T[],
  patterns: string | undefined,
  options: { readonly what: string; readonly flag: string },
): T[] {
  if (patterns === undefined) return [...items];
  const wanted = patterns.split(",").map((text) => text.trim()).filter(Boolean);
  const chosen = new Set<T>();
  for (const pattern of wanted) {
    const hits = items.filter((item) =>
      [item.name, ...item.aliases].some((text) => matchesGlob(pattern, text))
    );
    if (hits.length === 0) {
      throw new UsageError(`${options.flag} "${pattern}" matches no ${options.what}`, {
        hint: `there are: ${items.map((item) => item.name).join(", ")}`,
      });
    }
    hits.forEach((hit) => chosen.add(hit));
  }
  if (wanted.length === 0) throw new UsageError(`${options.flag} names nothing`);
  return items.filter((item) => chosen.has(item));
}

/** A `*` that does not fit is stretched by one character: no pattern takes more than n × m steps. */
function matchesGlob(glob: string, text: string): boolean {
  let at = 0;
  let next = 0;
  let star = -1;
  let stretchedTo = 0;
  while (at < text.length) {
    if (glob[next] === "*") {
      star = next++;
      stretchedTo = at;
    } else if (glob[next] === "?" || glob[next] === text[at]) {
      next++;
      at++;
    } else if (star >= 0) {
      next = star + 1;
      at = ++stretchedTo;
    } else return false;
  }
  while (glob[next] === "*") next++;
  return next === glob.length;
}
