/**
 * An asker's end of a session: extent operations and control requests to one node, and their answers.
 *
 * Invariants
 *  1. Every operation is answered once, never from inside `submit`. When the link ends, what was not answered
 *     gets LinkLost, and then `sessionLost` is told.
 *  2. An operation's memory is not touched after its answer: an answer that overtakes the end of the send which
 *     names the memory waits for that end.
 *  3. Bytes that fail the entries which came with them are not given to anyone: the link ends.
 *  4. One inventory at a time is being read: the node keeps one list for a session, so the pages of two of them
 *     would be of either.
 *  5. Unanswered operations never exceed the window that the node has named; the others wait here, in order.
 */
import { assert } from "../core/assert.js";
import { ENTRY_ABSENT, extentSeed, volumeSeed } from "../core/checksum.js";
import type { Timer } from "../core/clock.js";
import { EXTENT_OP_BLOCKS_MAX, ExtentFlag, type ExtentOp, ExtentOpKind } from "../core/extent-io.js";
import { BLOCK_BYTES, BLOCK_SHIFT } from "../core/limits.js";
import { Status } from "../core/status.js";
import type { ByteStream } from "../core/stream.js";
import type {
  AcceptAnswer,
  AcceptedRecord,
  Ballot,
  InventoryEntry,
  LinkEnvironment,
  NodeGreeting,
  NodeId,
  PeerId,
  PromiseAnswer,
  ReplicaSession,
  RottenPage,
  SessionListener,
} from "./api.js";
import { decodeStates, getAccepted, getInventoryEntry, getRefusal, INVENTORY_ENTRY_BYTES } from "./bodies.js";
import type { ToldState } from "./config/copy.js";
import { type ConfigSet, decodeConfigSet, encodeConfigSet } from "./config/set.js";
import { Feature, featuresOf, getWelcome, HELLO_BYTES, putHello, targetOf } from "./greeting.js";
import {
  CONTROL_REQUESTS_MAX,
  HELLO_DEADLINE_MS,
  RECORD_PAYLOAD_MAX,
  RENEW_VOLUMES_MAX,
  STABLE_MAX,
  WINDOW_REQUESTS,
} from "./limits.js";
import { Link, type LinkOwner, REFUSE } from "./link.js";
import { type Packed, wholeBlocks } from "./packing.js";
import {
  ANSWER,
  blocksMatch,
  FLAG_PACKED,
  getEntries,
  getU64,
  HEADER_BYTES,
  INVENTORY_WHOLE,
  Message,
  MessageKind,
  PACKED_CRC_BYTES,
  putEntries,
  putU64,
} from "./wire.js";

export interface SessionOptions {
  /** 16 bytes. */
  readonly cluster: Uint8Array;
  readonly node: NodeId;
  /** Of this life of the asker. */
  readonly peer: PeerId;
  /** Rises with every session of the asker to this node: 1, 2, … */
  readonly number: number;
  /** The node knows another set of config nodes than it was asked under. */
  readonly otherSet?: (set: ConfigSet) => void;
}

/** Kind of message of each operation. */
const KIND_OF: Readonly<Record<ExtentOpKind, MessageKind>> = {
  [ExtentOpKind.Read]: MessageKind.Read,
  [ExtentOpKind.Write]: MessageKind.Write,
  [ExtentOpKind.Zero]: MessageKind.Zero,
  [ExtentOpKind.Free]: MessageKind.Free,
  [ExtentOpKind.Map]: MessageKind.Map,
  [ExtentOpKind.Flush]: MessageKind.Flush,
  [ExtentOpKind.Stamp]: MessageKind.Stamp,
};

/** Tags of control requests begin here; those of operations are places in the window. */
const CONTROL_TAGS = 0x1_0000;

interface Control {
  readonly tag: number;
  readonly kind: MessageKind;
  readonly message: Message;
  readonly body: Uint8Array;
  /** Null: the session ended. The body is valid only during the call. Returns what is wrong with the answer. */
  readonly answered: ((m: Message | null, body: DataView) => string | null) | null;
}

/** An inventory that is asked for. */
interface Listing {
  readonly volume: number;
  readonly epoch: number;
  readonly visit: (entry: InventoryEntry) => void;
  readonly done: (complete: boolean, isWhole: boolean) => void;
}

const NO_BODY = new DataView(new ArrayBuffer(0));

export class NodeSession implements ReplicaSession, LinkOwner {
  readonly node: NodeId;
  greeting: NodeGreeting | null = null;
  fencedBy = 0;
  readonly #environment: LinkEnvironment;
  readonly #options: SessionOptions;
  readonly #listener: SessionListener;
  readonly #link: Link | null;
  readonly #deadline: Timer;
  readonly #message = new Message();
  readonly #scratch = new Uint32Array(EXTENT_OP_BLOCKS_MAX);
  #target = 0;
  /** What both ends know. */
  #features = 0;
  #helloSent = false;
  #lost = false;

  /** Of copies that are not answered, what is sent in the place of their blocks. */
  readonly #packed = new Map<ExtentOp, Packed>();
  // Operations that wait for the window, linked through `next`.
  #first: ExtentOp | null = null;
  #last: ExtentOp | null = null;
  /** By place in the window. */
  readonly #ops: (ExtentOp | null)[] = new Array<ExtentOp | null>(WINDOW_REQUESTS).fill(null);
  readonly #places: number[] = Array.from({ length: WINDOW_REQUESTS }, (_, i) => WINDOW_REQUESTS - 1 - i);
  /** Sends that must have ended before the operation may be answered. */
  readonly #sendOf = new Float64Array(WINDOW_REQUESTS);
  /** The answer is there and waits for the end of the send. */
  readonly #early = new Uint8Array(WINDOW_REQUESTS);
  #earlyCount = 0;
  #sends = 0;
  #sentSends = 0;
  #windowBytes = 0;
  #windowUsed = 0;
  #open = 0;

  readonly #controls = new Map<number, Control>();
  readonly #controlQueue: Control[] = [];
  /** The first one is being read. */
  readonly #listings: Listing[] = [];
  #nextControl = CONTROL_TAGS;
  #silentSince: number | null = null;

  constructor(
    environment: LinkEnvironment,
    options: SessionOptions,
    stream: ByteStream,
    listener: SessionListener,
  ) {
    this.#environment = environment;
    this.#options = options;
    this.#listener = listener;
    this.node = options.node;
    this.#deadline = environment.clock.setTimer(HELLO_DEADLINE_MS, () => this.#fail("no greeting in time"));
    this.#link = Link.open(environment, stream, this);
    this.#link?.wantSend();
  }

  get silentSince(): number | null {
    return this.#silentSince;
  }

  close(): void {
    this.#fail("closed by its owner");
  }

  #fail(reason: string): void {
    this.#link?.close(reason);
  }

  // ---- Operations --------------------------------------------------------------------------------------

  submit(op: ExtentOp): void {
    op.next = null;
    op.badBlock = -1;
    if (this.#last === null) this.#first = op;
    else this.#last.next = op;
    this.#last = op;
    if (this.#lost) this.#environment.ticker.atTickEnd({ tick: () => this.#refuseWaiting() });
    else this.#link?.wantSend();
  }

  copy(op: ExtentOp): void {
    const { pool, packing } = this.#environment;
    if (op.kind === ExtentOpKind.Write && (this.#features & Feature.Packed) !== 0) {
      const packed = packing!.pack(pool, op.memory, op.blocks);
      if (packed !== null) this.#packed.set(op, packed);
    }
    this.submit(op);
  }

  /** Bytes of the window that an operation takes. */
  static #costOf(op: ExtentOp): number {
    return op.kind === ExtentOpKind.Read || op.kind === ExtentOpKind.Write ? op.blocks << BLOCK_SHIFT : 0;
  }

  #fillOps(): void {
    for (let op = this.#first; op !== null; op = this.#first) {
      const cost = NodeSession.#costOf(op);
      if (this.#open >= this.greeting!.windowRequests || this.#places.length === 0) return;
      if (this.#windowUsed + cost > this.#windowBytes) return;
      const packed = this.#packed.size === 0 ? null : (this.#packed.get(op) ?? null);
      const entries = op.kind === ExtentOpKind.Write ? op.blocks * 4 : 0;
      const body = entries + (packed === null ? 0 : PACKED_CRC_BYTES);
      const at = this.#link!.reserve(body);
      if (at < 0) return;
      this.#first = op.next;
      if (this.#first === null) this.#last = null;
      op.next = null;
      this.#send(op, packed, at, body, cost);
    }
  }

  #send(op: ExtentOp, packed: Packed | null, at: number, body: number, cost: number): void {
    const m = this.#message.clear();
    const place = this.#places.pop()!;
    m.kind = KIND_OF[op.kind];
    m.bodyBytes = body;
    m.payloadBytes = op.kind === ExtentOpKind.Write ? op.blocks << BLOCK_SHIFT : 0;
    m.target = this.#target;
    m.tag = place;
    m.flags = op.flags;
    m.layer = op.layer;
    m.volume = op.volume;
    m.epoch = op.epoch;
    m.generation = op.generation;
    m.sequence = op.sequence;
    m.extent = op.extent;
    m.block = op.block;
    m.blocks = op.blocks;
    if (body > 0) putEntries(this.#environment.pool.view, at + HEADER_BYTES, op.entries, op.blocks);
    if (packed !== null) this.#putPacked(m, packed, at + HEADER_BYTES + 4 * op.blocks);
    this.#link!.commit(m, packed?.memory ?? op.memory);
    this.#ops[place] = op;
    this.#sendOf[place] = this.#sends;
    this.#windowUsed += cost;
    this.#open++;
    this.#owed();
  }

  #putPacked(m: Message, { memory, bytes }: Packed, at: number): void {
    const { pool, checksums } = this.#environment;
    m.flags |= FLAG_PACKED;
    m.payloadBytes = wholeBlocks(bytes);
    m.detail = bytes;
    pool.view.setUint32(at, checksums.crc32c(memory, bytes, 0), true);
  }

  /** The operation is answered: nothing is sent of it any more. */
  #forgetPacked(op: ExtentOp): void {
    const packed = this.#packed.get(op);
    if (packed === undefined) return;
    this.#packed.delete(op);
    this.#environment.pool.free(packed.memory);
  }

  #owed(): void {
    this.#silentSince ??= this.#environment.clock.now();
  }

  payloadFor(m: Message): number {
    const op = m.kind === (MessageKind.Read | ANSWER) ? this.#ops[m.tag] : undefined;
    if (op === undefined || op === null || op.kind !== ExtentOpKind.Read) return REFUSE;
    // Only what was asked for, and only once.
    if (m.blocks !== op.blocks || this.#early[m.tag] === 1) return REFUSE;
    return op.memory;
  }

  #answerOp(m: Message, body: number, payload: number): string | null {
    const op = this.#ops[m.tag];
    if (op === undefined || op === null || this.#early[m.tag] === 1) return "an answer that nobody waits for";
    if (m.kind !== (KIND_OF[op.kind] | ANSWER)) return "an answer to something else";
    op.status = m.status as Status;
    if (op.status === Status.Fenced) this.fencedBy = Math.max(this.fencedBy, m.epoch);
    if (op.status === Status.Io) op.badBlock = m.detail - 1;
    if (op.status === Status.Ok && (op.kind === ExtentOpKind.Read || op.kind === ExtentOpKind.Map)) {
      const fault = this.#takePresence(op, m, body, payload);
      if (fault !== null) return fault;
    }
    if (this.#sendOf[m.tag]! < this.#sentSends) {
      this.#finish(m.tag);
    } else {
      this.#early[m.tag] = 1;
      this.#earlyCount++;
    }
    return null;
  }

  #takePresence(op: ExtentOp, m: Message, body: number, payload: number): string | null {
    const { view } = this.#environment.pool;
    const words = (op.blocks + 31) >>> 5;
    const withEntries = op.kind === ExtentOpKind.Read || (op.flags & ExtentFlag.Entries) !== 0;
    if (m.bodyBytes !== 4 * words + (withEntries ? 4 * op.blocks : 0)) return "an answer of the wrong length";
    op.presentCount = 0;
    for (let i = 0; i < words; i++) {
      const word = view.getUint32(body + 4 * i, true);
      op.present[i] = word;
      op.presentCount += bitsOf(word);
    }
    if (withEntries) getEntries(view, body + 4 * words, op.entries, op.blocks);
    if (op.kind === ExtentOpKind.Map) return null;
    if (op.presentCount === 0) return null;
    if (m.payloadBytes === 0) return "an answer without its bytes";
    return this.#checkRead(op, payload);
  }

  #checkRead(op: ExtentOp, payload: number): string | null {
    const { pool, checksums } = this.#environment;
    assert(payload === op.memory, "payload went to its operation");
    const seed = extentSeed(volumeSeed(op.volume), op.extent);
    if (!blocksMatch(checksums, op.memory, op.blocks, seed, op.block, op.entries, this.#scratch))
      return "a block was damaged on its way";
    for (let i = 0; i < op.blocks; i++) {
      const present = (op.present[i >>> 5]! >>> (i & 31)) & 1;
      if ((op.entries[i] !== ENTRY_ABSENT) !== (present === 1)) return "presence and checksums disagree";
      if (present === 1) continue;
      // Nothing vouches for the bytes of an absent block: they are zeros because it is absent.
      const at = op.memory + i * BLOCK_BYTES;
      pool.bytes.fill(0, at, at + BLOCK_BYTES);
    }
    return null;
  }

  #finish(place: number): void {
    const op = this.#ops[place]!;
    this.#ops[place] = null;
    this.#early[place] = 0;
    this.#places.push(place);
    this.#windowUsed -= NodeSession.#costOf(op);
    this.#open--;
    if (this.#packed.size > 0) this.#forgetPacked(op);
    op.listener.extentDone(op);
  }

  // ---- Control -----------------------------------------------------------------------------------------

  /** `set`: as a config node of this version of the set; 0: as a member, or of config nodes that never change. */
  promise(volume: number, ballot: Ballot, done: (answer: PromiseAnswer) => void, set = 0): void {
    const m = new Message();
    m.kind = MessageKind.Promise;
    m.volume = volume;
    m.detail = set;
    m.epoch = ballot.epoch;
    m.sequence = ballot.owner;
    this.#ask(m, new Uint8Array(0), (said, body) => {
      const answer = this.#definite(said, body);
      if (answer === null) done({ kind: "unknown" });
      else if (answer.status === Status.Fenced) done({ kind: "refused", promised: getRefusal(answer, body) });
      else if (answer.status !== Status.Ok || (body.byteLength > 0 && body.byteLength < 8))
        return `a promise answered with status ${answer.status}`;
      else done({ kind: "promised", accepted: getAccepted(answer, body) });
      return null;
    });
  }

  accept(volume: number, record: AcceptedRecord, done: (answer: AcceptAnswer) => void, set = 0): void {
    assert(record.bytes.length <= RECORD_PAYLOAD_MAX, "a record fits its page");
    const m = new Message();
    m.kind = MessageKind.Accept;
    m.volume = volume;
    m.epoch = record.ballot.epoch;
    m.sequence = record.ballot.owner;
    m.generation = record.generation;
    m.detail = set;
    this.#ask(m, record.bytes, (said, body) => {
      const answer = this.#definite(said, body);
      if (answer === null) done({ kind: "unknown" });
      else if (answer.status === Status.Ok) done({ kind: "accepted" });
      else if (answer.status === Status.Inval) done({ kind: "name-taken" });
      else if (answer.status === Status.Fenced) done({ kind: "refused", promised: getRefusal(answer, body) });
      else return `an accept answered with status ${answer.status}`;
      return null;
    });
  }

  renew(volumes: readonly number[], done: (promised: readonly number[] | null) => void, set = 0): void {
    assert(volumes.length <= RENEW_VOLUMES_MAX, "a renewal fits a body");
    const body = new Uint8Array(8 * volumes.length);
    const view = new DataView(body.buffer);
    volumes.forEach((volume, i) => {
      putU64(view, 8 * i, volume);
    });
    const m = new Message();
    m.kind = MessageKind.Renew;
    m.detail = set;
    this.#ask(m, body, (said, epochs) => {
      const answer = this.#definite(said, epochs);
      if (answer === null || answer.status !== Status.Ok) done(null);
      else if (epochs.byteLength !== body.length) return "a renewal of the wrong length";
      else done(volumes.map((_, i) => getU64(epochs, 8 * i)));
      return null;
    });
  }

  /** Null: no answer, or none about the set of config nodes that was asked; which one the node knows is told. */
  #definite(answer: Message | null, body: DataView): Message | null {
    if (answer?.status === Status.OtherSet) this.#hearSet(body);
    return answer?.status === Status.Io || answer?.status === Status.OtherSet ? null : answer;
  }

  #hearSet(body: DataView): void {
    const bytes = new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
    const set = decodeConfigSet(bytes);
    if (set !== null) this.#options.otherSet?.(set);
  }

  /** Tells the node which set of config nodes was chosen. Nothing comes of it when the session ends. */
  adopt(set: ConfigSet): void {
    const m = new Message();
    m.kind = MessageKind.Adopt;
    this.#ask(m, encodeConfigSet(set), () => null);
  }

  /** What the node has promised and accepted, for who joins the config nodes with this version of their set. */
  states(set: number, visit: (told: ToldState) => void, done: (complete: boolean) => void): void {
    this.#statesAfter(0, set, visit, done);
  }

  #statesAfter(
    after: number,
    set: number,
    visit: (told: ToldState) => void,
    done: (complete: boolean) => void,
  ): void {
    const m = new Message();
    m.kind = MessageKind.States;
    m.volume = after;
    m.detail = set;
    this.#ask(m, new Uint8Array(0), (said, body) => {
      const answer = this.#definite(said, body);
      if (answer === null || answer.status !== Status.Ok) {
        done(false);
        return null;
      }
      const told = decodeStates(body);
      if (told === null) return "states that are none";
      for (const one of told) visit(one);
      const last = told.at(-1);
      if (answer.detail === 0) done(true);
      else if (last === undefined) return "states that do not end";
      else this.#statesAfter(last.key, set, visit, done);
      return null;
    });
  }

  inventory(
    volume: number,
    epoch: number,
    visit: (entry: InventoryEntry) => void,
    done: (complete: boolean, isWhole: boolean) => void,
  ): void {
    if (this.#lost) {
      this.#environment.ticker.atTickEnd({ tick: () => done(false, false) });
      return;
    }
    this.#listings.push({ volume, epoch, visit, done });
    if (this.#listings.length === 1) this.#listPage(0);
  }

  /** The first listing's extents from number `cursor` of the node's list on. */
  #listPage(cursor: number): void {
    const { volume, epoch, visit } = this.#listings[0]!;
    const m = new Message();
    m.kind = MessageKind.Inventory;
    m.volume = volume;
    m.epoch = epoch;
    m.detail = cursor;
    this.#ask(m, new Uint8Array(0), (answer, body) => {
      // The end of the session ends all of them.
      if (answer === null) return null;
      if (answer.status !== Status.Ok) {
        this.#listed(false, false);
        return null;
      }
      if (body.byteLength % INVENTORY_ENTRY_BYTES !== 0) return "an inventory of the wrong length";
      for (let at = 0; at < body.byteLength; at += INVENTORY_ENTRY_BYTES) visit(getInventoryEntry(body, at));
      const next = cursor + body.byteLength / INVENTORY_ENTRY_BYTES;
      if (next >= answer.detail) this.#listed(true, (answer.flags & INVENTORY_WHOLE) !== 0);
      else if (body.byteLength === 0) return "an inventory that does not end";
      else this.#listPage(next);
      return null;
    });
  }

  #listed(complete: boolean, isWhole: boolean): void {
    const { done } = this.#listings.shift()!;
    if (this.#listings.length > 0) this.#listPage(0);
    done(complete, isWhole);
  }

  stable(
    volume: number,
    epoch: number,
    layer: number,
    extents: readonly number[],
    sequences: readonly number[],
  ): void {
    assert(extents.length <= STABLE_MAX && extents.length === sequences.length, "a batch fits a body");
    const body = new Uint8Array(12 * extents.length);
    const view = new DataView(body.buffer);
    extents.forEach((extent, i) => {
      view.setUint32(12 * i, extent, true);
      putU64(view, 12 * i + 4, sequences[i]!);
    });
    const m = new Message();
    m.kind = MessageKind.Stable;
    m.volume = volume;
    m.epoch = epoch;
    m.layer = layer;
    this.#ask(m, body, null);
  }

  reconciled(volume: number, epoch: number, done: (done: boolean) => void): void {
    const m = new Message();
    m.kind = MessageKind.Reconciled;
    m.volume = volume;
    m.epoch = epoch;
    this.#ask(m, new Uint8Array(0), (answer) => {
      done(answer !== null && answer.status === Status.Ok);
      return null;
    });
  }

  rotten(volume: number, epoch: number, from: number, done: (page: RottenPage | null) => void): void {
    if ((this.#features & Feature.Rotten) === 0) {
      this.#environment.ticker.atTickEnd({ tick: () => done(null) });
      return;
    }
    const m = new Message();
    m.kind = MessageKind.Rotten;
    m.volume = volume;
    m.epoch = epoch;
    m.extent = from;
    this.#ask(m, new Uint8Array(0), (answer, body) => {
      if (answer === null || answer.status !== Status.Ok) {
        done(null);
        return null;
      }
      if (body.byteLength % 4 !== 0) return "a list of extents of the wrong length";
      const count = body.byteLength / 4;
      done({
        extents: Array.from({ length: count }, (_, i) => body.getUint32(4 * i, true)),
        more: answer.detail,
      });
      return null;
    });
  }

  #ask(message: Message, body: Uint8Array, answered: Control["answered"]): void {
    const tag = this.#nextControl;
    this.#nextControl = tag + 1 >= 2 ** 32 ? CONTROL_TAGS : tag + 1;
    message.tag = tag;
    message.bodyBytes = body.length;
    const control: Control = { tag, kind: message.kind as MessageKind, message, body, answered };
    this.#controlQueue.push(control);
    if (this.#lost) this.#environment.ticker.atTickEnd({ tick: () => this.#refuseWaiting() });
    else this.#link?.wantSend();
  }

  #fillControls(): boolean {
    while (this.#controlQueue.length > 0 && this.#controls.size < CONTROL_REQUESTS_MAX) {
      const control = this.#controlQueue[0]!;
      const at = this.#link!.reserve(control.body.length);
      if (at < 0) return false;
      this.#controlQueue.shift();
      control.message.target = this.#target;
      this.#environment.pool.bytes.set(control.body, at + HEADER_BYTES);
      this.#link!.commit(control.message, 0);
      if (control.answered === null) continue;
      this.#controls.set(control.tag, control);
      this.#owed();
    }
    return true;
  }

  #answerControl(m: Message, body: number): string | null {
    const control = this.#controls.get(m.tag);
    if (control === undefined) return "an answer that nobody waits for";
    if (m.kind !== (control.kind | ANSWER)) return "an answer to something else";
    this.#controls.delete(m.tag);
    const { view } = this.#environment.pool;
    return control.answered!(m, new DataView(view.buffer, view.byteOffset + body, m.bodyBytes));
  }

  // ---- The link ----------------------------------------------------------------------------------------

  fill(): void {
    if (this.greeting === null) {
      this.#fillHello();
      return;
    }
    const before = this.#sends;
    if (this.#fillControls()) this.#fillOps();
    this.#sends = before + 1;
  }

  #fillHello(): void {
    if (this.#helloSent) return;
    this.#helloSent = true;
    const at = this.#link!.reserve(HELLO_BYTES);
    const m = this.#message.clear();
    m.kind = MessageKind.Hello;
    m.bodyBytes = HELLO_BYTES;
    m.sequence = this.#options.number;
    m.detail = featuresOf(this.#environment);
    putHello(this.#environment.pool.view, at + HEADER_BYTES, this.#options);
    this.#link!.commit(m, 0);
    this.#owed();
  }

  sent(): void {
    this.#sentSends = this.#sends;
    for (let place = 0; this.#earlyCount > 0 && place < WINDOW_REQUESTS; place++) {
      if (this.#early[place] !== 1) continue;
      this.#earlyCount--;
      this.#finish(place);
    }
  }

  received(m: Message, body: number, payload: number): string | null {
    if ((m.kind & ANSWER) === 0) return "a node that asks";
    const fault = this.greeting === null ? this.#welcome(m, body) : this.#answer(m, body, payload);
    const owes = this.#open - this.#earlyCount > 0 || this.#controls.size > 0;
    this.#silentSince = owes ? this.#environment.clock.now() : null;
    if (this.#first !== null || this.#controlQueue.length > 0) this.#link!.wantSend();
    return fault;
  }

  #answer(m: Message, body: number, payload: number): string | null {
    if (m.target !== this.#target) return "an answer of another life of the node";
    return m.tag >= CONTROL_TAGS ? this.#answerControl(m, body) : this.#answerOp(m, body, payload);
  }

  #welcome(m: Message, body: number): string | null {
    if (m.kind !== (MessageKind.Hello | ANSWER)) return "no greeting";
    if (m.status !== Status.Ok) return `the node refused the session (status ${m.status})`;
    const greeting = getWelcome(this.#environment.pool.view, body, m.bodyBytes, this.node);
    if (greeting === null || greeting.windowRequests === 0) return "no greeting";
    this.#deadline.cancel();
    this.greeting = greeting;
    this.#features = m.detail & featuresOf(this.#environment);
    this.#windowBytes = greeting.windowBytes;
    this.#target = targetOf(this.#options.cluster, this.node, greeting.incarnation);
    this.#listener.sessionOpened(this);
    return null;
  }

  lost(reason: string): void {
    this.#lost = true;
    this.#silentSince = null;
    this.#deadline.cancel();
    for (let place = 0; place < WINDOW_REQUESTS; place++) {
      const op = this.#ops[place]!;
      if (op === null) continue;
      // An answer that only waited for the end of its send is one.
      if (this.#early[place] !== 1) op.status = Status.LinkLost;
      this.#finish(place);
    }
    this.#earlyCount = 0;
    const controls = [...this.#controls.values()];
    this.#controls.clear();
    for (const control of controls) control.answered!(null, NO_BODY);
    this.#refuseWaiting();
    for (const { done } of this.#listings.splice(0)) done(false, false);
    this.#listener.sessionLost(this, reason);
  }

  /** What the window had no room for, or came too late. */
  #refuseWaiting(): void {
    for (const control of this.#controlQueue.splice(0)) control.answered?.(null, NO_BODY);
    for (let op = this.#first; op !== null; op = this.#first) {
      this.#first = op.next;
      if (this.#first === null) this.#last = null;
      op.next = null;
      op.status = Status.LinkLost;
      this.#forgetPacked(op);
      op.listener.extentDone(op);
    }
  }
}

function bitsOf(word: number): number {
  let count = 0;
  for (let left = word; left !== 0; left &= left - 1) count++;
  return count;
}
