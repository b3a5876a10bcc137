/**
 * ssh2 is CommonJS and asks for `__dirname` (to look for a native add-on that we never ship). A
 * bundle has none, so one is given before ssh2 is loaded. Import this first in `main.ts`.
 */
const scope: { __dirname?: string } = globalThis as { __dirname?: string };
scope.__dirname ??= import.meta.dirname ?? "/";

export {};
