/** A server and the version of jiji that it runs. */
export interface ServerVersion {
  readonly server: string;
  /** Undefined when it is not known. */
  readonly version: string | undefined;
}

/** `versions of jiji differ: 0.1.0 here, 0.2.0 on s1, 0.2.0 on s2`; undefined when none does. */
export function renderVersionSkew(
  here: string,
  servers: readonly ServerVersion[],
): string | undefined {
  const others = servers.filter(({ version }) => version !== undefined && version !== here)
    .map(({ server, version }) => `${version} on ${server}`).sort();
  return others.length === 0
    ? undefined
    : `versions of jiji differ: ${here} here, ${others.join(", ")}`;
}

/** A version as the servers' programs write it; undefined when the text is none. */
export function parseVersion(text: string | undefined): string | undefined {
  const version = text?.trim() ?? "";
  return /^\d{1,9}\.\d{1,9}\.\d{1,9}(-[0-9a-zA-Z.-]{1,40})?$/.test(version) ? version : undefined;
}

/** Whether the first of two versions X.Y.Z is newer; what follows a hyphen does not count. */
export function isNewerVersion(one: string, other: string): boolean {
  const [first, second] = [one, other].map((text) => text.split("-")[0]!.split(".").map(Number));
  const at = [0, 1, 2].find((index) => first![index] !== second![index]);
  return at !== undefined && first![at]! > second![at]!;
}
