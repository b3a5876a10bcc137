import { InvariantError } from "./errors.ts";

/**
 * Closes a `switch` over a union: adding a member without handling it no longer compiles.
 *
 * @throws {InvariantError} when data that was never parsed slips past the types.
 */
export function assertNever(value: never): never {
  throw new InvariantError(`unhandled case ${JSON.stringify(value)}`);
}

/**
 * States something that must hold whatever the input was.
 *
 * @throws {InvariantError} when it does not.
 */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}
