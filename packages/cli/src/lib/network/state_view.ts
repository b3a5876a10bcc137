/** What `jiji network db` shows. Pure. */
import type { StateStats } from "@jiji/core";

/** A cell is cut to this, characters: a screen is no place for more. */
const CELL_MAX = 60;

/** A cell of a query for people: one line, nothing a terminal would obey. */
export function renderCell(cell: unknown): string {
  if (cell === null) return "NULL";
  if (Array.isArray(cell) && cell.every((byte) => typeof byte === "number")) {
    return `x'${cell.map((byte) => byte.toString(16).padStart(2, "0")).join("")}'`
      .slice(0, CELL_MAX);
  }
  const text = typeof cell === "string" ? cell : JSON.stringify(cell) ?? "";
  // deno-lint-ignore no-control-regex
  const plain = text.replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029]/g, " ");
  return plain.length > CELL_MAX ? `${plain.slice(0, CELL_MAX - 1)}…` : plain;
}

/** The state of all servers side by side. */
export interface StatsView {
  readonly header: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Columns of numbers, by index. */
  readonly right: readonly number[];
  /** One sentence each; none when all servers have the same. */
  readonly differences: readonly string[];
}

/** Versions that a server may be behind for the moment that gossip takes. */
const BEHIND_MAX = 3;

/** Lays the servers' statistics side by side and says what differs. */
export function compareStats(stats: ReadonlyMap<string, StateStats>): StatsView {
  const newest = new Map<string, number>();
  for (const { heads } of stats.values()) {
    for (const [writer, head] of Object.entries(heads ?? {})) {
      newest.set(writer, Math.max(head, newest.get(writer) ?? 0));
    }
  }
  const behind = (one: StateStats) =>
    one.heads === null ? null : [...newest].reduce(
      (sum, [writer, head]) => sum + Math.max(0, head - (one.heads?.[writer] ?? 0)),
      0,
    );
  const unknown = (value: number | null) => value === null ? "?" : String(value);
  return {
    header: [
      "server",
      "servers",
      "removed",
      "services",
      "containers",
      "size",
      "members",
      "missing",
      "behind",
    ],
    rows: [...stats].map(([name, one]) => [
      name,
      String(one.rows["servers"] ?? 0),
      String(one.removed_servers.length),
      String(one.rows["services"] ?? 0),
      String(one.rows["containers"] ?? 0),
      renderBytes(one.database_bytes),
      unknown(one.members),
      unknown(one.missing_versions),
      unknown(behind(one)),
    ]),
    right: [1, 2, 3, 4, 5, 6, 7, 8],
    differences: differences(stats, behind),
  };
}

function differences(
  stats: ReadonlyMap<string, StateStats>,
  behind: (one: StateStats) => number | null,
): string[] {
  const found: string[] = [];
  for (const [name, one] of stats) {
    const versions = behind(one) ?? 0;
    if (versions > BEHIND_MAX) found.push(`${name} is ${versions} changes behind the others`);
    if ((one.missing_versions ?? 0) > 0) {
      found.push(`${name} knows of ${one.missing_versions} changes that it has not got yet`);
    }
    if (one.members === 0 && stats.size > 1) {
      found.push(`${name} gossips with nobody; its jiji-daemon mends that within minutes`);
    }
  }
  for (
    const [word, values] of [
      ["schemas", new Map([...stats].map(([name, one]) => [name, String(one.schema)]))],
      [
        "builds of Corrosion",
        new Map([...stats].map(([name, one]) => [name, one.corrosion ?? ""])),
      ],
    ] as const
  ) {
    if (new Set(values.values()).size < 2) continue;
    const list = [...values].map(([name, value]) => `${value || "?"} on ${name}`).join(", ");
    found.push(`${word} differ: ${list}; jiji server init makes them equal`);
  }
  return found;
}

function renderBytes(bytes: number | null): string {
  if (bytes === null) return "?";
  return bytes < 1_048_576
    ? `${Math.round(bytes / 1_024)} kB`
    : `${(bytes / 1_048_576).toFixed(1)} MB`;
}
