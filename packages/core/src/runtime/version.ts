import manifest from "../../deno.json" with { type: "json" };

/** Version of jiji: one for all programs, kept by `bin/version`. */
export const VERSION: string = manifest.version;
