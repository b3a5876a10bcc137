import * as v from "valibot";
import { closestWord } from "./suggestions.ts";

/**
 * Between what is wrong and what to write instead, in the one text that valibot lets a schema
 * carry. An unassigned private-use character, so that no value contains it.
 */
const FIX_MARK = "\uE000";

/** Joins a problem and its remedy into one message; {@link splitProblem} takes it apart. */
export function problem(message: string, fix?: string): string {
  return fix === undefined ? message : `${message}${FIX_MARK}${fix}`;
}

/** The two parts of a message made by {@link problem}. */
export function splitProblem(text: string): { message: string; fix?: string } {
  const [message = "", fix] = text.split(FIX_MARK);
  return fix === undefined ? { message } : { message, fix };
}

/** A value as an error quotes it: short, on one line. */
export function quote(value: unknown): string {
  if (value === undefined || value === null) return "nothing";
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? String(value);
  const line = text.replace(/\s+/g, " ");
  return line.length > 60 ? `${line.slice(0, 57)}...` : line;
}

/** Text of a problem with a map's keys. */
export type KeysMessage = (issue: v.StrictObjectIssue) => string;

/** Names other tools use, or that have another place here. */
export type KeyNotes = Readonly<Record<string, string>>;

/**
 * A map with these keys and no others. An unknown key is refused with the key that was probably
 * meant; `notes` says more about keys that people bring along.
 */
export function keys<const Entries extends v.ObjectEntries>(
  entries: Entries,
  notes: KeyNotes = {},
): v.StrictObjectSchema<Entries, KeysMessage> {
  const schema = v.strictObject(entries, (issue: v.StrictObjectIssue) => {
    const key = String(issue.path?.at(-1)?.key ?? "");
    if (issue.expected === "Object") {
      return problem(`${quote(issue.input)} is not a map of keys`, "write `key: value` lines");
    }
    if (issue.expected !== "never") return problem(`${key} is missing`, `add \`${key}:\` here`);
    const note = Object.hasOwn(notes, key) ? notes[key] : undefined;
    if (note !== undefined) return problem(note);
    const meant = closestWord(key, Object.keys(entries));
    return meant === undefined
      ? problem("unknown key", `keys here: ${Object.keys(entries).join(", ")}`)
      : problem(`unknown key, did you mean ${meant}?`);
  });
  return {
    ...schema,
    "~run": (dataset, config) => {
      const input: unknown = dataset.value;
      if (Array.isArray(input)) {
        // valibot takes a list for a map, and then finds Array's own `keys` among its keys.
        return schema["~run"]({ ...dataset, value: JSON.stringify(input) }, config);
      }
      const result = schema["~run"](dataset, config);
      result.issues?.push(...furtherUnknownKeys(input, entries, schema.message));
      return result;
    },
  };
}

/** valibot stops at the first unknown key of a map; users want to see them all. */
function furtherUnknownKeys(
  input: unknown,
  entries: v.ObjectEntries,
  message: KeysMessage,
): v.StrictObjectIssue[] {
  if (typeof input !== "object" || input === null || Array.isArray(input)) return [];
  const unknown = Object.entries(input).filter(([key]) => !Object.hasOwn(entries, key));
  return unknown.slice(1).map(([key, value]) => {
    const issue: v.StrictObjectIssue = {
      kind: "schema",
      type: "strict_object",
      input: key,
      expected: "never",
      received: `"${key}"`,
      message: "",
      path: [{ type: "object", origin: "key", input: { ...input }, key, value }],
    };
    return { ...issue, message: message(issue) };
  });
}

/** Some text that is not empty, e.g. `a user name`. */
export function text(what: string): v.GenericSchema<unknown, string> {
  return v.pipe(
    v.string((issue) => problem(`${quote(issue.input)} is not ${what}`, textFix(issue.input))),
    v.check(
      (value) => value.trim() !== "" && !value.includes("\0"),
      `${what} must not be empty`,
    ),
  );
}

function textFix(input: unknown): string | undefined {
  return typeof input === "number" || typeof input === "boolean"
    ? `write it in quotes: "${input}"`
    : undefined;
}

/** Text that matches; `what` completes "… is not", `fix` says how it is written. */
export function matching(
  pattern: RegExp,
  what: string,
  fix: string,
): v.GenericSchema<unknown, string> {
  return v.pipe(
    v.string((issue) => problem(`${quote(issue.input)} is not ${what}`, fix)),
    v.regex(pattern, (issue) => problem(`${quote(issue.input)} is not ${what}`, fix)),
  );
}

/** `true` or `false`, with a hint for the words that YAML 1.1 took for them. */
export function flag(): v.GenericSchema<unknown, boolean> {
  return v.boolean((issue) => {
    const word = String(issue.input).toLowerCase();
    const meant = ["yes", "on", "y", "true", "1"].includes(word)
      ? "true"
      : ["no", "off", "n", "false", "0"].includes(word)
      ? "false"
      : undefined;
    return meant === undefined
      ? problem(`${quote(issue.input)} is neither true nor false`)
      : problem(
        `${quote(issue.input)} is neither true nor false`,
        `YAML 1.2 reads this as ${typeof issue.input === "number" ? "a number" : "text"}; ` +
          `write ${meant}`,
      );
  });
}

/** A whole number within limits; `what` completes "… is not", e.g. `a port`. */
export function wholeNumber(
  what: string,
  limits: { readonly min: number; readonly max: number },
): v.GenericSchema<unknown, number> {
  const { min, max } = limits;
  return v.custom<number>(
    (input) => typeof input === "number" && Number.isInteger(input) && input >= min && input <= max,
    (issue) =>
      problem(`${quote(issue.input)} is not ${what}`, `a whole number from ${min} to ${max}`),
  );
}

/** A TCP or UDP port. */
export function port(): v.GenericSchema<unknown, number> {
  return wholeNumber("a port", { min: 1, max: 65535 });
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** Milliseconds of `500ms`, `30s`, `5m` or `1h`; undefined for anything else. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d{1,9})(ms|s|m|h)$/.exec(text);
  const unit = match?.[2] === undefined ? undefined : UNIT_MS[match[2]];
  return unit === undefined ? undefined : Number(match?.[1]) * unit;
}

/** A length of time with its unit, in milliseconds; limits in milliseconds. */
export function duration(
  limits: { readonly minMs: number; readonly maxMs: number } = { minMs: 1, maxMs: 86_400_000 },
): v.GenericSchema<unknown, number> {
  return v.pipe(
    v.unknown(),
    v.rawTransform<unknown, number>(({ dataset, addIssue, NEVER }) => {
      const input = dataset.value;
      const ms = typeof input === "string" ? parseDuration(input) : undefined;
      if (ms !== undefined && ms >= limits.minMs && ms <= limits.maxMs) return ms;
      const fix = typeof input === "number"
        ? `write the unit: ${input}s, ${input}m or ${input}ms`
        : "a number with its unit, e.g. 500ms, 30s, 5m or 1h";
      const message = ms === undefined
        ? problem(`${quote(input)} is not a length of time`, fix)
        : problem(`${quote(input)} is too ${ms < limits.minMs ? "short" : "long"}`);
      addIssue({ message });
      return NEVER;
    }),
  );
}

const UNIT_BYTES: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 1_024,
  m: 1_024 ** 2,
  g: 1_024 ** 3,
};

/** Bytes of `512k`, `10m` or `1g`, also with a `b` behind; undefined for anything else. */
export function parseByteSize(text: string): number | undefined {
  const match = /^(\d{1,12}(?:\.\d{1,6})?)([bkmg]?)b?$/i.exec(text);
  const unit = match === null ? undefined : UNIT_BYTES[(match[2] ?? "").toLowerCase()];
  return unit === undefined ? undefined : Math.round(Number(match?.[1]) * unit);
}

/** A number of bytes with its unit, at least 1. */
export function byteSize(): v.GenericSchema<unknown, number> {
  return v.pipe(
    v.unknown(),
    v.rawTransform<unknown, number>(({ dataset, addIssue, NEVER }) => {
      const input = dataset.value;
      const bytes = typeof input === "string" || typeof input === "number"
        ? parseByteSize(String(input))
        : undefined;
      if (bytes !== undefined && bytes >= 1) return bytes;
      const fix = "a number with its unit, e.g. 512k, 10m or 1g";
      addIssue({ message: problem(`${quote(input)} is not an amount of data`, fix) });
      return NEVER;
    }),
  );
}

/** One of a few words. */
export function oneOf<const Words extends readonly string[]>(
  words: Words,
): v.GenericSchema<unknown, Words[number]> {
  return v.picklist(words, (issue) => {
    const meant = closestWord(String(issue.input), words);
    return problem(
      `${quote(issue.input)} is not one of ${words.join(", ")}`,
      meant === undefined ? undefined : `did you mean ${meant}?`,
    );
  });
}

/** A list of items. */
export function list<Item>(item: v.GenericSchema<unknown, Item>): v.GenericSchema<unknown, Item[]> {
  return v.array(
    item,
    (issue) => problem(`${quote(issue.input)} is not a list`, "write one `- item` a line"),
  ) as v.GenericSchema<unknown, Item[]>;
}

/** A map of names to values. */
export function mapOf<Value>(
  value: v.GenericSchema<unknown, Value>,
): v.GenericSchema<unknown, Record<string, Value>> {
  return v.pipe(
    v.custom<Record<string, unknown>>(
      (input) => typeof input === "object" && input !== null && !Array.isArray(input),
      (issue) => problem(`${quote(issue.input)} is not a map`, "write `NAME: value` lines"),
    ),
    v.record(v.string(), value),
  );
}

/** Names of environment variables. Source: POSIX.1-2017 Base Definitions, section 8.1. */
export const VARIABLE_NAME: RegExp = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** A value written like this is the name of a secret or variable, not the value itself. */
export const REFERENCE_NAME: RegExp = /^[A-Z][A-Z0-9_]*$/;

/** The name of a secret, e.g. `DATABASE_URL`. */
export function variableName(): v.GenericSchema<unknown, string> {
  return matching(
    VARIABLE_NAME,
    "a variable name",
    "letters, digits and underscores, no digit in front",
  );
}
