/** Doubles of the ports, as strict as the real things. Imported by tests only. */
export * from "./recording_logger.ts";
