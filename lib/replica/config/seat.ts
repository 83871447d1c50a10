/**
 * The seat of one node among the config nodes, on its device: which set it knows, and whether it may vote in it.
 *
 * Invariants
 *  1. It answers for one set at a time: for none while a newer one is being written, and for that one when it is
 *     durable. It never goes back.
 *  2. It votes only with the states of all that was decided before: because it was there all along, or because it
 *     has copied them (copy.ts). Which of the two is durable with the set.
 *  3. One that was left out tells its states to those who join in its place, and votes no more.
 */
import { VOLUME_ID_MAX } from "../../core/ids.js";
import type { RecordStore } from "../acceptor.js";
import type { NodeId } from "../api.js";
import { type ConfigSet, configSetOf, isIn, rawConfigSet, type SetFollower } from "./set.js";

/** Where a node keeps its seat; no volume and no device has this number. */
export const OWN_SEAT_KEY = VOLUME_ID_MAX + 3;

interface Page {
  readonly set: ConfigSet;
  /** It has the states of all decisions up to the set before. */
  readonly holds: boolean;
}

export class ConfigSeat implements SetFollower {
  readonly node: NodeId;
  readonly #store: RecordStore;
  readonly #changed: () => void;
  #page: Page;
  /** What is in memory is on the device. */
  #settled = false;
  #writing = false;

  /**
   * `first`: the set to begin with when nothing is written down yet. `changed` is called, from the engine's batch,
   * whenever what it answers for has changed. Throws Error when the page is damaged.
   */
  constructor(store: RecordStore, node: NodeId, first: ConfigSet, changed: () => void) {
    this.node = node;
    this.#store = store;
    this.#changed = changed;
    const written = store.records().get(OWN_SEAT_KEY);
    if (written === undefined) {
      // Nothing was decided before the first set; whoever meets a later one for the first time has all to copy.
      this.#page = { set: first, holds: first.version === 1 && isIn(first, node) };
    } else {
      this.#page = decodePage(written);
      this.#settled = true;
    }
  }

  /** What it says is on its device. */
  get isSettled(): boolean {
    return this.#settled;
  }

  /** Begins: what is not on the device yet is written there. */
  start(): void {
    if (!this.#settled) this.#write();
  }

  get set(): ConfigSet {
    return this.#page.set;
  }

  /** It is one of the config nodes, whether it votes already or not. */
  get isConfig(): boolean {
    return isIn(this.set, this.node);
  }

  /** It answers Promise, Accept and Renew that are asked under this version of the set. */
  votesIn(version: number): boolean {
    return this.#settled && this.#page.holds && version === this.set.version && this.isConfig;
  }

  /** It tells what it has accepted to one that joins with this version of the set. */
  tellsStates(version: number): boolean {
    return this.#settled && this.#page.holds && this.set.version >= version;
  }

  /** It is one of the config nodes and has to copy before it votes. */
  get isEmpty(): boolean {
    return this.#settled && this.isConfig && !this.#page.holds;
  }

  /** A set that was chosen. An older one, or the same, changes nothing. */
  heard(set: ConfigSet): void {
    const { set: known, holds } = this.#page;
    if (set.version <= known.version) return;
    const voted = holds && isIn(known, this.node);
    this.#become({ set, holds: voted && isKept(set, known, this.node) });
  }

  /** The states of a majority of the set before `version` are on the device: it votes from now on. */
  filled(version: number): void {
    if (this.set.version === version && this.isConfig) this.#become({ set: this.set, holds: true });
  }

  #become(page: Page): void {
    this.#page = page;
    this.#settled = false;
    this.#write();
    this.#changed();
  }

  /** A device that cannot write the page answers for no set any more. */
  #write(): void {
    if (this.#writing) return;
    this.#writing = true;
    const page = this.#page;
    this.#store.putRecord(OWN_SEAT_KEY, encodePage(page), (error) => {
      this.#writing = false;
      if (error !== null) return;
      if (page !== this.#page) {
        this.#write();
        return;
      }
      this.#settled = true;
      this.#changed();
    });
  }
}

/**
 * Whether a node that voted in `known` has in `set` what it had: it was never left out between, or it was left out
 * just now and is of use to who joins.
 */
function isKept(set: ConfigSet, known: ConfigSet, node: NodeId): boolean {
  const entry = set.nodes.find((one) => one.node === node);
  return entry === undefined ? set.version === known.version + 1 : entry.since <= known.version;
}

function encodePage({ set, holds }: Page): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ ...rawConfigSet(set), holds }));
}

/** Throws Error. */
function decodePage(bytes: Uint8Array): Page {
  const raw: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  const set = configSetOf(raw);
  const holds = (raw as { readonly holds?: unknown } | null)?.holds;
  if (set === null || typeof holds !== "boolean")
    throw new Error("its page of the config nodes holds something else");
  return { set, holds };
}
