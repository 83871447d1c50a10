import { LaminaError } from "../../../../lib/core/errors.js";
import type { RecordStore } from "../../../../lib/replica/acceptor.js";
import type { Engine } from "../../store/support/engine.js";

/** Record pages in memory; writes end in the engine's next batch. */
export class Pages implements RecordStore {
  readonly pages = new Map<number, Uint8Array>();
  readonly #engine: Engine;
  failing: "VOLUMES_FULL" | "DEVICE_FAILED" | null = null;
  constructor(engine: Engine) {
    this.#engine = engine;
  }
  records(): ReadonlyMap<number, Uint8Array> {
    return this.pages;
  }
  putRecord(volume: number, bytes: Uint8Array | null, done: (error: LaminaError | null) => void): void {
    this.#engine.complete(() => {
      if (this.failing !== null) {
        done(new LaminaError(this.failing, { limit: 1, path: "p", what: "w" }));
        return;
      }
      this.pages.set(volume, bytes!);
      done(null);
    });
  }
}
