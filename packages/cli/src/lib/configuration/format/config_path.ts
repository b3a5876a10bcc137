/** Keys and indexes that lead from the top of the file to a value. */
export type ConfigPath = readonly (string | number)[];

/** A path as users read it: `services.web.ports[0]`; keys with odd characters are quoted. */
export function renderPath(path: ConfigPath): string {
  return path.map((part, index) => {
    if (typeof part === "number") return `[${part}]`;
    const key = /^[\w-]+$/.test(part) ? part : JSON.stringify(part);
    return index === 0 ? key : `.${key}`;
  }).join("");
}
