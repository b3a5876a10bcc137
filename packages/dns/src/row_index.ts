/** Values by key, where most keys have only one: that one stands for itself. */
export class RowIndex<T extends object> {
  readonly #values = new Map<string, T | T[]>();

  /** Values of a key, in the order in which they came. */
  get(key: string): readonly T[] {
    const found = this.#values.get(key);
    if (found === undefined) return [];
    return Array.isArray(found) ? found : [found];
  }

  /** Whether the key has any value. */
  has(key: string): boolean {
    return this.#values.has(key);
  }

  /** All keys. */
  keys(): Iterable<string> {
    return this.#values.keys();
  }

  /** Adds a value that is not there yet. */
  add(key: string, value: T): void {
    const found = this.#values.get(key);
    if (found === undefined) this.#values.set(key, value);
    else if (Array.isArray(found)) found.push(value);
    else this.#values.set(key, [found, value]);
  }

  /** Takes a value out. */
  drop(key: string, value: T): void {
    const found = this.#values.get(key);
    if (found === value) {
      this.#values.delete(key);
    } else if (Array.isArray(found)) {
      const left = found.filter((one) => one !== value);
      const [only] = left;
      if (left.length === 1 && only) this.#values.set(key, only);
      else this.#values.set(key, left);
    }
  }
}
