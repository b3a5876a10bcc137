import { configure, getConsoleSink, getJsonLinesFormatter, getLogger } from "@logtape/logtape";

/** Facts of a log line; values must be plain data without secrets. */
export type LogFields = Readonly<Record<string, unknown>>;

/** Log as a port: one event a line, a fixed message and its facts as fields. */
export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** Lowest level that is written. */
export type LogLevel = "debug" | "info" | "warning" | "error";

/**
 * Sets up JSON lines on the process's standard streams (journald adds time and unit) and gives the
 * program's logger. Call it once, in `main.ts`.
 */
export async function createJsonLogger(program: string, level: LogLevel): Promise<Logger> {
  await configure({
    reset: true,
    sinks: {
      console: getConsoleSink({ formatter: getJsonLinesFormatter({ properties: "flatten" }) }),
    },
    loggers: [
      { category: [program], sinks: ["console"], lowestLevel: level },
      { category: ["logtape", "meta"], sinks: ["console"], lowestLevel: "warning" },
    ],
  });
  const logger = getLogger([program]);
  return {
    debug: (message, fields = {}) => logger.debug(message, { ...fields }),
    info: (message, fields = {}) => logger.info(message, { ...fields }),
    warn: (message, fields = {}) => logger.warn(message, { ...fields }),
    error: (message, fields = {}) => logger.error(message, { ...fields }),
  };
}

/** A logger that writes nothing. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };
