/** The first write into an extent: a slot, its ALLOC record and its table. */
import { ENTRY_ABSENT, extentSeed, volumeSeed } from "../core/checksum.js";
import { ExtentFlag, type ExtentOp } from "../core/extent-io.js";
import { Status } from "../core/status.js";
import type { Freeing } from "./freeing.js";
import { ALLOC_WORDS, STAMP_WORDS } from "./log-records.js";
import type { RequestCore } from "./request-core.js";
import type { SlotPool } from "./slot-pool.js";
import { type Table, TableState } from "./table.js";

export interface AllocationOwner {
  /** Writes wait for space, or none does any more. */
  fullChanged(): void;
}

export class Allocation {
  readonly #core: RequestCore;
  readonly #owner: AllocationOwner;
  #slots!: SlotPool;
  #freeing!: Freeing;
  /** Free slots that no new extent gets. */
  #reserve = 0;

  constructor(core: RequestCore, owner: AllocationOwner) {
    this.#core = core;
    this.#owner = owner;
  }

  wire(slots: SlotPool, freeing: Freeing): void {
    this.#slots = slots;
    this.#freeing = freeing;
    const { layout, tunables } = this.#core.parts.device;
    this.#reserve = Math.floor(layout.slots * tunables.reserveShare);
  }

  /** No slot may be given to a new extent: all are taken, or only the reserve is left. */
  get full(): boolean {
    return this.#core.parts.directory.freeSlots <= this.#reserve;
  }

  /**
   * A new slot for the operation's extent, its ALLOC staged, with room for `words` more words of log. Null
   * when the operation waits, or was answered NoSpace.
   */
  allocate(op: ExtentOp, words: number): Table | null {
    const { waiting, maintenance } = this.#core;
    if (this.full) {
      if ((op.flags & ExtentFlag.NoWait) !== 0 && this.#freeing.count === 0) {
        this.#core.finish(op, Status.NoSpace);
      } else {
        waiting.forSlot(op);
        this.#owner.fullChanged();
      }
      return null;
    }
    if (this.#slots.ready === 0) {
      waiting.slots.push(op);
      this.#slots.refill();
      return null;
    }
    if (!this.#core.hasLogRoom(op, ALLOC_WORDS + STAMP_WORDS + words)) return null;
    const slot = this.#slots.take();
    const table = this.#core.parts.cache.claim(slot, 0, extentSeed(volumeSeed(op.volume), op.extent));
    if (table === null) {
      this.#slots.put(slot);
      waiting.frames.push(op);
      maintenance.wantFrames();
      return null;
    }
    this.#enter(op, table);
    return table;
  }

  #enter(op: ExtentOp, table: Table): void {
    const { directory, log, device } = this.#core.parts;
    const { volume, layer, extent } = op;
    const identity = { volume, layer, extent, generation: op.generation, created: op.sequence };
    table.alloc = log.alloc(table.slot, identity);
    table.entries.fill(ENTRY_ABSENT);
    table.state = TableState.Ready;
    directory.allocate(table.slot, table.alloc, identity);
    device.env.events.extentChanged(volume, layer, extent, true);
  }
}
