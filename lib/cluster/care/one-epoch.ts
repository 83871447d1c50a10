/**
 * The register as an activation sees it that must not take a volume from anybody: it asks for one epoch. Who is refused
 * is not alone, and leaves, because each further epoch would fence whoever else is opening the volume.
 */

import type { AcceptedRecord, Ballot } from "../../replica/api.js";
import type { VolumeRegister } from "../../replica/owner/api.js";
import type { AcceptOutcome, Asking, PromiseOutcome } from "../../replica/register.js";

const NOTHING: Asking = { waitingFor: [], cancel: () => undefined };

export class OneEpoch implements VolumeRegister {
  readonly #register: VolumeRegister;
  readonly #isAlone: () => boolean;
  readonly #leave: (epoch: number) => void;
  #asked = false;

  /** `isAlone`: nobody wants the volume here who would take it. `leave`: `epoch` is somebody's. */
  constructor(register: VolumeRegister, isAlone: () => boolean, leave: (epoch: number) => void) {
    this.#register = register;
    this.#isAlone = isAlone;
    this.#leave = leave;
  }

  promise(volume: number, ballot: Ballot, done: (outcome: PromiseOutcome) => void): Asking {
    if (this.#asked && this.#isAlone()) {
      // The one before was refused, by a member or with its record.
      this.#leave(ballot.epoch - 1);
      return NOTHING;
    }
    this.#asked = true;
    return this.#register.promise(volume, ballot, (outcome) => {
      if (outcome.kind === "refused" && this.#isAlone()) this.#leave(outcome.promised.epoch);
      else done(outcome);
    });
  }

  accept(volume: number, record: AcceptedRecord, done: (outcome: AcceptOutcome) => void): Asking {
    return this.#register.accept(volume, record, done);
  }
}
