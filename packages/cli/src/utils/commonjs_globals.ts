/**
 * Some packages are CommonJS inside: ssh2 asks for `__dirname` (to look for a native add-on that we
 * never ship), yaml for `require` of what the runtime has built in. A bundle's chunks do not all
 * have these, so they are given before such a package is loaded. Import this first in `main.ts`.
 */
import { createRequire } from "node:module";

const scope = globalThis as { __dirname?: string; require?: unknown };
scope.__dirname ??= import.meta.dirname ?? "/";
scope.require ??= createRequire(import.meta.url);

export {};
