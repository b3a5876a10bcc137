/** Debian packages: which mirrors the machine uses, and a package index of our own. */

/** One place packages come from. */
export interface AptSource {
  /** Base address of the archive. */
  readonly uri: string;
  /** Releases taken from it. */
  readonly suites: readonly string[];
  /** Parts of these releases. */
  readonly components: readonly string[];
  /** Keyring file that signs it. */
  readonly signedBy?: string;
}

/** Options of a one-line source: `[arch=amd64 signed-by=/path]`. */
function parseOneLine(line: string): AptSource | undefined {
  const match = /^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*(.*)$/.exec(line.trim());
  if (!match) return undefined;
  const [, options = "", uri = "", suite = "", components = ""] = match;
  const signedBy = /signed-by=(\S+)/.exec(options)?.[1];
  return {
    uri,
    suites: [suite],
    components: components.split(/\s+/).filter(Boolean),
    ...(signedBy === undefined ? {} : { signedBy }),
  };
}

function parseStanza(stanza: string): AptSource[] {
  const fields = new Map<string, string>();
  let last = "";
  for (const line of stanza.split("\n")) {
    if (line.startsWith("#") || !line.trim()) continue;
    const field = /^([A-Za-z-]+):\s*(.*)$/.exec(line);
    if (field?.[1]) {
      last = field[1].toLowerCase();
      fields.set(last, field[2] ?? "");
    } else if (last) {
      fields.set(last, `${fields.get(last) ?? ""} ${line.trim()}`);
    }
  }
  const words = (name: string) => (fields.get(name) ?? "").split(/\s+/).filter(Boolean);
  if (!words("types").includes("deb") || fields.get("enabled") === "no") return [];
  const signedBy = fields.get("signed-by");
  return words("uris").map((uri) => ({
    uri,
    suites: words("suites"),
    components: words("components"),
    ...(signedBy?.startsWith("/") ? { signedBy } : {}),
  }));
}

/**
 * Reads an apt sources file, one-line or deb822 format.
 * Source: sources.list(5) of apt 2.6.
 */
export function parseAptSources(text: string): readonly AptSource[] {
  if (/^Types:/m.test(text)) return text.split(/\n\s*\n/).flatMap(parseStanza);
  return text.split("\n").flatMap((line) => parseOneLine(line) ?? []);
}

/** Keeps what offers a Debian release itself: its suites, from a Debian archive, with `main`. */
export function debianSources(
  sources: readonly AptSource[],
  codename: string,
): readonly AptSource[] {
  return sources
    .filter((source) => /\/debian(-security)?\/?$/.test(source.uri))
    .map((source) => ({
      ...source,
      suites: source.suites.filter((suite) =>
        suite === codename || suite.startsWith(`${codename}-`)
      ),
    }))
    .filter((source) => source.suites.length > 0 && source.components.includes("main"));
}

/** One-line sources file of these sources, `main` only. */
export function renderSourcesList(sources: readonly AptSource[]): string {
  const lines = sources.flatMap((source) =>
    source.suites.map((suite) => {
      const options = source.signedBy ? `[signed-by=${source.signedBy}] ` : "";
      return `deb ${options}${source.uri} ${suite} main\n`;
    })
  );
  return [...new Set(lines)].join("");
}

/**
 * Name and version in the file name of a downloaded package, such as `tini_0.19.0-1_amd64.deb`.
 * Source: apt writes `:` of an epoch as `%3a`.
 */
export function parseDebFileName(
  fileName: string,
): { readonly name: string; readonly version: string } | undefined {
  const match = /^([^_]+)_([^_]+)_[^_]+\.deb$/.exec(fileName);
  if (!match?.[1] || !match[2]) return undefined;
  return { name: match[1], version: decodeURIComponent(match[2]) };
}

/** File name in our repository: the epoch, whose escaped colon confuses URLs, is left out. */
export function repositoryFileName(fileName: string): string {
  return fileName.replace(/_\d+%3a/, "_");
}

/**
 * A package index for a flat folder of downloaded packages, made of the archive's own stanzas with
 * the file names replaced.
 * @throws Error when a downloaded file has no stanza
 */
export function renderPackageIndex(
  stanzas: string,
  fileNames: readonly string[],
): string {
  const byKey = new Map<string, string>();
  for (const stanza of stanzas.split(/\n\n+/)) {
    const name = /^Package: (.+)$/m.exec(stanza)?.[1];
    const version = /^Version: (.+)$/m.exec(stanza)?.[1];
    if (name && version) byKey.set(`${name} ${version}`, stanza.trim());
  }
  return fileNames.map((fileName) => {
    const parsed = parseDebFileName(fileName);
    const stanza = parsed && byKey.get(`${parsed.name} ${parsed.version}`);
    if (!stanza) throw new Error(`apt knows nothing about the downloaded ${fileName}`);
    const path = `./${repositoryFileName(fileName)}`;
    return `${stanza.replace(/^Filename: .*$/m, `Filename: ${path}`)}\n\n`;
  }).join("");
}
