import * as v from "valibot";

const StateFile = v.array(
  v.looseObject({ name: v.string(), active_targets: v.nullish(v.array(v.string())) }),
);

/** Targets (`ip:port`) of each route of a kamal-proxy, by the route's name. */
export type ProxyState = ReadonlyMap<string, readonly string[]>;

/**
 * Routes in kamal-proxy's state file; none in an empty one. Source: kamal-proxy 0.9.2,
 * `internal/server/router.go`: an array of services. It is written in place, so half a file is
 * possible: undefined then.
 */
export function parseProxyState(text: string): ProxyState | undefined {
  if (text.trim() === "") return new Map();
  try {
    const parsed = v.safeParse(StateFile, JSON.parse(text));
    if (!parsed.success) return undefined;
    return new Map(parsed.output.map((route) => [route.name, route.active_targets ?? []]));
  } catch {
    return undefined;
  }
}

/**
 * Routes in the output of `kamal-proxy list`: those that it really has. Source: kamal-proxy 0.9.2,
 * `internal/cmd/list.go`: service, host, path, targets, state, TLS in columns, with colours.
 */
export function parseProxyListing(text: string): ProxyState {
  // deno-lint-ignore no-control-regex -- colours of terminals begin with this character.
  const [, ...rows] = text.replace(/\x1b?\[[0-9;]*m/g, "").split("\n");
  return new Map(rows.flatMap((row) => {
    const columns = row.trim().split(/\s+/);
    const [name, targets] = [columns[0], columns.at(-3)];
    if (columns.length < 5 || !name || !targets) return [];
    return [[name, targets.split(",")] as const];
  }));
}
