/**
 * Bounds how many BLOCK_STATUS answers are in the making at one time: each holds an array of up to
 * MAP_RUNS_MAX runs outside of the pool. Further ones wait in the order of their coming; they wait for the
 * volume only, never for a client, so every one has its turn.
 */
import type { Piece } from "./command.js";
import { MAPS_MAX } from "./limits.js";

export interface MapAsker {
  /** It is this piece's turn: submit it. `leave` when the answer has been encoded. */
  mapTurn(piece: Piece): void;
}

interface Waiting {
  readonly asker: MapAsker;
  readonly piece: Piece;
}

export class MapGate {
  #active = 0;
  #waiting: Waiting[] = [];

  /** Calls `asker.mapTurn(piece)`, now or later. */
  enter(asker: MapAsker, piece: Piece): void {
    if (this.#active < MAPS_MAX) {
      this.#active++;
      asker.mapTurn(piece);
    } else {
      this.#waiting.push({ asker, piece });
    }
  }

  leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#active--;
    else next.asker.mapTurn(next.piece);
  }

  /** Takes back what `asker` has waiting; `drop` gets each piece. */
  forget(asker: MapAsker, drop: (piece: Piece) => void): void {
    const kept: Waiting[] = [];
    for (const waiting of this.#waiting) {
      if (waiting.asker === asker) drop(waiting.piece);
      else kept.push(waiting);
    }
    this.#waiting = kept;
  }
}
