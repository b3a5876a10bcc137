const REDACTED = "[secret]";

/** A value that must not be shown: text conversion, JSON and inspection give `[secret]`. */
export class Secret {
  readonly #value: string;

  /** Wraps `value`. */
  constructor(value: string) {
    this.#value = value;
  }

  /** The real value. Call it only where it leaves over stdin or SFTP. */
  reveal(): string {
    return this.#value;
  }

  /** Always `[secret]`. */
  toString(): string {
    return REDACTED;
  }

  /** Always `[secret]`. */
  toJSON(): string {
    return REDACTED;
  }

  /** Always `[secret]`. */
  [Symbol.for("Deno.customInspect")](): string {
    return REDACTED;
  }

  /** Always `[secret]`. */
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return REDACTED;
  }
}

/**
 * Replaces every occurrence of the secrets in `text`, longest first so that a secret that contains
 * another is hidden whole. Secrets under four characters are left: hiding "a" would ruin any text.
 */
export function redact(text: string, secrets: Iterable<Secret>): string {
  const values = [...secrets].map((secret) => secret.reveal())
    .filter((value) => value.length >= 4)
    .sort((a, b) => b.length - a.length);
  return values.reduce((shown, value) => shown.replaceAll(value, REDACTED), text);
}
