/** Several pieces of work at a time, in no order among them. */
import { LaminaError } from "../../core/errors.js";
import { COPY_DEPTH } from "./nbd-client.js";

/**
 * Runs `work` for every piece, up to COPY_DEPTH at once. The first failure ends it: pieces under way are waited
 * for, no more are begun. Throws TRANSFER_FAILED with the offset of the piece.
 */
export async function inLanes<T extends { readonly offset: number }>(
  pieces: AsyncIterable<T> | Iterable<T>,
  work: (piece: T) => Promise<void>,
): Promise<void> {
  const source = iteratorOf(pieces);
  let failure: unknown = null;
  const lane = async (): Promise<void> => {
    while (failure === null) {
      const next = await source.next();
      if (next.done === true) return;
      try {
        await work(next.value);
      } catch (error) {
        failure ??= asFailure(error, next.value.offset);
      }
    }
  };
  const lanes = Array.from({ length: COPY_DEPTH }, lane);
  for (const result of await Promise.allSettled(lanes)) {
    if (result.status === "rejected") failure ??= result.reason;
  }
  if (failure !== null) throw failure;
}

function iteratorOf<T>(pieces: AsyncIterable<T> | Iterable<T>): AsyncIterator<T> | Iterator<T> {
  return Symbol.asyncIterator in pieces ? pieces[Symbol.asyncIterator]() : pieces[Symbol.iterator]();
}

function asFailure(error: unknown, offset: number): Error {
  if (error instanceof LaminaError) return error;
  const what = error instanceof Error ? error.message : String(error);
  return new LaminaError("TRANSFER_FAILED", { offset, what }, error);
}
