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

/** Shorter texts are left alone: hiding "a" would ruin any text. */
const HIDDEN_LENGTH_MIN = 4;
/** A line of a longer secret that is hidden also when it stands alone. */
const HIDDEN_LINE_LENGTH_MIN = 8;

/**
 * Replaces every occurrence of the secrets in `text`, longest first so that a secret that contains
 * another is hidden whole; also as JSON writes them, and each line of those that have several.
 */
export function redact(text: string, secrets: Iterable<Secret>): string {
  const forms = new Set([...secrets].flatMap((secret) => formsOf(secret.reveal())));
  return [...forms].sort((a, b) => b.length - a.length)
    .reduce((shown, form) => shown.replaceAll(form, REDACTED), text);
}

function formsOf(value: string): string[] {
  if (value.length < HIDDEN_LENGTH_MIN) return [];
  const lines = value.split(/\r?\n/).filter((line) => line.length >= HIDDEN_LINE_LENGTH_MIN);
  return [value, ...lines].flatMap((form) => [form, JSON.stringify(form).slice(1, -1)]);
}
