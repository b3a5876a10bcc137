/** What the rule "newest container wins" looks at. */
export interface Contender {
  readonly id: string;
  readonly project: string;
  readonly service: string;
  readonly serverId: string;
  readonly instance: string;
  /** Unix milliseconds. */
  readonly startedAtMs: number;
}

/**
 * Of containers that stand for the same instance on the same server only the one started last
 * stays; equal times are settled by id, so every reader picks the same. Order of input is kept.
 */
export function newestPerInstance<T extends Contender>(containers: readonly T[]): T[] {
  if (containers.length < 2) return [...containers];
  const newest = new Map<string, T>();
  for (const container of containers) {
    // No name has a blank, so none can be mistaken for two others.
    const { project, service, serverId, instance } = container;
    const key = `${project} ${service} ${serverId} ${instance}`;
    const other = newest.get(key);
    if (!other || isNewer(container, other)) newest.set(key, container);
  }
  const kept = new Set(newest.values());
  return containers.filter((container) => kept.has(container));
}

function isNewer(a: Contender, b: Contender): boolean {
  return a.startedAtMs === b.startedAtMs ? a.id > b.id : a.startedAtMs > b.startedAtMs;
}
