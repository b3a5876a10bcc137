/**
 * How many single-character changes (insert, delete, replace, swap of neighbours) lead from one
 * word to the other. Optimal string alignment distance.
 */
export function editDistance(from: string, to: string): number {
  const rows = Array.from(
    { length: from.length + 1 },
    (_, row) => Array.from({ length: to.length + 1 }, (_, column) => row === 0 ? column : row),
  );
  const at = (row: number, column: number): number => rows[row]?.[column] ?? 0;
  for (let row = 1; row <= from.length; row++) {
    for (let column = 1; column <= to.length; column++) {
      const same = from[row - 1] === to[column - 1];
      let best = Math.min(
        at(row - 1, column) + 1,
        at(row, column - 1) + 1,
        at(row - 1, column - 1) + (same ? 0 : 1),
      );
      const swapped = from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      if (row > 1 && column > 1 && swapped) best = Math.min(best, at(row - 2, column - 2) + 1);
      rows[row]![column] = best;
    }
  }
  return at(from.length, to.length);
}

/** Longer words are not compared: nobody mistypes a whole line. */
const WORD_LENGTH_MAX = 64;

/** The candidate that `word` was most likely meant to be, or undefined when none is near. */
export function closestWord(word: string, candidates: Iterable<string>): string | undefined {
  if (word.length > WORD_LENGTH_MAX) return undefined;
  const typed = normalise(word);
  let best: { candidate: string; distance: number } | undefined;
  for (const candidate of candidates) {
    const distance = editDistance(typed, normalise(candidate));
    const allowed = Math.max(1, Math.floor(Math.max(typed.length, candidate.length) / 3));
    if (distance > allowed || distance >= Math.min(typed.length, candidate.length)) continue;
    if (best === undefined || distance < best.distance) best = { candidate, distance };
  }
  return best?.candidate;
}

function normalise(word: string): string {
  return word.toLowerCase().replaceAll("-", "_");
}
