/** Whether this server may be cut off from most of its cluster. Pure. */

/** What is known of the cluster's members. */
export interface ClusterSight {
  /** Servers without a tombstone, this one included. */
  readonly members: readonly string[];
  readonly self: string;
  /** Members that do not answer this server's probes. */
  readonly silent: ReadonlySet<string>;
}

/** The judgement with its reason, for the log. */
export interface PartitionVerdict {
  readonly partitioned: boolean;
  readonly reason: string;
}

/**
 * A server that reaches only half of the members or fewer counts as cut off. Of two servers that see
 * only themselves both do, so neither removes anything of the other.
 */
export function judgePartition(sight: ClusterSight): PartitionVerdict {
  const total = new Set([...sight.members, sight.self]).size;
  const reached = [...new Set([...sight.members, sight.self])]
    .filter((id) => id === sight.self || !sight.silent.has(id)).length;
  const partitioned = total > 1 && reached * 2 <= total;
  return { partitioned, reason: `${reached} of ${total} servers answer` };
}
