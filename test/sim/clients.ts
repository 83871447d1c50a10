/**
 * The clients: each has one operation at a time. What they ask and what they are answered goes to the checker.
 */
import { BLOCK_BYTES } from "../../lib/core/limits.js";
import { Status } from "../../lib/core/status.js";
import type { RunConfig } from "./config.js";
import { describeGranule, fillGranule, ID_GARBAGE, ID_ZEROS, identify } from "./content.js";
import type { SimDevice } from "./device.js";
import type { History } from "./history.js";
import type { SimPool } from "./memory.js";
import { Violation } from "./violation.js";
import type { SimWorld } from "./world.js";

export const OpKind = { Read: 0, Write: 1, Zero: 2, Free: 3, Map: 4, Flush: 5, Trim: 6 } as const;
export type OpKind = (typeof OpKind)[keyof typeof OpKind];
export const OP_NAMES = ["read", "write", "zero", "free", "map", "flush", "trim"] as const;

/** Longest operation in bytes, unaligned ends included. */
export const OP_BYTES_MAX = 64 * BLOCK_BYTES;

/** How operations reach the program under test. */
export interface Front {
  /** Hands the client's operation over; `client.completed` answers it, later. */
  issue(client: SimClient): void;
}

/** What all clients of a run share. */
export interface ClientHost {
  readonly world: SimWorld;
  readonly config: RunConfig;
  readonly history: History;
  readonly device: SimDevice;
  /** Registers of volume v begin at v × this. */
  readonly granulesPerVolume: number;
  readonly granulesPerBlock: number;
  pool(): SimPool;
  nextWriteId(): number;
  /** The client has its answer, the checker has been told. */
  done(client: SimClient): void;
}

export class SimClient {
  readonly number: number;
  readonly #host: ClientHost;
  busy = false;
  kind: OpKind = OpKind.Read;
  volume = 0;
  /** First granule inside the volume, and how many. */
  granule = 0;
  granules = 0;
  fua = false;
  noHole = false;
  /** Pool buffer of the blocks that enclose the range; −1 when the operation has none. */
  memory = -1;
  /** Number of the write; that of a read is 0. */
  write = 0;
  invokedAt = 0;
  invokedUs = 0;
  #readFaultsBefore = 0;
  /** Map: 1 where the answer says that there are no bytes. */
  readonly hole = new Uint8Array(OP_BYTES_MAX / 32);
  /** Answer to a read: nothing there, memory left alone. */
  allHole = false;

  constructor(host: ClientHost, number: number) {
    this.#host = host;
    this.number = number;
  }

  /** What it asks for next, without flags: granules of the volume. */
  want(kind: OpKind, volume: number, granule: number, granules: number): void {
    this.kind = kind;
    this.volume = volume;
    this.granule = granule;
    this.granules = granules;
    this.fua = false;
    this.noHole = false;
  }

  /** Byte range inside the volume. */
  get offset(): number {
    return this.granule * this.#host.config.granuleBytes;
  }

  get length(): number {
    return this.granules * this.#host.config.granuleBytes;
  }

  get firstBlock(): number {
    return Math.floor(this.offset / BLOCK_BYTES);
  }

  get blocks(): number {
    return Math.ceil((this.offset + this.length) / BLOCK_BYTES) - this.firstBlock;
  }

  /**
   * Starts the operation described by the fields. `zeroChance`: probability that a granule's new bytes are zeros.
   * False when there is no memory for it now.
   */
  start(front: Front, zeroChance: number): boolean {
    const host = this.#host;
    this.memory = -1;
    if (this.kind === OpKind.Read || this.kind === OpKind.Write) {
      this.memory = host.pool().allocate(this.blocks * BLOCK_BYTES);
      if (this.memory < 0) return false;
    }
    this.busy = true;
    this.allHole = false;
    this.invokedAt = host.history.tick();
    this.invokedUs = host.world.nowUs;
    this.#readFaultsBefore = host.device.readFaults;
    this.write = this.#changes ? host.nextWriteId() : 0;
    host.world.coverage.count(
      `op:${OP_NAMES[this.kind]}${this.fua ? "+fua" : ""}${this.noHole ? "+nohole" : ""}`,
    );
    host.world.coverage.operations++;
    if (this.#changes) this.#invokeWrite(zeroChance);
    if (host.world.trace !== null) host.world.say(`client ${this.number}: ${this.describe()}`);
    front.issue(this);
    return true;
  }

  get #changes(): boolean {
    return this.kind !== OpKind.Read && this.kind !== OpKind.Map && this.kind !== OpKind.Flush;
  }

  /** It has asked for bytes, or for where there are none, and has no answer yet. */
  get reading(): boolean {
    return this.busy && (this.kind === OpKind.Read || this.kind === OpKind.Map);
  }

  #invokeWrite(zeroChance: number): void {
    const { history, config, world } = this.#host;
    const register = this.firstRegister;
    const payload = this.kind === OpKind.Write;
    // Zeros come in whole writes, whole blocks and single granules.
    const allZero = payload && zeroChance > 0 && world.random.chance(zeroChance / 2);
    const start = this.memory + (this.offset % BLOCK_BYTES);
    if (payload) simFill(this.#host.pool(), this.memory, this.blocks * BLOCK_BYTES);
    let blockZero = false;
    for (let i = 0; i < this.granules; i++) {
      if (i === 0 || (this.granule + i) % this.#host.granulesPerBlock === 0)
        blockZero = zeroChance > 0 && world.random.chance(zeroChance);
      const zeros = !payload || allZero || blockZero || (zeroChance > 0 && (this.write + i) % 13 === 0);
      const value = zeros ? ID_ZEROS : this.write;
      history.invoke(register + i, this.write, value, this.invokedAt);
      if (!payload) continue;
      const at = start + i * config.granuleBytes;
      if (zeros) this.#host.pool().bytes.fill(0, at, at + config.granuleBytes);
      else fillGranule(at, config.granuleBytes, value, register + i);
    }
  }

  get firstRegister(): number {
    return this.volume * this.#host.granulesPerVolume + this.granule;
  }

  /** The answer. */
  completed(status: Status): void {
    const host = this.#host;
    const at = host.history.tick();
    if (host.world.trace !== null) host.world.say(`client ${this.number}: ${this.describe()} = ${status}`);
    host.world.note(status);
    host.world.note(this.number);
    this.#checkStatus(status);
    if (status === Status.Ok) this.#answered(at);
    else this.#failed(at);
    if (this.memory >= 0) host.pool().free(this.memory);
    this.memory = -1;
    this.busy = false;
    host.done(this);
  }

  #checkStatus(status: Status): void {
    const { device, config } = this.#host;
    switch (status) {
      case Status.Ok:
        // Reads and writes that were ready before the sync failed may be answered in its batch; a promise not.
        // (An answer that was on its way over a connection may come later.)
        if (device.syncFailed && config.front !== "nbd" && (this.kind === OpKind.Flush || this.fua))
          throw new Violation("I22", `${this.describe()} was acknowledged after a failed sync`);
        if (device.syncFailed && this.invokedUs > device.syncFailedAtUs)
          throw new Violation("I22", `${this.describe()}, asked after a failed sync, was acknowledged`);
        return;
      case Status.Io:
        if (this.#mayFail()) return;
        throw new Violation("I8", `${this.describe()} failed although nothing is wrong with its bytes`);
      case Status.NoSpace:
        if (config.onFull === "enospc" && this.#changes) return;
        throw new Violation("I23", `${this.describe()} was answered NoSpace without being asked to`);
      default:
        throw new Violation("CONTRACT", `${this.describe()} was answered status ${status}`);
    }
  }

  /** Whether an error is a possible answer: damage there, or the disk failed a request meanwhile. */
  #mayFail(): boolean {
    const { device, history } = this.#host;
    if (device.readFaults !== this.#readFaultsBefore || device.writeFaults > 0 || device.syncFailed)
      return true;
    // A block that was absent and is not zeros may be met by a write that a kill cuts short: then it matches nothing.
    if (device.world.coverage.get("fault:rot-zeros") > 0) return true;
    const { granulesPerBlock } = this.#host;
    // The blocks that enclose the range: a partial write reads them.
    const from = this.firstRegister - (this.granule % granulesPerBlock);
    for (let i = 0; i < this.blocks * granulesPerBlock; i++) {
      if (history.isDamaged(from + i, this.invokedAt)) return true;
    }
    return false;
  }

  #answered(at: number): void {
    const { history } = this.#host;
    switch (this.kind) {
      case OpKind.Read:
        this.#checkRead(at);
        break;
      case OpKind.Map:
        for (let i = 0; i < this.granules; i++) {
          if (this.hole[i] === 1) history.read(this.firstRegister + i, ID_ZEROS, this.invokedAt, at);
        }
        break;
      case OpKind.Flush:
        history.flushed(this.invokedAt);
        break;
      case OpKind.Write:
      case OpKind.Zero:
      case OpKind.Free:
      case OpKind.Trim:
        this.#acknowledgeWrite(at);
        break;
    }
  }

  #acknowledgeWrite(at: number): void {
    const { history, granulesPerBlock } = this.#host;
    const register = this.firstRegister;
    for (let i = 0; i < this.granules; i++) {
      const inBlock = (this.granule + i) % granulesPerBlock;
      const wholeBlock = i >= inBlock && i + (granulesPerBlock - inBlock) <= this.granules;
      // Trim is a hint: its partial blocks may be left as they are.
      if (this.kind === OpKind.Trim && !wholeBlock) {
        history.doubt(register + i, this.write, at);
        continue;
      }
      history.acknowledge(register + i, this.write, at, this.fua);
      if (wholeBlock) history.mend(register + i, this.write, this.invokedAt);
    }
  }

  #checkRead(at: number): void {
    const { history, config } = this.#host;
    const register = this.firstRegister;
    const start = this.memory + (this.offset % BLOCK_BYTES);
    for (let i = 0; i < this.granules; i++) {
      const place = start + i * config.granuleBytes;
      const value = this.allHole ? ID_ZEROS : identify(place, config.granuleBytes, register + i);
      if (value === ID_GARBAGE && !history.isUnknown(register + i, this.invokedAt))
        throw new Violation(
          "I3",
          `${this.describe()}: granule ${this.granule + i} (register ${register + i}) holds ${describeGranule(place)}`,
        );
      history.read(register + i, value, this.invokedAt, at);
    }
  }

  #failed(at: number): void {
    if (!this.#changes) return;
    const { history } = this.#host;
    for (let i = 0; i < this.granules; i++) history.doubt(this.firstRegister + i, this.write, at);
  }

  /** There will be no answer, but what was asked for is over. */
  lost(): void {
    const host = this.#host;
    this.#failed(host.history.tick());
    if (this.memory >= 0) host.pool().free(this.memory);
    this.memory = -1;
    this.busy = false;
    host.done(this);
  }

  /** The process died: there is no answer. */
  orphan(): void {
    this.busy = false;
    this.memory = -1;
  }

  describe(): string {
    const flags = `${this.fua ? " FUA" : ""}${this.noHole ? " NO_HOLE" : ""}`;
    const number = this.write === 0 ? "" : ` #${this.write}`;
    const end = this.granule + this.granules - 1;
    const where = this.kind === OpKind.Flush ? "" : ` v${this.volume} ${this.granule}–${end}`;
    return `${OP_NAMES[this.kind]}${where}${flags}${number}`;
  }
}

/** What lies around the payload in the enclosing blocks must not matter. */
function simFill(pool: SimPool, memory: number, length: number): void {
  pool.bytes.fill(0xee, memory, memory + 32);
  pool.bytes.fill(0xee, memory + length - 32, memory + length);
}
