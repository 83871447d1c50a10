/**
 * A change of a volume's record that people ask for. It is made when its turn comes, and others may have been made before: so
 * it is looked at twice, when it is asked for and when it is made.
 *
 * Invariant: what is said against it when its turn comes is kept for who asked. The record stays as it is, and whoever makes
 * the change hears nothing of it.
 */
import { LaminaError } from "../core/errors.js";
import type { ClusterRecord } from "../replica/owner/record.js";
import { refuseTooLarge } from "./record-room.js";

export class Edit {
  readonly #change: (record: ClusterRecord) => ClusterRecord;
  #refusal: LaminaError | null = null;

  /** `change` may throw LaminaError. */
  constructor(change: (record: ClusterRecord) => ClusterRecord) {
    this.#change = change;
  }

  /** The changed record. Throws LaminaError, RECORD_TOO_LARGE among them. */
  of(record: ClusterRecord): ClusterRecord {
    const changed = this.#change(record);
    refuseTooLarge(changed);
    return changed;
  }

  /** The same when its turn has come; the record as it is if that cannot be. */
  whenDue(record: ClusterRecord): ClusterRecord {
    try {
      return this.of(record);
    } catch (error) {
      if (!(error instanceof LaminaError)) throw error;
      this.#refusal = error;
      return record;
    }
  }

  /** Throws what was said against it when its turn had come. */
  throwRefusal(): void {
    if (this.#refusal !== null) throw this.#refusal;
  }
}
