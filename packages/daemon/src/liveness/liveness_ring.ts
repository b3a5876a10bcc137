/** Who probes whom in a cluster too large for everyone to probe everyone. Pure. */
import { PROBE_ALL_MAX } from "@jiji/core/cluster";

/** Successors on the ring that a server probes in any case. */
const NEAR = 8;

/** FNV-1a: spreads names over the ring, the same on every server. Source: RFC 9923, section 2. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193) >>> 0;
  }
  return value;
}

/**
 * Members in the order of their hashes. Each probes its next eight and those at distances 16, 32,
 * 64 …: whom a server probes and who probes it grows with the logarithm of the cluster, and every
 * server can tell both for every other.
 */
export class ProbeRing {
  readonly #order: readonly string[];
  readonly #place: ReadonlyMap<string, number>;
  readonly #distances: readonly number[];
  /** Found once for each that is asked about. */
  readonly #watchers = new Map<string, readonly string[]>();

  /** @param members every server, oneself included. */
  constructor(members: Iterable<string>) {
    this.#order = [...new Set(members)].map((id) => [hash(id), id] as const)
      .sort(([a, x], [b, y]) => a - b || (x < y ? -1 : 1)).map(([, id]) => id);
    this.#place = new Map(this.#order.map((id, place) => [id, place]));
    this.#distances = distances(this.#order.length);
  }

  /** Whether everyone probes everyone. */
  get isWhole(): boolean {
    return this.#order.length - 1 <= PROBE_ALL_MAX;
  }

  /** Whom a server probes. */
  targetsOf(id: string): string[] {
    return this.#around(id, 1);
  }

  /** Who probes a server. */
  watchersOf(id: string): readonly string[] {
    const known = this.#watchers.get(id);
    if (known) return known;
    const watchers = this.#around(id, -1);
    this.#watchers.set(id, watchers);
    return watchers;
  }

  #around(id: string, direction: 1 | -1): string[] {
    const place = this.#place.get(id);
    if (place === undefined) return [];
    const size = this.#order.length;
    return this.#distances.map((distance) =>
      this.#order[(place + direction * distance + size) % size]!
    );
  }
}

function distances(size: number): number[] {
  if (size - 1 <= PROBE_ALL_MAX) return Array.from({ length: size - 1 }, (_, index) => index + 1);
  const found = Array.from({ length: NEAR }, (_, index) => index + 1);
  for (let distance = 2 * NEAR; distance < size; distance *= 2) found.push(distance);
  return found;
}
