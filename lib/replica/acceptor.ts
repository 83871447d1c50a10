/**
 * The acceptor of volume records on one node: what it has promised and accepted, per volume, on the device
 * (docs/architecture/replica.md "The record register").
 *
 * Invariants
 *  1. A promise never falls, through any number of lives (invariant 9): it is durable before it is answered, and a
 *     lower one is refused.
 *  2. Only the ballot that is promised is accepted, with a higher generation than what is accepted, or the same
 *     record again. So two records never share (epoch, generation).
 *  3. The requests of one volume are decided one after another, each on what the one before has made durable.
 *  4. After a write that failed nothing is answered but Unknown: what is on the device is not known.
 */
import { assert } from "../core/assert.js";
import type { LaminaError } from "../core/errors.js";
import { VOLUME_ID_MAX } from "../core/ids.js";
import type { Store } from "../store/api.js";
import type { AcceptAnswer, AcceptedRecord, Ballot, PromiseAnswer } from "./api.js";
import { CONFIG_SET_KEY } from "./config/set.js";
import { isDeviceKey } from "./identity.js";
import { ACCEPTOR_HEADER_BYTES } from "./limits.js";
import { decodeRecord } from "./record-codec.js";
import { getU64, putU64 } from "./wire.js";

/** "LaAc", little-endian, then the version of the page. */
const MAGIC = 0x6341_614c;
const PAGE_VERSION = 1;
/** First byte of a record in the form of one machine, which is JSON. */
const BRACE = 0x7b;

export const NO_BALLOT: Ballot = { epoch: 0, owner: 0 };

export interface AcceptorState {
  readonly promised: Ballot;
  readonly accepted: AcceptedRecord | null;
}

const NOTHING: AcceptorState = { promised: NO_BALLOT, accepted: null };

/** What the acceptor needs of the store. */
export type RecordStore = Pick<Store, "records" | "putRecord">;

export interface AcceptorOptions {
  /**
   * The name that a record claims while its volume is live, or null. Two volumes never hold one name: an
   * acceptor refuses the second, and two majorities share an acceptor.
   */
  readonly nameOf: (bytes: Uint8Array) => string | null;
}

type Work = (state: AcceptorState) => AcceptorState | null;

interface Job {
  /** The state to be made durable, or null when nothing changes. */
  readonly work: Work;
  readonly done: (durable: boolean) => void;
}

interface Entry {
  state: AcceptorState;
  readonly jobs: Job[];
  running: boolean;
}

export function sameBallot(a: Ballot, b: Ballot): boolean {
  return a.epoch === b.epoch && a.owner === b.owner;
}

export class RecordAcceptor {
  readonly #store: RecordStore;
  readonly #options: AcceptorOptions;
  readonly #entries = new Map<number, Entry>();
  readonly #names = new Map<string, number>();
  #failed = false;

  /** Throws Error when a page is damaged; the caller knows the device. */
  constructor(store: RecordStore, options: AcceptorOptions) {
    this.#store = store;
    this.#options = options;
    for (const [volume, bytes] of store.records()) {
      if (volume > VOLUME_ID_MAX && !isDeviceKey(volume) && volume !== CONFIG_SET_KEY) continue;
      const state = decodeState(bytes);
      this.#entries.set(volume, { state, jobs: [], running: false });
      if (state.accepted !== null) this.#claim(volume, null, state.accepted.bytes);
    }
  }

  /** As it is durable. */
  state(volume: number): AcceptorState {
    return this.#entries.get(volume)?.state ?? NOTHING;
  }

  /** Volumes that it has a page of; other records are not among them. */
  volumes(): number[] {
    return [...this.#entries.keys()].filter(isVolumeKey);
  }

  /** Keys of all records that it has a state of, above `after`, from the lowest on. */
  keysAfter(after: number): number[] {
    return [...this.#entries.keys()].filter((key) => key > after).sort((a, b) => a - b);
  }

  /** The records of devices that it has accepted, by key. */
  devices(): { readonly key: number; readonly accepted: AcceptedRecord }[] {
    return [...this.#entries].flatMap(([key, { state }]) =>
      isDeviceKey(key) && state.accepted !== null ? [{ key, accepted: state.accepted }] : [],
    );
  }

  /** Phase 1, and the fence. The caller has seen to it that nothing older is in flight. */
  promise(volume: number, ballot: Ballot, done: (answer: PromiseAnswer) => void): void {
    let refusedBy: Ballot | null = null;
    const work: Work = (state) => {
      if (sameBallot(ballot, state.promised)) return null;
      if (ballot.epoch > state.promised.epoch) return { ...state, promised: ballot };
      refusedBy = state.promised;
      return null;
    };
    this.#do(volume, work, (durable) => {
      if (!durable) done({ kind: "unknown" });
      else if (refusedBy !== null) done({ kind: "refused", promised: refusedBy });
      else done({ kind: "promised", accepted: this.state(volume).accepted });
    });
  }

  /** Phase 2. */
  accept(volume: number, record: AcceptedRecord, done: (answer: AcceptAnswer) => void): void {
    let refusal: AcceptAnswer | null = null;
    const work: Work = (state) => {
      refusal = this.#refusal(volume, state, record);
      if (refusal !== null || isAccepted(state, record)) return null;
      return { promised: state.promised, accepted: { ...record, bytes: record.bytes.slice() } };
    };
    this.#do(volume, work, (durable) => {
      done(durable ? (refusal ?? { kind: "accepted" }) : { kind: "unknown" });
    });
  }

  /**
   * Takes over what another acceptor has promised and accepted, where that is newer. For one that does not vote yet;
   * `done(false)`: it is not known whether that is on the device.
   */
  merge(key: number, other: AcceptorState, done: (durable: boolean) => void): void {
    const work: Work = (own) => {
      const accepted = newerRecord(own.accepted, other.accepted);
      return { promised: mergedPromise(own.promised, other.promised, accepted), accepted };
    };
    this.#do(key, work, done);
  }

  #refusal(volume: number, state: AcceptorState, record: AcceptedRecord): AcceptAnswer | null {
    const { promised, accepted } = state;
    if (!sameBallot(record.ballot, promised)) return { kind: "refused", promised };
    if (isAccepted(state, record)) return null;
    if (
      accepted !== null &&
      accepted.ballot.epoch === record.ballot.epoch &&
      accepted.generation >= record.generation
    )
      return { kind: "refused", promised };
    const name = this.#nameOf(volume, record.bytes);
    // What was accepted with this name may go on with it, whoever else is said to have it in a state that was copied.
    if (accepted !== null && this.#nameOf(volume, accepted.bytes) === name) return null;
    const holder = name === null ? undefined : this.#names.get(name);
    return holder === undefined || holder === volume ? null : { kind: "name-taken" };
  }

  #claim(volume: number, before: Uint8Array | null, after: Uint8Array): void {
    const old = before === null ? null : this.#nameOf(volume, before);
    if (old !== null && this.#names.get(old) === volume) this.#names.delete(old);
    const name = this.#nameOf(volume, after);
    if (name !== null) this.#names.set(name, volume);
  }

  #nameOf(volume: number, bytes: Uint8Array): string | null {
    return isVolumeKey(volume) ? this.#options.nameOf(bytes) : null;
  }

  #do(volume: number, work: Work, done: Job["done"]): void {
    let entry = this.#entries.get(volume);
    if (entry === undefined) {
      entry = { state: NOTHING, jobs: [], running: false };
      this.#entries.set(volume, entry);
    }
    entry.jobs.push({ work, done });
    this.#run(volume, entry);
  }

  #run(volume: number, entry: Entry): void {
    while (!entry.running) {
      const job = entry.jobs.shift();
      if (job === undefined) break;
      const next = this.#failed ? null : job.work(entry.state);
      if (next === null) {
        job.done(!this.#failed);
        continue;
      }
      entry.running = true;
      this.#store.putRecord(volume, encodeState(next), (error) => {
        entry.running = false;
        this.#written(volume, entry, next, error);
        job.done(error === null);
        this.#run(volume, entry);
      });
    }
  }

  #written(volume: number, entry: Entry, next: AcceptorState, error: LaminaError | null): void {
    if (error !== null) {
      // Out of room for records is no failure: nothing was written, and others have their pages.
      if (error.code !== "VOLUMES_FULL") this.#failed = true;
      return;
    }
    const before = entry.state.accepted;
    entry.state = next;
    if (next.accepted !== null && next.accepted !== before)
      this.#claim(volume, before?.bytes ?? null, next.accepted.bytes);
  }
}

function isVolumeKey(key: number): boolean {
  return key <= VOLUME_ID_MAX;
}

/**
 * The promise of an acceptor that takes over another one's. Two owners may have asked for one epoch, each with some
 * acceptors, and one of them may have a majority: who has had a record accepted had one. Of others nobody can tell, so
 * neither has this vote: it must not make a second majority of the epoch.
 */
function mergedPromise(a: Ballot, b: Ballot, accepted: AcceptedRecord | null): Ballot {
  if (a.epoch !== b.epoch) return a.epoch > b.epoch ? a : b;
  if (sameBallot(a, b)) return a;
  return accepted?.ballot.epoch === a.epoch ? accepted.ballot : { epoch: a.epoch, owner: NO_BALLOT.owner };
}

/** Of two accepted records the one of the higher ballot, or of one ballot the one of the higher generation. */
export function newerRecord(a: AcceptedRecord | null, b: AcceptedRecord | null): AcceptedRecord | null {
  if (a === null) return b;
  if (b === null) return a;
  if (a.ballot.epoch !== b.ballot.epoch) return a.ballot.epoch > b.ballot.epoch ? a : b;
  assert(sameBallot(a.ballot, b.ballot), "an epoch has one owner");
  return a.generation >= b.generation ? a : b;
}

function isAccepted({ accepted }: AcceptorState, record: AcceptedRecord): boolean {
  return (
    accepted !== null &&
    sameBallot(accepted.ballot, record.ballot) &&
    accepted.generation === record.generation &&
    accepted.bytes.length === record.bytes.length &&
    accepted.bytes.every((byte, i) => byte === record.bytes[i])
  );
}

/** magic 4 · version 4 · promised epoch 8, owner 8 · accepted epoch 8, owner 8, generation 8 · length + 1 or 0, 4 · 0 */
export function encodeState({ promised, accepted }: AcceptorState): Uint8Array {
  const record = accepted?.bytes ?? new Uint8Array(0);
  const bytes = new Uint8Array(ACCEPTOR_HEADER_BYTES + record.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, PAGE_VERSION, true);
  putU64(view, 8, promised.epoch);
  putU64(view, 16, promised.owner);
  if (accepted !== null) {
    putU64(view, 24, accepted.ballot.epoch);
    putU64(view, 32, accepted.ballot.owner);
    putU64(view, 40, accepted.generation);
    view.setUint32(48, record.length + 1, true);
  }
  bytes.set(record, ACCEPTOR_HEADER_BYTES);
  return bytes;
}

/** Throws Error with the reason. */
export function decodeState(bytes: Uint8Array): AcceptorState {
  if (bytes[0] === BRACE) return stateOfOneMachine(bytes);
  if (bytes.length < ACCEPTOR_HEADER_BYTES) throw new Error("its page is too short");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) throw new Error("its page holds something else");
  const version = view.getUint32(4, true);
  if (version !== PAGE_VERSION) throw new Error(`version ${version} of its page is unknown`);
  const promised = { epoch: getU64(view, 8), owner: getU64(view, 16) };
  const length = view.getUint32(48, true) - 1;
  if (length < 0) return { promised, accepted: null };
  if (length !== bytes.length - ACCEPTOR_HEADER_BYTES) throw new Error("its page is cut short");
  const ballot = { epoch: getU64(view, 24), owner: getU64(view, 32) };
  const accepted = { ballot, generation: getU64(view, 40), bytes: bytes.slice(ACCEPTOR_HEADER_BYTES) };
  return { promised, accepted };
}

/** A volume of one machine: its record was accepted by the only config node there was. */
function stateOfOneMachine(bytes: Uint8Array): AcceptorState {
  const record = decodeRecord(bytes);
  const ballot = { epoch: record.epoch, owner: 0 };
  return { promised: ballot, accepted: { ballot, generation: record.generation, bytes: bytes.slice() } };
}
