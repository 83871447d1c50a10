/** One operation at a node, from the message that asks it to the one that answers. Pooled by the node. */
import { type ExtentListener, ExtentOp } from "../core/extent-io.js";
import type { VolumeGate } from "./gate.js";
import type { ServedSession } from "./served-session.js";

export interface RequestOwner {
  requestDone(request: NodeRequest): void;
}

export class NodeRequest implements ExtentListener {
  readonly op = new ExtentOp();
  readonly #owner: RequestOwner;
  session: ServedSession | null = null;
  /** Kind of the message, and the tag that its answer carries. */
  kind = 0;
  tag = 0;
  /** Pool buffer of the payload, or −1; and what the request takes of the window. */
  memory = -1;
  windowBytes = 0;
  /** Entered and not left yet. */
  gate: VolumeGate | null = null;
  next: NodeRequest | null = null;

  constructor(owner: RequestOwner) {
    this.#owner = owner;
    this.op.listener = this;
  }

  extentDone(): void {
    this.#owner.requestDone(this);
  }

  reset(): void {
    this.session = null;
    this.memory = -1;
    this.windowBytes = 0;
  }
}

/** Requests in order, linked through `next`. */
export class RequestList {
  #first: NodeRequest | null = null;
  #last: NodeRequest | null = null;

  get first(): NodeRequest | null {
    return this.#first;
  }

  push(request: NodeRequest): void {
    request.next = null;
    if (this.#last === null) this.#first = request;
    else this.#last.next = request;
    this.#last = request;
  }

  shift(): NodeRequest | null {
    const request = this.#first;
    if (request === null) return null;
    this.#first = request.next;
    if (this.#first === null) this.#last = null;
    request.next = null;
    return request;
  }
}
