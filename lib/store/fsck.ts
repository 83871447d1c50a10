/**
 * The offline check: every rule of DESIGN §5 that can be seen on the device, without changing it.
 *
 *  - superblock, log anchor, hot bitmap, directory, records, tables: valid, and both copies agree;
 *  - the log ends where it may end; no record speaks of what does not exist; no page or table reflects a record
 *    that the log does not have any more;
 *  - no extent has two slots; a cool slot has nothing left in the log;
 *  - the bytes of a free slot and of an absent block are zeros; those of a present block match its checksum,
 *    or, in a slot that is hot, one of the values that the log gives it.
 *
 * What a crash leaves behind in order (copies of two ages, hot slots, blocks to be adopted after a power loss)
 * is counted, not reported.
 */
import { LaminaError } from "../core/errors.js";
import { BLOCK_BYTES } from "../core/limits.js";
import { diskSync, type Routine } from "../core/routine.js";
import type { StoreEnvironment } from "./api.js";
import { Device } from "./device.js";
import { SlotState } from "./directory.js";
import { layoutOf } from "./format.js";
import { isZero } from "./metadata-io.js";
import { currentSuperblock } from "./open-store.js";
import { tunablesOf } from "./options.js";
import { isHotIn, RECOVERY_BUFFER_BYTES, type RecoveredState, recover } from "./recovery.js";
import { SETTLE_BYTES, type Settled, Settler } from "./settle.js";
import { readSuperblocks, type Superblock } from "./superblock.js";
import { TableIo } from "./table-io.js";
import { refuseOlder } from "./upgrade.js";

export interface Finding {
  /** Stable name of the rule that is broken. */
  readonly rule:
    | "superblock"
    | "device"
    | "log"
    | "anchor"
    | "hot-bitmap"
    | "directory"
    | "record"
    | "double-slot"
    | "table"
    | "stale-table"
    | "ahead"
    | "checksum"
    | "free-not-zero"
    | "unreadable";
  /** One sentence. */
  readonly message: string;
  readonly slot?: number;
  readonly volume?: number;
  readonly extent?: number;
  /** Block inside the extent. */
  readonly block?: number;
}

export interface FsckReport {
  readonly findings: readonly Finding[];
  /** Null when the device is not a store that can be read at all. */
  readonly superblock: Superblock | null;
  readonly slots: number;
  readonly liveSlots: number;
  readonly freeSlots: number;
  readonly hotSlots: number;
  readonly blocksVerified: number;
  /** Blocks in hot slots of a LOSSY device that will be taken over as they are. */
  readonly blocksToAdopt: number;
  /** Log records that the next opening will replay. */
  readonly logRecords: number;
}

export interface FsckOptions {
  /** What messages call the device. */
  readonly path?: string;
  /** Reserved: nothing is repaired offline; an opening repairs what can be repaired. */
  readonly repair?: false;
  /** Skip the data, check only metadata. */
  readonly metadataOnly?: boolean;
  /** Called now and then with the part that is done, 0 … 1. */
  readonly onProgress?: (done: number) => void;
}

/** Findings beyond this many are counted in the last one only. */
const FINDINGS_MAX = 1000;

/** Checks the device. Throws LaminaError when it is not a store, is newer or older, or is too small. */
export function* fsck(env: StoreEnvironment, options: FsckOptions = {}): Routine<FsckReport> {
  const path = options.path ?? "the device";
  const buffers = [RECOVERY_BUFFER_BYTES, SETTLE_BYTES].map((bytes) => env.pool.allocate(bytes));
  try {
    if (buffers.some((memory) => memory < 0)) {
      throw new LaminaError("DEVICE_FAILED", { path, what: "no memory to check it" });
    }
    return yield* new Check(env, options, path, buffers[0]!, buffers[1]!).run();
  } finally {
    for (const memory of buffers) if (memory >= 0) env.pool.free(memory);
  }
}

class Check {
  readonly #env: StoreEnvironment;
  readonly #options: FsckOptions;
  readonly #path: string;
  readonly #memory: number;
  readonly #data: number;
  readonly #findings: Finding[] = [];
  #suppressed = 0;
  #hotSlots = 0;
  #verified = 0;
  #toAdopt = 0;

  constructor(env: StoreEnvironment, options: FsckOptions, path: string, memory: number, data: number) {
    this.#env = env;
    this.#options = options;
    this.#path = path;
    this.#memory = memory;
    this.#data = data;
  }

  *run(): Routine<FsckReport> {
    const superblock = yield* this.#superblocks();
    const layout = layoutOf(superblock.geometry);
    if (this.#env.disk.sizeBytes < layout.end) {
      this.#add({
        rule: "device",
        message: `the device has ${this.#env.disk.sizeBytes} bytes but was formatted with ${layout.end}`,
      });
      return this.#report(superblock, null, layout.slots);
    }
    // As an opening would: what a killed process left in the page cache belongs to the log. A device that is
    // open read-only cannot; then the page cache is what there is.
    yield* diskSync(this.#env.disk);
    const device = new Device(
      this.#env,
      layout,
      tunablesOf({}),
      superblock.deviceId,
      superblock.incarnation,
      () => undefined,
    );
    let state: RecoveredState;
    try {
      state = yield* recover(device, superblock.deviceId, this.#path, this.#memory);
    } catch (error) {
      if (!(error instanceof LaminaError)) throw error;
      this.#add({ rule: "device", message: String(error.params["what"] ?? error.message) });
      return this.#report(superblock, null, layout.slots);
    }
    this.#metadata(superblock, state);
    yield* this.#slots(device, superblock, state);
    return this.#report(superblock, state, layout.slots);
  }

  *#superblocks(): Routine<Superblock> {
    const { found } = yield* currentSuperblock(this.#env, this.#path, this.#memory);
    refuseOlder(found, this.#path);
    const { a, b } = yield* readSuperblocks(this.#env, this.#memory);
    for (const [name, page] of [
      ["A", a],
      ["B", b],
    ] as const) {
      if (page.kind !== "valid")
        this.#add({ rule: "superblock", message: `superblock ${name} is ${page.kind}` });
    }
    if (a.kind === "valid" && b.kind === "valid" && a.superblock.sequence !== b.superblock.sequence) {
      // A crash between the two writes leaves the second one behind by one.
      const behind = a.superblock.sequence - b.superblock.sequence;
      if (behind !== 1)
        this.#add({ rule: "superblock", message: `superblock B is ${behind} writes behind A` });
    }
    return found;
  }

  #metadata(superblock: Superblock, state: RecoveredState): void {
    const { corruptAt } = state.log;
    if (corruptAt !== null) {
      this.#add({
        rule: "log",
        message: `the log is corrupt: record ${corruptAt} was synced but is not there`,
      });
    }
    for (const slot of state.doubles) {
      this.#add({
        rule: "double-slot",
        message: `slot ${slot} holds an extent that another slot holds too`,
        slot,
      });
    }
    for (const page of state.pagesAhead) {
      this.#add({ rule: "ahead", message: `directory page ${page} reflects records that the log lacks` });
    }
    state.hot.pages.forEach(({ state: copies }, page) => {
      if (copies === "lost")
        this.#add({ rule: "hot-bitmap", message: `no copy of hot bitmap page ${page} is valid` });
      if (copies === "differ" && superblock.clean) {
        this.#add({
          rule: "hot-bitmap",
          message: `the copies of hot bitmap page ${page} differ after a clean shutdown`,
        });
      }
    });
    if (!superblock.clean) return;
    for (const page of state.differingPages) {
      this.#add({
        rule: "directory",
        message: `the copies of directory page ${page} differ after a clean shutdown`,
      });
    }
    for (const { page, agree } of state.records.pages) {
      if (!agree)
        this.#add({
          rule: "record",
          message: `the copies of volume record ${page} differ after a clean shutdown`,
        });
    }
    if (state.staleAnchor !== null) {
      this.#add({ rule: "anchor", message: "the copies of the log anchor differ after a clean shutdown" });
    }
  }

  *#slots(device: Device, superblock: Superblock, state: RecoveredState): Routine<void> {
    const { directory, pending, hot } = state;
    const lossy = superblock.lossy || (!superblock.clean && superblock.bootId !== this.#env.bootId);
    const settler = new Settler(device, directory, new TableIo(device), pending, this.#data, this.#memory);
    for (let slot = 0; slot < directory.slots; slot++) {
      const isHot = isHotIn(hot, slot);
      if (isHot) this.#hotSlots++;
      if (directory.state[slot] === SlotState.Live) {
        yield* this.#liveSlot(settler, state, slot, isHot, lossy);
      } else if (directory.state[slot] === SlotState.Free && !isHot && this.#options.metadataOnly !== true) {
        yield* this.#freeSlot(device, slot);
      }
      if (slot % 64 === 0) this.#options.onProgress?.(slot / directory.slots);
    }
  }

  *#liveSlot(
    settler: Settler,
    state: RecoveredState,
    slot: number,
    isHot: boolean,
    lossy: boolean,
  ): Routine<void> {
    const { directory, pending } = state;
    const stale = !isHot && pending.has(slot) ? newestOf(state, slot) : -1;
    if (!isHot) pending.forget(slot);
    // Every block is compared, as after a power loss; what would be adopted is what matches nothing.
    const outcome =
      this.#options.metadataOnly === true
        ? yield* settler.settle(slot, false)
        : yield* settler.settle(slot, true);
    const where = { slot, volume: directory.volume[slot]!, extent: directory.extent[slot]! };
    if (outcome.lost) {
      this.#add({ rule: "table", message: `both entry tables of slot ${slot} are damaged`, ...where });
      return;
    }
    if (!outcome.agree && !isHot) {
      this.#add({ rule: "table", message: `the entry tables of cool slot ${slot} differ`, ...where });
    }
    if (outcome.position > state.log.start.nextSequence) {
      this.#add({
        rule: "ahead",
        message: `the table of slot ${slot} reflects records that the log lacks`,
        ...where,
      });
    }
    if (stale >= outcome.position) {
      this.#add({
        rule: "stale-table",
        message: `slot ${slot} is cool but the log has changes of it`,
        ...where,
      });
    }
    this.#verified += settler.entries.reduce((count, entry) => count + (entry === 0 ? 0 : 1), 0);
    this.#blocks(outcome, where, isHot && lossy);
  }

  #blocks(outcome: Settled, where: { slot: number; volume: number; extent: number }, adopts: boolean): void {
    if (adopts) this.#toAdopt += outcome.adopted.length;
    else for (const block of outcome.adopted) this.#mismatch(block, where);
    for (const block of outcome.rotten) {
      this.#add({
        rule: "unreadable",
        message: `volume ${where.volume} extent ${where.extent} block ${block} cannot be read`,
        ...where,
        block,
      });
    }
  }

  #mismatch(block: number, where: { slot: number; volume: number; extent: number }): void {
    const name = `volume ${where.volume} extent ${where.extent} block ${block} (slot ${where.slot})`;
    this.#add({ rule: "checksum", message: `${name}: its bytes do not match its entry`, ...where, block });
  }

  *#freeSlot(device: Device, slot: number): Routine<void> {
    const { layout, io, words } = device;
    for (let at = 0; at < layout.slotBytes; at += SETTLE_BYTES) {
      const length = Math.min(SETTLE_BYTES, layout.slotBytes - at);
      const result = yield* io.read(layout.slotsStart + slot * layout.slotBytes + at, this.#data, length);
      if (result >= 0 && isZero(words, this.#data >>> 2, length >>> 2)) continue;
      const what = result < 0 ? "cannot be read" : "is not zero";
      const message = `free slot ${slot} ${what} near block ${Math.floor(at / BLOCK_BYTES)}`;
      this.#add({ rule: result < 0 ? "unreadable" : "free-not-zero", message, slot });
      return;
    }
  }

  #add(finding: Finding): void {
    if (this.#findings.length < FINDINGS_MAX) this.#findings.push(finding);
    else this.#suppressed++;
  }

  #report(superblock: Superblock, state: RecoveredState | null, slots: number): FsckReport {
    const findings = [...this.#findings];
    if (this.#suppressed > 0) {
      findings.push({ rule: "device", message: `${this.#suppressed} further findings are not listed` });
    }
    return {
      findings,
      superblock,
      slots,
      liveSlots: state?.directory.liveSlots ?? 0,
      freeSlots: state?.directory.freeSlots ?? 0,
      hotSlots: this.#hotSlots,
      blocksVerified: this.#verified,
      blocksToAdopt: this.#toAdopt,
      logRecords: state?.log.frames.reduce((count, { header }) => count + header.records, 0) ?? 0,
    };
  }
}

/** Sequence of the newest record about a block of the slot. */
function newestOf(state: RecoveredState, slot: number): number {
  let newest = -1;
  state.pending.visit(slot, 0, (sequence) => {
    if (sequence > newest) newest = sequence;
  });
  return newest;
}
