/** Ports to the outside world (clock, processes, log, metrics) and the error classes of every program. */
export * from "./assert.ts";
export * from "./clock.ts";
export * from "./errors.ts";
export * from "./logging.ts";
export * from "./process.ts";
export * from "./prometheus.ts";
export * from "./random.ts";
export * from "./retry.ts";
export * from "./secret.ts";
export * from "./version.ts";
