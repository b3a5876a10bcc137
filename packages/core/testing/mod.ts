/** Doubles of the ports, as strict as the real things. Imported by tests only. */
export * from "./fake_corrosion.ts";
export * from "./fake_process.ts";
export * from "./real_corrosion.ts";
export * from "./recording_logger.ts";
export * from "./sim_clock.ts";
