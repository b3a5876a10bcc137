/** Which blocks of the cluster's network are somebody's. Pure. */
import { cidrsOverlap, parseCidr } from "../net/ip.ts";

/** What counts of a server's row. */
export interface BlockHolder {
  /** CIDR notation. */
  readonly subnet: string;
  /** Tombstone; null for members. */
  readonly removedAtMs: number | null;
}

/**
 * Rows whose block nobody else may get: those of members, and of removed servers, which may come back
 * to theirs. Blocks of removed servers are not given to others; so one that overlaps a member's was
 * never its own (a bug, a stranger's row), and would keep newcomers out for ever.
 */
export function blockHolders<T extends BlockHolder>(rows: readonly T[]): T[] {
  const members = rows.filter((row) => row.removedAtMs === null)
    .flatMap((row) => parseCidr(row.subnet) ?? []);
  return rows.filter((row) => {
    const block = parseCidr(row.subnet);
    if (row.removedAtMs === null || !block) return block !== undefined;
    return !members.some((member) => cidrsOverlap(member, block));
  });
}
