/** How a table is laid out. */
export interface TableOptions {
  /** Spaces before each line; default 2. */
  readonly indent?: number;
  /** Columns that are aligned to the right, by index. */
  readonly right?: readonly number[];
}

/** Width of `text` on a terminal, without colour codes; wide characters count two. */
export function displayWidth(text: string): number {
  // deno-lint-ignore no-control-regex
  const plain = text.replace(/\x1b\[[0-9;]*m/g, "");
  let width = 0;
  for (const character of plain) {
    if (/\p{Mark}/u.test(character)) continue;
    const code = character.codePointAt(0) ?? 0;
    width += isWide(code) ? 2 : 1;
  }
  return width;
}

/** Wide and full-width blocks. Source: Unicode UAX 11, East Asian Width W and F, main blocks. */
function isWide(code: number): boolean {
  return (code >= 0x1100 && code <= 0x115f) || (code >= 0x2e80 && code <= 0xa4cf) ||
    (code >= 0xac00 && code <= 0xd7a3) || (code >= 0xf900 && code <= 0xfaff) ||
    (code >= 0xfe30 && code <= 0xfe6f) || (code >= 0xff00 && code <= 0xff60) ||
    (code >= 0xffe0 && code <= 0xffe6) || (code >= 0x1f300 && code <= 0x1faff) ||
    (code >= 0x20000 && code <= 0x3fffd);
}

/**
 * Lines of a plain table: columns two spaces apart, as wide as their widest cell, nothing after the
 * last cell of a line. Short rows are filled up with empty cells.
 */
export function renderTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  options: TableOptions = {},
): string[] {
  const all = header.length > 0 ? [header, ...rows] : rows;
  const columns = Math.max(0, ...all.map((row) => row.length));
  const widths = Array.from(
    { length: columns },
    (_, column) => Math.max(...all.map((row) => displayWidth(row[column] ?? ""))),
  );
  const indent = " ".repeat(options.indent ?? 2);
  return all.map((row) => {
    const cells = widths.map((width, column) => {
      const cell = row[column] ?? "";
      const fill = " ".repeat(width - displayWidth(cell));
      return options.right?.includes(column) ? fill + cell : cell + fill;
    });
    return (indent + cells.join("  ")).trimEnd();
  });
}
