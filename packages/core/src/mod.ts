/** What at least two of jiji's programs share. Import the folder you need, e.g. `@jiji/core/net`. */
export * from "./cluster/mod.ts";
export * from "./corrosion/mod.ts";
export * from "./net/mod.ts";
export * from "./runtime/mod.ts";
