/**
 * Control of volumes that nobody owns: their records are made and changed through a majority of the config nodes, by
 * taking an epoch, like an activation without members (docs/architecture/replica.md "The record register").
 *
 * Invariants
 *  1. Nothing is told as done before its record is chosen.
 *  2. A record that says that somebody owns the volume is not changed here.
 */
import { LaminaError } from "../core/errors.js";
import { epoch, generation } from "../core/ids.js";
import type { AcceptedRecord, Ballot, PeerId } from "../replica/api.js";
import { type ClusterRecord, encodeClusterRecord } from "../replica/owner/record.js";
import type { AcceptOutcome, Asking, PromiseOutcome, RecordRegister } from "../replica/register.js";
import { decoded } from "./catalogue.js";
import { refuseTooLarge } from "./record-room.js";

/** A change that the config nodes have not decided by then is reported as open. */
const DECISION_MS = 10_000;

export interface Chosen {
  readonly record: ClusterRecord;
  readonly accepted: AcceptedRecord;
}

export class RecordControl {
  readonly #register: RecordRegister;
  readonly #self: PeerId;

  constructor(register: RecordRegister, self: PeerId) {
    this.#register = register;
    this.#self = self;
  }

  /** The first record of a volume. Throws VOLUME_EXISTS, RECORD_TOO_LARGE, CLUSTER_UNDECIDED. */
  async create(first: ClusterRecord): Promise<Chosen> {
    refuseTooLarge(first);
    const ballot = { epoch: 1, owner: this.#self };
    const promised = await this.#promise(first, ballot);
    if (promised.kind === "refused") throw undecided("another record of its number is there");
    const outcome = await this.#accept(first, ballot);
    if (outcome.outcome.kind === "chosen") return outcome;
    if (outcome.outcome.kind === "name-taken") {
      // Some may have accepted it: they must not keep the name for it.
      await this.#accept({ ...first, generation: generation(2), version: 2, state: "removed" }, ballot);
      throw new LaminaError("VOLUME_EXISTS", { name: first.name });
    }
    throw undecided("somebody else has taken it over");
  }

  /**
   * Changes a record. `edit` may throw LaminaError. Throws VOLUME_UNKNOWN, VOLUME_ELSEWHERE, VOLUME_EXISTS,
   * RECORD_TOO_LARGE, CLUSTER_UNDECIDED.
   */
  async change(known: ClusterRecord, edit: (record: ClusterRecord) => ClusterRecord): Promise<Chosen> {
    const { name } = known;
    if (!known.owner.released) throw new LaminaError("VOLUME_ELSEWHERE", { name });
    for (let next = known.epoch + 1; ; ) {
      const ballot = { epoch: next, owner: this.#self };
      const promised = await this.#promise(known, ballot);
      if (promised.kind === "refused") {
        next = promised.promised.epoch + 1;
        continue;
      }
      const record = promised.highest === null ? null : decoded(promised.highest.bytes);
      if (record === null || record.state !== "live") throw new LaminaError("VOLUME_UNKNOWN", { name });
      if (!record.owner.released) throw new LaminaError("VOLUME_ELSEWHERE", { name });
      const changed: ClusterRecord = {
        ...edit(record),
        epoch: epoch(ballot.epoch),
        generation: generation(record.generation + 1),
        version: record.version + 1,
        // Nothing of the data has changed since the last owner let go of it.
        owner: { ...record.owner, peer: this.#self, node: null, incarnation: 0 },
      };
      // A volume can always be removed.
      if (changed.state === "live") refuseTooLarge(changed);
      const outcome = await this.#accept(changed, ballot);
      if (outcome.outcome.kind === "chosen") return outcome;
      if (outcome.outcome.kind === "name-taken") {
        await this.#accept({ ...record, ...numbersAfter(changed) }, ballot);
        throw new LaminaError("VOLUME_EXISTS", { name: changed.name });
      }
      next = outcome.outcome.promised.epoch + 1;
    }
  }

  #promise({ id, name }: ClusterRecord, ballot: Ballot): Promise<PromiseOutcome> {
    return decided(`volume ${name}`, (done) => this.#register.promise(id, ballot, done));
  }

  async #accept(
    record: ClusterRecord,
    ballot: Ballot,
  ): Promise<Chosen & { readonly outcome: AcceptOutcome }> {
    const accepted = { ballot, generation: record.generation, bytes: encodeClusterRecord(record) };
    const outcome = await decided<AcceptOutcome>(`volume ${record.name}`, (done) =>
      this.#register.accept(record.id, accepted, done),
    );
    return { record, accepted, outcome };
  }
}

/** What follows a record that only some may have accepted, under the same ballot. */
function numbersAfter(
  record: ClusterRecord,
): Pick<ClusterRecord, "epoch" | "generation" | "version" | "owner"> {
  return {
    epoch: record.epoch,
    generation: generation(record.generation + 1),
    version: record.version + 1,
    owner: record.owner,
  };
}

/** Waits for the outcome of a question to the config nodes about `name`, for a while. */
export function decided<T>(name: string, ask: (done: (outcome: T) => void) => Asking): Promise<T> {
  return new Promise((resolve, reject) => {
    let asking: Asking | null = null;
    const deadline = setTimeout(() => {
      asking?.cancel();
      reject(undecided(`${asking?.waitingFor.length ?? 0} of them have not answered about ${name}`));
    }, DECISION_MS);
    asking = ask((outcome) => {
      clearTimeout(deadline);
      // Those that are slower need not hear of it: the next owner asks them itself.
      asking?.cancel();
      resolve(outcome);
    });
  });
}

/** Waits for a decision that an owner brings about, for a while; it may still be made afterwards. */
export function inTime<T>(name: string, decision: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const deadline = setTimeout(
      () => reject(undecided(`volume ${name} waits; lamina status says what for`)),
      DECISION_MS,
    );
    decision.finally(() => clearTimeout(deadline)).then(resolve, reject);
  });
}

export function undecided(what: string): LaminaError {
  return new LaminaError("CLUSTER_UNDECIDED", { seconds: DECISION_MS / 1000, what });
}
