/**
 * Making copies of one extent equal, while no operation of the volume touches it: entries are compared, blocks that
 * differ are copied. Routines, because this is not done per request.
 */
import { ENTRY_ABSENT } from "../../core/checksum.js";
import {
  EXTENT_OP_BLOCKS_MAX,
  ExtentFlag,
  type ExtentListener,
  ExtentOp,
  ExtentOpKind,
} from "../../core/extent-io.js";
import { BLOCK_BYTES } from "../../core/limits.js";
import type { Pool } from "../../core/pool.js";
import type { Routine } from "../../core/routine.js";
import { Status } from "../../core/status.js";
import { COPY_BLOCKS } from "./limits.js";
import type { Member } from "./member.js";

const Content = { Absent: 0, Zeros: 1, Bytes: 2 } as const;
type Content = (typeof Content)[keyof typeof Content];

export interface CopyHost {
  readonly volume: number;
  readonly epoch: number;
  readonly generation: number;
  readonly extentBlocks: number;
  readonly over: boolean;
  nextSequence(): number;
  /** An answer of a member to background work that was not Ok. */
  refused(member: Member, status: Status, badBlock: number): void;
  /** The member cannot be used now. */
  absent(member: Member): void;
  /** A block that no copy can be read of. */
  lost(member: Member, extent: number, block: number): void;
}

/** An operation of background work, and who waits for it. */
class Ask implements ExtentListener {
  readonly op = new ExtentOp();
  #resume: ((result: number) => void) | null = null;

  start(member: Member, resume: (result: number) => void): void {
    this.op.listener = this;
    this.#resume = resume;
    member.outstanding++;
    member.session!.copy(this.op);
  }

  extentDone(op: ExtentOp): void {
    const resume = this.#resume!;
    this.#resume = null;
    resume(op.status);
  }
}

export class Copier {
  readonly #host: CopyHost;
  readonly #pool: Pool;
  readonly #memory: number;
  readonly #source = new Ask();
  readonly #target = new Ask();
  readonly #wanted = new Uint32Array(EXTENT_OP_BLOCKS_MAX);
  readonly #found = new Uint32Array(EXTENT_OP_BLOCKS_MAX);
  /** Blocks that no source could read while the last `equalise` or `repair` ran: a target keeps what it had of them. */
  readonly unreadable = new Set<number>();
  /** The Zero that is asked for leaves blocks of zeros. */
  #noHole = false;

  /** Null: the pool has no buffer now. */
  static make(host: CopyHost, pool: Pool): Copier | null {
    const memory = pool.allocate(COPY_BLOCKS * BLOCK_BYTES);
    return memory < 0 ? null : new Copier(host, pool, memory);
  }

  private constructor(host: CopyHost, pool: Pool, memory: number) {
    this.#host = host;
    this.#pool = pool;
    this.#memory = memory;
  }

  /** Nothing may be under way. */
  end(): void {
    this.#pool.free(this.#memory);
  }

  /**
   * Gives every target the content that the first source has, with blocks that it cannot read from the next ones;
   * then stamps the extent on `stamped`. False: a member did not answer, and nothing is known. True, and the targets are equal
   * to the first source but in `unreadable`.
   */
  *equalise(
    extent: number,
    sources: readonly Member[],
    targets: readonly Member[],
    stamped: readonly Member[],
  ): Routine<boolean> {
    const { extentBlocks } = this.#host;
    this.unreadable.clear();
    let isEmpty = true;
    for (let block = 0; block < extentBlocks; block += EXTENT_OP_BLOCKS_MAX) {
      const blocks = Math.min(EXTENT_OP_BLOCKS_MAX, extentBlocks - block);
      if (!(yield* this.#map(sources[0]!, extent, block, blocks, this.#wanted))) return false;
      if (this.#wanted.subarray(0, blocks).some((entry) => entry !== ENTRY_ABSENT)) isEmpty = false;
      for (const target of targets) {
        if (!(yield* this.#map(target, extent, block, blocks, this.#found))) return false;
        if (!(yield* this.#copyDifferent(extent, block, blocks, sources, target))) return false;
      }
    }
    for (const member of stamped) {
      // An extent of absent blocks only is no extent: so they agree about its existence too.
      const kind = isEmpty ? ExtentOpKind.Free : ExtentOpKind.Stamp;
      if ((yield* this.ask(this.#target, member, kind, extent, 0, extentBlocks, 0)) !== Status.Ok)
        return false;
    }
    return true;
  }

  /** Reads everything the member has of the extent, and rewrites from the others what fails its checksum. */
  *repair(extent: number, member: Member, others: readonly Member[]): Routine<number> {
    const { extentBlocks } = this.#host;
    this.unreadable.clear();
    let repaired = 0;
    for (let block = 0; block < extentBlocks; ) {
      const blocks = Math.min(COPY_BLOCKS, extentBlocks - block);
      const status = yield* this.ask(this.#source, member, ExtentOpKind.Read, extent, block, blocks, 0);
      const bad = this.#source.op.badBlock;
      if (status === Status.Ok) {
        block += blocks;
      } else if (status === Status.Io && bad >= block && bad < block + blocks) {
        const copied = yield* this.#copyRun(extent, bad, 1, others, member);
        if (copied === "gone") return repaired;
        if (copied === "copied") repaired++;
        block = bad + 1;
      } else {
        return repaired;
      }
    }
    return repaired;
  }

  *free(extent: number, member: Member): Routine<boolean> {
    const { extentBlocks } = this.#host;
    const status = yield* this.ask(this.#target, member, ExtentOpKind.Free, extent, 0, extentBlocks, 0);
    return status === Status.Ok;
  }

  *flush(member: Member): Routine<boolean> {
    return (yield* this.ask(this.#target, member, ExtentOpKind.Flush, 0, 0, 0, 0)) === Status.Ok;
  }

  *#copyDifferent(
    extent: number,
    first: number,
    blocks: number,
    sources: readonly Member[],
    target: Member,
  ): Routine<boolean> {
    const wanted = this.#wanted;
    const found = this.#found;
    for (let i = 0; i < blocks; ) {
      if (wanted[i] === found[i]) {
        i++;
        continue;
      }
      const isAbsent = wanted[i] === ENTRY_ABSENT;
      const from = i;
      while (
        i < blocks &&
        i - from < COPY_BLOCKS &&
        wanted[i] !== found[i] &&
        (wanted[i] === ENTRY_ABSENT) === isAbsent
      )
        i++;
      if (isAbsent) {
        const status = yield* this.ask(
          this.#target,
          target,
          ExtentOpKind.Zero,
          extent,
          first + from,
          i - from,
          0,
        );
        if (status !== Status.Ok) return false;
      } else if ((yield* this.#copyRun(extent, first + from, i - from, sources, target)) === "gone") {
        return false;
      }
    }
    return true;
  }

  /**
   * Copies blocks that have bytes; block by block where some are bad. Those of the first source that can read them go to the
   * target and to the sources that cannot: what these have may be another version, and be readable again tomorrow. The
   * target may be one of the sources, if those before it cannot read.
   */
  *#copyRun(
    extent: number,
    block: number,
    blocks: number,
    sources: readonly Member[],
    target: Member,
  ): Routine<"copied" | "lost" | "gone"> {
    for (const [i, source] of sources.entries()) {
      const read = yield* this.ask(this.#source, source, ExtentOpKind.Read, extent, block, blocks, 0);
      if (read === Status.Ok) {
        if (i > 0) this.#takenInstead(block, blocks);
        for (const one of [target, ...sources.slice(0, i)]) {
          if (one !== source && !(yield* this.#put(extent, block, blocks, one))) return "gone";
        }
        return "copied";
      }
      if (read !== Status.Io || this.#source.op.badBlock < 0) return "gone";
    }
    if (blocks === 1) {
      this.unreadable.add(block);
      this.#host.lost(target, extent, block);
      return "lost";
    }
    for (let i = 0; i < blocks; i++) {
      if ((yield* this.#copyRun(extent, block + i, 1, sources, target)) === "gone") return "gone";
    }
    return "copied";
  }

  /** What was just read is what every target is to have of these blocks. */
  #takenInstead(block: number, blocks: number): void {
    const at = block % EXTENT_OP_BLOCKS_MAX;
    this.#wanted.set(this.#source.op.entries.subarray(0, blocks), at);
  }

  /**
   * What was just read goes to the target: blocks with bytes are written, absent ones zeroed. Blocks of zeros that are
   * there are provisioned: a Write of zeros over an absent block would leave it absent, and the copies different.
   */
  *#put(extent: number, block: number, blocks: number, target: Member): Routine<boolean> {
    const from = this.#source.op;
    const { op } = this.#target;
    for (let i = 0; i < blocks; ) {
      const content = this.#contentOf(i);
      const start = i;
      while (i < blocks && this.#contentOf(i) === content) {
        op.entries[i - start] = from.entries[i]!;
        i++;
      }
      const kind = content === Content.Bytes ? ExtentOpKind.Write : ExtentOpKind.Zero;
      this.#noHole = content === Content.Zeros;
      const offset = start * BLOCK_BYTES;
      const status = yield* this.ask(this.#target, target, kind, extent, block + start, i - start, offset);
      this.#noHole = false;
      if (status !== Status.Ok) return false;
    }
    return true;
  }

  /** Of block `i` of what was just read. */
  #contentOf(i: number): Content {
    const { presentCount, entries } = this.#source.op;
    if (presentCount === 0 || entries[i] === ENTRY_ABSENT) return Content.Absent;
    const { view } = this.#pool;
    const at = this.#memory + i * BLOCK_BYTES;
    for (let word = 0; word < BLOCK_BYTES; word += 4) {
      if (view.getUint32(at + word, true) !== 0) return Content.Bytes;
    }
    return Content.Zeros;
  }

  *#map(
    member: Member,
    extent: number,
    block: number,
    blocks: number,
    entries: Uint32Array,
  ): Routine<boolean> {
    const status = yield* this.ask(this.#source, member, ExtentOpKind.Map, extent, block, blocks, 0);
    if (status !== Status.Ok) return false;
    entries.set(this.#source.op.entries.subarray(0, blocks));
    return true;
  }

  /** One operation of background work; `offset` into the copy buffer. */
  *ask(
    ask: Ask,
    member: Member,
    kind: ExtentOpKind,
    extent: number,
    block: number,
    blocks: number,
    offset: number,
  ): Routine<Status> {
    const host = this.#host;
    if (host.over || !member.usable) {
      host.absent(member);
      return Status.LinkLost;
    }
    const { op } = ask;
    op.kind = kind;
    op.volume = host.volume;
    op.layer = 0;
    op.extent = extent;
    op.block = block;
    op.blocks = blocks;
    op.memory = this.#memory + offset;
    // Only what brings entries asks for them: a node bounds those of one answer, and a Stamp is of a whole extent.
    const bringsEntries = kind === ExtentOpKind.Read || kind === ExtentOpKind.Map;
    op.flags =
      ExtentFlag.NoWait |
      (bringsEntries ? ExtentFlag.Entries : 0) |
      (this.#noHole && kind === ExtentOpKind.Zero ? ExtentFlag.NoHole : 0);
    op.epoch = host.epoch;
    op.generation = host.generation;
    op.sequence = host.nextSequence();
    const status = (yield (resume) => ask.start(member, resume)) as Status;
    member.outstanding--;
    if (kind === ExtentOpKind.Write || kind === ExtentOpKind.Zero) member.mayKeep(extent);
    if (status !== Status.Ok) host.refused(member, status, op.badBlock);
    return status;
  }
}
