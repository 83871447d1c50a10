/** Thrown when the program finds itself in a state that its own rules exclude. Never caught to go on. */
export class InvariantError extends Error {
  override readonly name = "InvariantError";
}

/**
 * States what must be true here. For mistakes of the program only: bad input from outside is answered with
 * an error of the catalogue, never with an assertion.
 */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}
