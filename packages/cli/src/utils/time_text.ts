const UNIT_MS: Readonly<Record<string, number>> = {
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** Milliseconds of `90s`, `30m`, `2h` or `7d`; undefined for anything else. */
export function parseAge(text: string): number | undefined {
  const match = /^(\d{1,6})([smhd])$/.exec(text);
  return match === null ? undefined : Number(match[1]) * UNIT_MS[match[2]!]!;
}

/**
 * Unix milliseconds of a moment as a user writes it: `30m` ago, or a time that begins with a date
 * (`2026-11-23`, `2026-11-23T05:00Z`; without a zone it is UTC); undefined for anything else.
 */
export function parseMoment(text: string, nowMs: number): number | undefined {
  const age = parseAge(text);
  if (age !== undefined) return nowMs - age;
  if (!/^\d{4}-\d\d-\d\d/.test(text)) return undefined;
  const zoned = /(Z|[+-]\d\d:?\d\d)$/.test(text) || text.length === 10;
  const ms = Date.parse(zoned ? text : `${text.replace(" ", "T")}Z`);
  return Number.isNaN(ms) ? undefined : ms;
}
