/** A first-in, first-out list of operations, linked through their own `next`: no allocation. */
import type { ExtentOp } from "../core/extent-io.js";

export class OpList {
  #first: ExtentOp | null = null;
  #last: ExtentOp | null = null;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(op: ExtentOp): void {
    op.next = null;
    if (this.#last === null) this.#first = op;
    else this.#last.next = op;
    this.#last = op;
    this.#length++;
  }

  shift(): ExtentOp | null {
    const op = this.#first;
    if (op === null) return null;
    this.#first = op.next;
    if (this.#first === null) this.#last = null;
    op.next = null;
    this.#length--;
    return op;
  }

  /** Takes everything out of `other`, in order. */
  take(other: OpList): void {
    for (let op = other.shift(); op !== null; op = other.shift()) this.push(op);
  }
}
