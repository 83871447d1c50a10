/** One operation of the volume on its way to the members; pooled with the operations that each member gets. */
import { type ExtentListener, ExtentOp, ExtentOpKind } from "../../core/extent-io.js";
import { MEMBERS_MAX } from "./record.js";

/** Of a change, by member. */
export const PartState = {
  /** Does not go to this member. */
  None: 0,
  /** Is to be sent when that is possible. */
  Wait: 1,
  Sent: 2,
  Done: 3,
  /** The member's device is full. */
  NoSpace: 4,
} as const;

export interface FlightOwner {
  partDone(flight: Flight, part: ExtentOp): void;
}

const NO_OP = new ExtentOp();

export class Flight implements ExtentListener {
  /** The volume's own; a read is sent as it is, of a change each member gets a copy. */
  op: ExtentOp = NO_OP;
  /** The asker's, kept while `op` has ours. */
  listener: ExtentListener = NO_OP.listener;
  tag = 0;
  isRead = false;
  /** Not begun: its extent is not available. */
  held = false;
  /** Parts that sessions have. */
  inFlight = 0;
  sequence = 0;
  readonly states = new Uint8Array(MEMBERS_MAX);
  /** Generation that each part was last sent under. */
  readonly sentUnder = new Float64Array(MEMBERS_MAX);
  /** Read: bit i says that member i has rot in these blocks. */
  badCopies = 0;
  /** Read: every copy has rot somewhere; waits for repair, once. */
  healing = false;
  healed = false;
  previous: Flight | null = null;
  next: Flight | null = null;
  readonly #owner: FlightOwner;
  readonly #parts: ExtentOp[] = [];

  constructor(owner: FlightOwner) {
    this.#owner = owner;
  }

  begin(op: ExtentOp): void {
    this.op = op;
    this.listener = op.listener;
    this.tag = op.tag;
    this.isRead = op.kind === ExtentOpKind.Read || op.kind === ExtentOpKind.Map;
    this.held = false;
    this.sequence = 0;
    this.badCopies = 0;
    this.healing = false;
    this.healed = false;
    this.states.fill(PartState.None);
  }

  end(): ExtentOp {
    const { op } = this;
    op.listener = this.listener;
    op.tag = this.tag;
    this.op = NO_OP;
    return op;
  }

  /** The operation for one member, with everything but epoch and generation. */
  part(member: number): ExtentOp {
    const { op } = this;
    while (this.#parts.length <= member) this.#parts.push(new ExtentOp());
    const part = this.#parts[member]!;
    part.kind = op.kind;
    part.layer = op.layer;
    part.extent = op.extent;
    part.block = op.block;
    part.blocks = op.blocks;
    part.memory = op.memory;
    part.flags = op.flags;
    part.sequence = this.sequence;
    part.listener = this;
    part.tag = member;
    part.next = null;
    if (op.kind === ExtentOpKind.Write) {
      for (let i = 0; i < op.blocks; i++) part.entries[i] = op.entries[i]!;
    }
    return part;
  }

  extentDone(part: ExtentOp): void {
    this.#owner.partDone(this, part);
  }
}
