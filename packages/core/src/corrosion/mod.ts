/** Corrosion, the gossiped SQLite: its HTTP API, our schema, and our rows. */
export * from "./api.ts";
export * from "./container_news.ts";
export * from "./follow.ts";
export * from "./ndjson.ts";
export * from "./rows.ts";
export * from "./schema.ts";
export * from "./statements.ts";
export * from "./subscription.ts";
