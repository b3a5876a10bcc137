import type { LogFields, Logger } from "../src/runtime/logging.ts";

/** A log line that was written. */
export interface RecordedLine {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly message: string;
  readonly fields: LogFields;
}

/** Keeps every line, for tests that assert what was logged. */
export class RecordingLogger implements Logger {
  /** Lines in order. */
  readonly lines: RecordedLine[] = [];

  /** Records a debug line. */
  debug(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "debug", message, fields });
  }

  /** Records an info line. */
  info(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "info", message, fields });
  }

  /** Records a warning. */
  warn(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "warn", message, fields });
  }

  /** Records an error. */
  error(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "error", message, fields });
  }
}
