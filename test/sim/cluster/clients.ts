/** The clients of one volume at one gateway: they ask for what their habits say, and hold every answer against the registers. */
import { extentSeed, volumeSeed } from "../../../lib/core/checksum.js";
import { ExtentFlag, type ExtentListener, ExtentOp, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import { Status } from "../../../lib/core/status.js";
import type { ReplicaSet } from "../../../lib/replica/owner/replica-set.js";
import { simMemory } from "../memory.js";
import type { Prng } from "../prng.js";
import { Violation } from "../violation.js";
import type { GatewayHost } from "./gateway.js";
import { EXTENT_BLOCKS } from "./node-host.js";
import { NOTHING, type Shares, type VolumeRegisters } from "./registers.js";
import { writesIn } from "./sector-ids.js";
import type { OwnerStation, VolumeOwner } from "./volume-owner.js";

const PARALLEL = 6;
const RUN_MAX = 6;
/** Of clients that keep to few places. */
const NARROW_BLOCKS = 2;
/** How often clients that rest look whether they still do. */
const REST_MS = 60;

type Kind = keyof Shares;

/** One client's request after the other; its operation is used again. */
class Client implements ExtentListener {
  readonly op = new ExtentOp();
  readonly #clients: VolumeClients;
  set: ReplicaSet | null = null;
  answered: () => void = () => undefined;

  constructor(clients: VolumeClients) {
    this.#clients = clients;
  }

  extentDone(): void {
    this.#clients.done(this);
  }
}

export class VolumeClients {
  readonly #at: GatewayHost;
  readonly #station: OwnerStation;
  readonly #owner: VolumeOwner;
  readonly #registers: VolumeRegisters;
  readonly #random: Prng;
  readonly #busy = new Set<number>();
  readonly #idle: Client[] = [];
  open = 0;

  constructor(at: GatewayHost, station: OwnerStation, owner: VolumeOwner, random: Prng) {
    this.#at = at;
    this.#station = station;
    this.#owner = owner;
    this.#registers = owner.registers;
    this.#random = random;
  }

  /** The volume is served: they begin. */
  serve(set: ReplicaSet): void {
    for (let i = 0; i < PARALLEL; i++) this.#next(set);
  }

  #later(ms: number, set: ReplicaSet): void {
    this.#station.process.setTimer(ms, () => this.#next(set));
  }

  #next(set: ReplicaSet): void {
    if (this.#owner.set !== set) return;
    this.#owner.look();
    if (this.#owner.quiet) return;
    const { habits } = this.#registers;
    if (habits.isResting) this.#later(REST_MS, set);
    else this.#ask(set, this.#kindOf(habits.shares));
  }

  #kindOf({ flush, free, zero, write, read }: Shares): Kind {
    let drawn = this.#random.below(flush + free + zero + write + read);
    if (drawn < flush) return "flush";
    drawn -= flush;
    if (drawn < free) return "free";
    drawn -= free;
    if (drawn < zero) return "zero";
    return drawn - zero < write ? "write" : "read";
  }

  #again(set: ReplicaSet): void {
    const registers = this.#registers;
    if (registers.hurry > 0) {
      registers.hurry--;
      this.#next(set);
    } else {
      this.#later(this.#random.below(registers.habits.pauseMs), set);
    }
  }

  #take(set: ReplicaSet): Client {
    const client = this.#idle.pop() ?? new Client(this);
    const { op } = client;
    client.set = set;
    op.volume = this.#owner.volume;
    op.listener = client;
    op.layer = 0;
    op.flags = 0;
    op.badBlock = -1;
    op.memory = -1;
    return client;
  }

  #ask(set: ReplicaSet, kind: Kind): void {
    if (kind === "flush") {
      const client = this.#take(set);
      client.op.kind = ExtentOpKind.Flush;
      const flushed = this.#registers.beginFlush();
      this.#submit(client, () => {
        flushed();
        this.#at.checks.rules?.flushed(this.#owner.volume, client.set!.epoch);
      });
      return;
    }
    const { inUse, isNarrow } = this.#registers.habits;
    const extent = this.#random.pick(inUse);
    const most = isNarrow ? NARROW_BLOCKS : EXTENT_BLOCKS;
    const isFree = kind === "free";
    const block = isFree ? 0 : this.#random.below(most);
    const blocks = isFree ? EXTENT_BLOCKS : 1 + this.#random.below(Math.min(RUN_MAX, most - block));
    const first = extent * EXTENT_BLOCKS + block;
    for (let i = first; i < first + blocks; i++) {
      if (!this.#busy.has(i)) continue;
      this.#later(1, set);
      return;
    }
    for (let i = first; i < first + blocks; i++) this.#busy.add(i);
    const client = this.#take(set);
    const { op } = client;
    op.extent = extent;
    op.block = block;
    op.blocks = blocks;
    op.memory = this.#station.pool.allocate(blocks * BLOCK_BYTES);
    if (op.memory < 0) throw new Violation("I23", "the clients have no memory");
    if (kind === "read") this.#read(client, first);
    else this.#change(client, first, kind);
  }

  #change(client: Client, first: number, kind: "free" | "zero" | "write"): void {
    const { op } = client;
    const registers = this.#registers;
    const { words, checksums } = simMemory();
    const isZero = kind !== "write";
    const id = registers.numberOf(first, op.blocks, isZero);
    if (this.#random.chance(registers.habits.fua)) op.flags |= ExtentFlag.Fua;
    if (kind === "zero" && this.#random.chance(0.5)) op.flags |= ExtentFlag.NoHole;
    if (kind === "free") op.kind = ExtentOpKind.Free;
    else op.kind = isZero ? ExtentOpKind.Zero : ExtentOpKind.Write;
    if (!isZero) {
      words.fill(id, op.memory >>> 2, (op.memory + op.blocks * BLOCK_BYTES) >>> 2);
      const seed = extentSeed(volumeSeed(op.volume), op.extent);
      checksums.blockEntries(op.memory, op.blocks, seed, op.block, op.entries, 0);
    }
    // Freeing says nothing of FUA: a flush makes it stable.
    const isStable = (op.flags & ExtentFlag.Fua) !== 0 && op.kind !== ExtentOpKind.Free;
    const done = registers.beginWrite(first, op.blocks, id, isStable);
    const { blocks } = op;
    this.#submit(client, () => {
      done();
      this.#at.checks.rules?.acknowledged(this.#owner.volume, client.set!.epoch, first, blocks, id, isZero);
    });
  }

  #read(client: Client, first: number): void {
    const { op } = client;
    const registers = this.#registers;
    const shows = registers.beginRead(first, op.blocks);
    op.kind = ExtentOpKind.Read;
    this.#submit(client, () => {
      for (let i = 0; i < op.blocks; i++) {
        const at = op.memory + i * BLOCK_BYTES;
        shows(i, op.presentCount === 0 ? NOTHING : writesIn(at, !registers.hasPower));
      }
      registers.reads++;
    });
  }

  #submit(client: Client, answered: () => void): void {
    this.open++;
    client.answered = answered;
    client.set!.submit(client.op);
  }

  done(client: Client): void {
    const { op } = client;
    const set = client.set!;
    this.open--;
    if (this.#at.world.trace !== null)
      this.#owner.say(
        `op ${op.kind} ${op.extent}/${op.block}+${op.blocks} flags ${op.flags} answered ${op.status} at epoch ${set.epoch}`,
      );
    if (op.status === Status.Ok) {
      this.#at.checks.answered(this.#owner.volume, set.epoch);
      if (!set.mayAnswer) throw new Violation("FENCE", `epoch ${set.epoch} answered although it may not`);
      client.answered();
    } else if (op.status !== Status.Shutdown && !this.#mayFail(op, set)) {
      throw new Violation("I13", `operation ${op.kind} failed with status ${op.status}`);
    }
    if (op.memory >= 0) {
      const first = op.extent * EXTENT_BLOCKS + op.block;
      for (let i = first; i < first + op.blocks; i++) this.#busy.delete(i);
      this.#station.pool.free(op.memory);
    }
    this.#idle.push(client);
    this.#again(set);
  }

  /** A read may, when the only valid copies are on the device that loses blocks. */
  #mayFail(op: ExtentOp, set: ReplicaSet): boolean {
    if (op.kind !== ExtentOpKind.Read || op.status !== Status.Io) return false;
    const sick = this.#at.nodes[this.#at.sickNode]?.id;
    return !set.members.some(({ inSync, node }, seat) => {
      return inSync && node !== sick && set.members[seat]!.holds(op.extent);
    });
  }
}
