/** News of containers that Corrosion has not brought yet. Pure state. */
import { type ContainerRow, NEWS_HOLD_MS } from "@jiji/core/corrosion";

/** What was told of a container, and what the table has said of it since. */
export interface HeldNews {
  /** Null: the container is gone. */
  readonly told: ContainerRow | null;
  toldAtMs: number;
  /** The last row that the table had; undefined when it had none. */
  late: ContainerRow | undefined;
}

/**
 * A table brings a container's changes in their order, but late: until it has brought what was told,
 * its rows are older than the news and are kept back.
 */
export class NewsHold {
  readonly #held = new Map<string, HeldNews>();

  /** Holds news of a container; `late` is the row that the table had until now. */
  tell(
    id: string,
    news: {
      readonly told: ContainerRow | null;
      readonly late: ContainerRow | undefined;
      readonly nowMs: number;
    },
  ): void {
    const before = this.#held.get(id);
    const late = before ? before.late : news.late;
    this.#held.delete(id);
    if (news.told && late && isSameRow(news.told, late)) return;
    this.#held.set(id, { told: news.told, late, toldAtMs: news.nowMs });
  }

  /** Whether a row that the table brings is to be believed now. */
  admits(row: ContainerRow): boolean {
    const held = this.#held.get(row.id);
    if (!held) return true;
    if (held.told && isSameRow(held.told, row)) {
      this.#held.delete(row.id);
      return true;
    }
    held.late = row;
    return false;
  }

  /** Whether news of this container are held. */
  has(id: string): boolean {
    return this.#held.has(id);
  }

  /** The table has removed the container's row: that is the last word on it. */
  forget(id: string): void {
    this.#held.delete(id);
  }

  /** All rows were read anew: what they lack may still be on its way to this server's table. */
  renew(nowMs: number): void {
    for (const news of this.#held.values()) news.toldAtMs = nowMs;
  }

  /**
   * Lets go of news whose time is over, and gives them. While the table says nothing (`heardAtMs`:
   * when it was heard last) it can't confirm anything either: news hold on.
   */
  expire(nowMs: number, heardAtMs: number): (readonly [id: string, news: HeldNews])[] {
    const over = [...this.#held].filter(([, { toldAtMs }]) =>
      nowMs - toldAtMs >= NEWS_HOLD_MS && heardAtMs >= toldAtMs
    );
    for (const [id] of over) this.#held.delete(id);
    return over;
  }
}

/** Whether two rows say the same. */
export function isSameRow(a: ContainerRow, b: ContainerRow): boolean {
  return a.startedAtMs === b.startedAtMs && a.health === b.health && a.ip === b.ip &&
    a.version === b.version && a.project === b.project && a.service === b.service &&
    a.serverId === b.serverId && a.instance === b.instance && a.name === b.name &&
    a.unhealthySinceMs === b.unhealthySinceMs && a.ports.length === b.ports.length &&
    a.ports.every((port, index) => port === b.ports[index]);
}
