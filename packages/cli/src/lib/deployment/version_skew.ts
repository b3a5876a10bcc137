import { isNewerVersion, renderVersionSkew } from "@jiji/core";
import type { ObservedHost } from "../../types/deployment.ts";

/** Servers whose programs are of another version than this jiji. */
export interface VersionSkew {
  /** Version of this jiji. */
  readonly here: string;
  /** Versions of those that differ, by server. */
  readonly servers: Readonly<Record<string, string>>;
}

/** What differs; null when nothing does. Servers that do not tell their version are left out. */
export function findVersionSkew(
  here: string,
  observed: Iterable<Pick<ObservedHost, "name" | "version">>,
): VersionSkew | null {
  const differing = [...observed].flatMap(({ name, version }) =>
    version === undefined || version === here ? [] : [[name, version] as const]
  ).sort(([one], [other]) => one < other ? -1 : 1);
  return differing.length === 0 ? null : { here, servers: Object.fromEntries(differing) };
}

/** One line: what differs, and what makes it equal. `server init` would set newer servers back. */
export function renderSkewWarning({ here, servers }: VersionSkew): string {
  const versions = Object.entries(servers).map(([server, version]) => ({ server, version }));
  const isBehind = versions.some(({ version }) => isNewerVersion(version, here));
  return `${renderVersionSkew(here, versions)}; ${
    isBehind
      ? "update jiji here, then run jiji server init"
      : "make them equal with: jiji server init"
  }`;
}
