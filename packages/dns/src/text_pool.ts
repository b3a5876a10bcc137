import type { ContainerRow } from "@jiji/core/corrosion";

/** More different texts than this are forgotten, so that a pool never grows for ever. */
const TEXTS_MAX = 200_000;
const LISTS_MAX = 10_000;

/** Equal texts of many rows become one: a hundred thousand rows take a third of the memory. */
export class TextPool {
  readonly #texts = new Map<string, string>();
  readonly #lists = new Map<string, readonly string[]>();

  /** The row with the pool's texts; those that hardly repeat stay its own. */
  share(row: ContainerRow): ContainerRow {
    if (this.#texts.size > TEXTS_MAX) this.#texts.clear();
    if (this.#lists.size > LISTS_MAX) this.#lists.clear();
    return {
      id: row.id,
      project: this.#text(row.project),
      service: this.#text(row.service),
      serverId: this.#text(row.serverId),
      instance: this.#text(row.instance),
      name: this.#text(row.name),
      version: this.#text(row.version),
      ip: row.ip,
      ports: this.#list(row.ports),
      startedAtMs: row.startedAtMs,
      health: row.health,
      unhealthySinceMs: row.unhealthySinceMs,
    };
  }

  #text(text: string): string {
    const known = this.#texts.get(text);
    if (known !== undefined) return known;
    this.#texts.set(text, text);
    return text;
  }

  #list(list: readonly string[]): readonly string[] {
    const key = list.join(" ");
    const known = this.#lists.get(key);
    if (known) return known;
    this.#lists.set(key, list);
    return list;
  }
}
