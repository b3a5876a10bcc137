/** Randomness as a port: seeded in tests and simulations. */
export interface Random {
  /** A number in [0, 1). */
  next(): number;
}

/** The runtime's own generator. Not for keys or tokens. */
export const systemRandom: Random = { next: () => Math.random() };

/** `bytes` random bytes from the operating system as lower-case hexadecimal text. */
export function randomHex(bytes: number): string {
  return Array.from(
    crypto.getRandomValues(new Uint8Array(bytes)),
    (byte) => byte.toString(16).padStart(2, "0"),
  ).join("");
}

/**
 * A generator that gives the same numbers for the same seed (mulberry32: 32 bits of state, period
 * 2^32, plenty for a simulation run).
 */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return {
    next() {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = state;
      mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
    },
  };
}
