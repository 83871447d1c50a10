/**
 * Operations that cannot go on, by what they wait for: each is in exactly one list, and starts again from the
 * beginning when what it waits for is there.
 */
import type { ExtentOp } from "../core/extent-io.js";
import { Status } from "../core/status.js";
import { OpList } from "./op-list.js";

export interface WaitingOwner {
  /** Begins the operation anew. */
  dispatch(op: ExtentOp): void;
  /** Answers it at the end of the batch. */
  finish(op: ExtentOp, status: Status): void;
}

export class Waiting {
  readonly #owner: WaitingOwner;
  readonly #settling = new Map<number, OpList>();
  readonly #hotBit = new Map<number, OpList>();
  /** For a frame of the cache of entry tables. */
  readonly frames = new OpList();
  /** For room in the log. */
  readonly log = new OpList();
  /** First writes into an extent that find no free slot, or none that is hot yet. */
  readonly slots = new OpList();
  /** Operations that met a full file system and wait for the next try. */
  readonly space = new OpList();
  /** Operations that met one, waiting or just being tried again. */
  readonly metFull = new Set<ExtentOp>();
  #stopped = false;

  constructor(owner: WaitingOwner) {
    this.#owner = owner;
  }

  get count(): number {
    let count = this.frames.length + this.log.length + this.forSpace;
    for (const list of this.#settling.values()) count += list.length;
    for (const list of this.#hotBit.values()) count += list.length;
    return count;
  }

  get forSpace(): number {
    return this.slots.length + this.metFull.size;
  }

  /** A first write finds no free slot. */
  forSlot(op: ExtentOp): void {
    if (this.#stopped) this.#owner.finish(op, Status.Shutdown);
    else this.slots.push(op);
  }

  /** It met a full file system. */
  forRoom(op: ExtentOp): void {
    if (this.#stopped) {
      this.#owner.finish(op, Status.Shutdown);
      return;
    }
    this.space.push(op);
    this.metFull.add(op);
  }

  forSettling(slot: number, op: ExtentOp): void {
    waitFor(this.#settling, slot, op);
  }

  forHotBit(slot: number, op: ExtentOp): void {
    waitFor(this.#hotBit, slot, op);
  }

  /** The operation is about to be answered. */
  over(op: ExtentOp): void {
    if (this.metFull.size > 0) this.metFull.delete(op);
  }

  settled(slot: number): void {
    this.#wakeOf(this.#settling, slot);
  }

  hot(slot: number): void {
    this.#wakeOf(this.#hotBit, slot);
  }

  #wakeOf(lists: Map<number, OpList>, slot: number): void {
    const list = lists.get(slot);
    if (list === undefined) return;
    lists.delete(slot);
    this.wake(list);
  }

  /** Each starts again once; those that must wait again are behind them in the list. */
  wake(list: OpList): void {
    for (let left = list.length; left > 0; left--) this.#owner.dispatch(list.shift()!);
  }

  refuse(list: OpList, status: Status): void {
    for (let op = list.shift(); op !== null; op = list.shift()) this.#owner.finish(op, status);
  }

  /** From now on nobody waits for space, which may never come. */
  stop(): void {
    this.#stopped = true;
    this.refuse(this.slots, Status.Shutdown);
    this.refuse(this.space, Status.Shutdown);
  }

  /** The device has failed: nobody waits any longer. */
  failed(): void {
    for (const lists of [this.#settling, this.#hotBit]) {
      for (const list of lists.values()) this.refuse(list, Status.Io);
      lists.clear();
    }
    for (const list of [this.frames, this.log, this.slots, this.space]) this.refuse(list, Status.Io);
  }
}

function waitFor(lists: Map<number, OpList>, slot: number, op: ExtentOp): void {
  let list = lists.get(slot);
  if (list === undefined) {
    list = new OpList();
    lists.set(slot, list);
  }
  list.push(op);
}
