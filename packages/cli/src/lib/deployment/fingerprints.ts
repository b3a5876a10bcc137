import type { ContainerLabels } from "@jiji/core";
import type { Fingerprint, FingerprintParts } from "../../types/deployment.ts";
import { sha256OfText } from "../network/artifacts.ts";

/** Digits of a hash that go into a label; enough to tell versions apart, too few to look back. */
const HASH_DIGITS = 16;
/** Digits of the hash of one value: a change shows, and far too many values share each hash. */
const PART_DIGITS = 4;

/** Short hash of a value. */
export function shortHash(value: unknown): string {
  return sha256OfText(JSON.stringify(value)).slice(0, HASH_DIGITS);
}

/** What a container is made from. */
export interface FingerprintSource {
  /** Goes into every hash of the environment, so that equal values of two services differ. */
  readonly salt: readonly string[];
  readonly image: string;
  readonly environment: ReadonlyMap<string, string>;
  readonly options: Readonly<Record<string, unknown>>;
}

/** Hashes of a container's image, environment and options. */
export function fingerprintOf(source: FingerprintSource): Fingerprint {
  const environment = [...source.environment].sort();
  const part = (name: string, value: unknown) =>
    shortHash([...source.salt, name, value]).slice(0, PART_DIGITS);
  const options = Object.entries(source.options).filter(([, value]) => !isEmpty(value))
    .sort(([a], [b]) => a < b ? -1 : 1);
  return {
    image: shortHash(source.image),
    environment: shortHash([...source.salt, environment]),
    options: shortHash(options),
    parts: {
      environment: Object.fromEntries(environment.map(([name, value]) => [
        name,
        part(name, value),
      ])),
      options: Object.fromEntries(options.map(([name, value]) => [name, part(name, value)])),
    },
  };
}

/** An option that is not set adds nothing, so that a new option of jiji replaces no container. */
function isEmpty(value: unknown): boolean {
  return value === undefined || value === false ||
    (Array.isArray(value) && value.length === 0) ||
    (typeof value === "object" && value !== null && Object.keys(value).length === 0);
}

/** Text of a fingerprint in a container's label. */
export function renderFingerprint(fingerprint: Fingerprint): string {
  return `i=${fingerprint.image},e=${fingerprint.environment},o=${fingerprint.options}`;
}

/** The fingerprint in a container's labels, as far as they have one. */
export function parseFingerprint(
  labels: ContainerLabels | undefined,
): Partial<Omit<Fingerprint, "parts">> & { readonly parts: FingerprintParts } {
  const parts = labels?.parts ?? { environment: {}, options: {} };
  const match = /^i=([a-f0-9]+),e=([a-f0-9]+),o=([a-f0-9]+)$/.exec(labels?.config ?? "");
  return match
    ? { image: match[1]!, environment: match[2]!, options: match[3]!, parts }
    : { parts };
}

/** Names told at most; the rest is counted. */
const NAMES_MAX = 5;

/** `environment changed: API_URL, LOG_LEVEL (new), OLD (gone)`: by name, never by value. */
export function changedParts(
  what: keyof FingerprintParts,
  there: FingerprintParts,
  wanted: FingerprintParts,
): string {
  const [before, after] = [there[what], wanted[what]];
  // A container that an older jiji made has no parts: nothing can be told by name.
  if (Object.keys(there.options).length === 0) return `${what} changed`;
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort();
  const changes = names.filter((name) => before[name] !== after[name]).map((name) =>
    before[name] === undefined
      ? `${name} (new)`
      : after[name] === undefined
      ? `${name} (gone)`
      : name
  );
  if (changes.length === 0) return `${what} changed`;
  const more = changes.length > NAMES_MAX ? ` and ${changes.length - NAMES_MAX} more` : "";
  return `${what} changed: ${changes.slice(0, NAMES_MAX).join(", ")}${more}`;
}
