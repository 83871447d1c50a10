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

  /**
   * Asks `amend` to make it when its turn comes; what that answers. Throws LaminaError: something is against it, with
   * `record` as it is now, or with the record as it was then.
   */
  async made<T>(
    record: ClusterRecord,
    amend: (edit: (due: ClusterRecord) => ClusterRecord) => Promise<T>,
  ): Promise<T> {
    this.of(record);
    const chosen = await amend((due) => this.#whenDue(due));
    if (this.#refusal !== null) throw this.#refusal;
    return chosen;
  }

  /** The record as it is if that cannot be. */
  #whenDue(record: ClusterRecord): ClusterRecord {
    try {
      return this.of(record);
    } catch (error) {
      if (!(error instanceof LaminaError)) throw error;
      this.#refusal = error;
      return record;
    }
  }
}
