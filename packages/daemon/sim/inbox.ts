/** Datagrams that arrived at a simulated server. */

/** Datagrams that wait for a reader at most; the kernel drops the rest. */
const INBOX_MAX = 1_000;

/** Datagrams for one port. */
export class Inbox {
  #reader: PromiseWithResolvers<{ bytes: Uint8Array; hostname: string }> | undefined;
  readonly #waiting: { bytes: Uint8Array; hostname: string }[] = [];

  /** One arrives. */
  put(bytes: Uint8Array, hostname: string): void {
    const reader = this.#reader;
    this.#reader = undefined;
    if (reader) reader.resolve({ bytes, hostname });
    else if (this.#waiting.length < INBOX_MAX) this.#waiting.push({ bytes, hostname });
  }

  /** The next one, as soon as there is one. */
  take(): Promise<{ bytes: Uint8Array; hostname: string }> {
    const next = this.#waiting.shift();
    if (next) return Promise.resolve(next);
    this.#reader = Promise.withResolvers();
    return this.#reader.promise;
  }
}
