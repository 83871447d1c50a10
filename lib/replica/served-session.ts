/**
 * A node's end of a session.
 *
 * States
 *   Silent   connected; nothing but a Hello in time is listened to
 *   Waiting  Hello was heard; older sessions of the peer are ending. Nothing is listened to
 *   Open     greeted: operations and control requests
 *   Closed   cut; what is in the store ends, unanswered
 *
 * Invariants
 *  1. A request is executed only when its message has arrived whole, while the session is Open.
 *  2. Unanswered requests never exceed the window; a peer that sends more is cut.
 *  3. The session ends for its node when the stream is closed and nothing of it is in the store.
 */

import type { Timer } from "../core/clock.js";
import { EXTENT_OP_BLOCKS_MAX, ExtentFlag, ExtentOpKind } from "../core/extent-io.js";
import { BLOCK_SHIFT } from "../core/limits.js";
import type { PoolWaiter } from "../core/pool.js";
import { Status } from "../core/status.js";
import type { ByteStream } from "../core/stream.js";
import type { InventoryEntry, LinkEnvironment, PeerId } from "./api.js";
import { encodeStates, INVENTORY_ENTRY_BYTES, putAccepted, putInventoryEntry, putRefusal } from "./bodies.js";
import { decodeConfigSet, encodeConfigSet } from "./config/set.js";
import {
  Feature,
  featuresOf,
  getHello,
  HELLO_BYTES,
  putWelcome,
  sameId,
  WELCOME_BYTES_MAX,
} from "./greeting.js";
import {
  BODY_BYTES_MAX,
  CONTROL_REQUESTS_MAX,
  HELLO_DEADLINE_MS,
  ROTTEN_PAGE,
  STABLE_MAX,
  WINDOW_REQUESTS,
} from "./limits.js";
import { HOLD_BACK, Link, type LinkOwner, REFUSE } from "./link.js";
import type { NodeCore } from "./node.js";
import { type NodeRequest, RequestList } from "./node-request.js";
import {
  ANSWER,
  FLAG_PACKED,
  getEntries,
  getU64,
  HEADER_BYTES,
  INVENTORY_WHOLE,
  Message,
  MessageKind,
  putEntries,
  putU64,
} from "./wire.js";

const State = { Silent: 0, Waiting: 1, Open: 2, Closed: 3 } as const;
type State = (typeof State)[keyof typeof State];

const KNOWN_FLAGS = ExtentFlag.Fua | ExtentFlag.NoHole | ExtentFlag.NoWait | ExtentFlag.Entries;

/** Operation of each kind of message; undefined for control. */
const OPERATION_OF: Readonly<Record<number, ExtentOpKind>> = {
  [MessageKind.Read]: ExtentOpKind.Read,
  [MessageKind.Write]: ExtentOpKind.Write,
  [MessageKind.Zero]: ExtentOpKind.Zero,
  [MessageKind.Free]: ExtentOpKind.Free,
  [MessageKind.Map]: ExtentOpKind.Map,
  [MessageKind.Flush]: ExtentOpKind.Flush,
  [MessageKind.Stamp]: ExtentOpKind.Stamp,
};

/** Messages about config nodes. */
const ABOUT_NO_VOLUME: ReadonlySet<number> = new Set([
  MessageKind.Renew,
  MessageKind.Adopt,
  MessageKind.States,
]);

interface ControlAnswer {
  readonly message: Message;
  readonly body: Uint8Array;
}

export class ServedSession implements LinkOwner, PoolWaiter {
  readonly #node: NodeCore;
  readonly #environment: LinkEnvironment;
  readonly #stream: ByteStream;
  #link: Link | null = null;
  #deadline: Timer | null = null;
  #state: State = State.Silent;
  peer: PeerId = 0;
  /** What both ends know. */
  #features = 0;
  #helloHeard = false;
  /** Answer to Hello: its status, when it is due. */
  #greetingDue: Status | null = null;
  #endAfterSend = false;

  /** Requests in the store. */
  #executing = 0;
  #unanswered = 0;
  #windowUsed = 0;
  readonly #windowBytes: number;
  readonly #done = new RequestList();
  /** Their payload is named by the send in flight. */
  readonly #inSend = new RequestList();
  /** Reads that wait for memory. */
  readonly #wanting = new RequestList();
  /** Payload memory of the message that is being received; −1 if none. */
  #incoming = -1;
  #waitsForPool = false;
  readonly #message = new Message();
  readonly #controls: ControlAnswer[] = [];
  #controlsOpen = 0;
  #inventory: { readonly volume: number; readonly entries: readonly InventoryEntry[] } | null = null;
  #gone = false;

  constructor(node: NodeCore, environment: LinkEnvironment, stream: ByteStream) {
    this.#node = node;
    this.#environment = environment;
    this.#stream = stream;
    this.#windowBytes = node.greeting().windowBytes;
  }

  start(): void {
    this.#deadline = this.#environment.clock.setTimer(HELLO_DEADLINE_MS, () => {
      if (this.#state === State.Silent) this.close("no Hello in time");
    });
    this.#link = Link.open(this.#environment, this.#stream, this);
  }

  close(reason: string): void {
    this.#state = State.Closed;
    this.#link?.close(reason);
  }

  // ---- Greeting ----------------------------------------------------------------------------------------

  #hello(m: Message, body: number): string | null {
    if (m.kind !== MessageKind.Hello || m.bodyBytes !== HELLO_BYTES) return "no Hello";
    const hello = getHello(this.#environment.pool.view, body);
    this.#deadline?.cancel();
    this.#state = State.Waiting;
    const wrong = !sameId(hello.cluster, this.#node.cluster) || hello.node !== this.#node.id;
    if (wrong || hello.peer === 0) {
      this.#refuseHello(Status.Inval);
      return null;
    }
    this.peer = hello.peer;
    this.#features = m.detail & featuresOf(this.#environment);
    this.#helloHeard = true;
    if (!this.#node.sessionSaysHello(this, hello.peer, m.sequence)) {
      this.#helloHeard = false;
      this.#refuseHello(Status.Perm);
    }
    return null;
  }

  #refuseHello(status: Status): void {
    this.#greetingDue = status;
    this.#endAfterSend = true;
    this.#link!.wantSend();
  }

  /** No older session of the peer is left. */
  greet(): void {
    if (this.#state !== State.Waiting) return;
    this.#state = State.Open;
    this.#greetingDue = Status.Ok;
    this.#link!.wantSend();
  }

  #fillGreeting(status: Status): void {
    const at = this.#link!.reserve(WELCOME_BYTES_MAX);
    const m = this.#message.clear();
    m.kind = MessageKind.Hello | ANSWER;
    m.status = status;
    m.detail = this.#features;
    const { view } = this.#environment.pool;
    m.bodyBytes = status === Status.Ok ? putWelcome(view, at + HEADER_BYTES, this.#node.greeting()) : 0;
    this.#link!.commit(m, 0);
    this.#greetingDue = null;
  }

  // ---- Receiving ---------------------------------------------------------------------------------------

  payloadFor(m: Message): number {
    if (this.#state !== State.Open || m.kind !== MessageKind.Write) return REFUSE;
    // A packed payload becomes the blocks that it is of where it lies.
    const bytes = m.blocks << BLOCK_SHIFT;
    if (this.#windowUsed + bytes > this.#windowBytes) return REFUSE;
    const memory = this.#environment.pool.allocate(bytes);
    if (memory < 0) {
      this.#waitForPool();
      return HOLD_BACK;
    }
    this.#incoming = memory;
    return memory;
  }

  #waitForPool(): void {
    if (this.#waitsForPool) return;
    this.#waitsForPool = true;
    this.#environment.pool.wait(this);
  }

  poolHasRoom(): void {
    this.#waitsForPool = false;
    if (this.#state !== State.Open) return;
    for (let request = this.#wanting.first; request !== null; request = this.#wanting.first) {
      if (!this.#takeReadMemory(request)) return;
      this.#wanting.shift();
      this.#execute(request);
    }
    this.#link!.resume();
  }

  received(m: Message, body: number, payload: number): string | null {
    if (this.#state === State.Silent) return this.#hello(m, body);
    // Whoever waits for a greeting has nothing to say before it.
    if (this.#state !== State.Open) return "a message before the greeting";
    if (m.target !== this.#node.target) return "a message for somebody else";
    if ((m.kind & ANSWER) !== 0) return "an answer to nothing";
    if (m.volume === 0 && !ABOUT_NO_VOLUME.has(m.kind)) return "a message about no volume";
    const kind = OPERATION_OF[m.kind];
    return kind === undefined ? this.#control(m, body) : this.#operation(m, kind, body, payload);
  }

  #operation(m: Message, kind: ExtentOpKind, body: number, payload: number): string | null {
    const fault = this.#operationFault(m, kind);
    if (fault !== null) return fault;
    const request = this.#node.takeRequest();
    const { op } = request;
    request.session = this;
    request.kind = m.kind;
    request.tag = m.tag;
    request.windowBytes = bytesOf(m, kind);
    op.kind = kind;
    op.volume = m.volume;
    op.layer = m.layer;
    op.extent = m.extent;
    op.block = m.block;
    op.blocks = m.blocks;
    op.flags = (kind === ExtentOpKind.Read ? m.flags | ExtentFlag.Entries : m.flags) & ~FLAG_PACKED;
    op.epoch = m.epoch;
    op.generation = m.generation;
    op.sequence = m.sequence;
    op.status = Status.Ok;
    op.badBlock = -1;
    op.presentCount = 0;
    this.#unanswered++;
    this.#windowUsed += request.windowBytes;
    if (kind === ExtentOpKind.Write) {
      request.memory = payload;
      op.memory = payload;
      this.#incoming = -1;
      getEntries(this.#environment.pool.view, body, op.entries, m.blocks);
      if (!this.#isUnpacked(m, body, payload) || !this.#node.payloadIsWhole(op)) {
        this.#release(request);
        return "a block was damaged on its way";
      }
    } else if (
      kind === ExtentOpKind.Read &&
      (this.#wanting.first !== null || !this.#takeReadMemory(request))
    ) {
      this.#wanting.push(request);
      return null;
    }
    this.#execute(request);
    return null;
  }

  #operationFault(m: Message, kind: ExtentOpKind): string | null {
    const { extentBlocks } = this.#node;
    if (this.#unanswered >= WINDOW_REQUESTS || this.#windowUsed + bytesOf(m, kind) > this.#windowBytes)
      return "more than the window allows";
    if ((m.flags & ~this.#flagsOf(kind)) !== 0) return `unknown flags ${m.flags}`;
    if (m.block + m.blocks > extentBlocks) return `blocks ${m.block}+${m.blocks} of ${extentBlocks}`;
    const whole = kind === ExtentOpKind.Free || kind === ExtentOpKind.Flush || kind === ExtentOpKind.Stamp;
    if (!whole && m.blocks === 0) return "an operation on no blocks";
    const entries = kind === ExtentOpKind.Read || (m.flags & ExtentFlag.Entries) !== 0;
    if (entries && m.blocks > EXTENT_OP_BLOCKS_MAX) return `checksums of ${m.blocks} blocks`;
    if (kind !== ExtentOpKind.Write && m.bodyBytes !== 0) return "a body where none belongs";
    return null;
  }

  #flagsOf(kind: ExtentOpKind): number {
    const isPackable = kind === ExtentOpKind.Write && (this.#features & Feature.Packed) !== 0;
    return isPackable ? KNOWN_FLAGS | FLAG_PACKED : KNOWN_FLAGS;
  }

  /** Puts the blocks of a packed write in the place of its payload; false: it is damaged. */
  #isUnpacked({ flags, blocks, detail }: Message, body: number, payload: number): boolean {
    if ((flags & FLAG_PACKED) === 0) return true;
    const { pool, checksums, packing } = this.#environment;
    if (pool.view.getUint32(body + 4 * blocks, true) !== checksums.crc32c(payload, detail, 0)) return false;
    return packing!.unpack(pool, payload, detail, blocks);
  }

  /** Memory for what a read brings; false when there is none now. */
  #takeReadMemory(request: NodeRequest): boolean {
    const memory = this.#environment.pool.allocate(request.windowBytes);
    if (memory < 0) {
      this.#waitForPool();
      return false;
    }
    request.memory = memory;
    request.op.memory = memory;
    return true;
  }

  #execute(request: NodeRequest): void {
    this.#executing++;
    this.#node.execute(request);
  }

  // ---- Control -----------------------------------------------------------------------------------------

  #control(m: Message, body: number): string | null {
    if (m.kind === MessageKind.Stable) return this.#stable(m, body);
    if (this.#controlsOpen >= CONTROL_REQUESTS_MAX) return "too many control requests";
    this.#controlsOpen++;
    switch (m.kind) {
      case MessageKind.Promise:
        return this.#promise(m);
      case MessageKind.Accept:
        return this.#accept(m, body);
      case MessageKind.Renew:
        return this.#renew(m, body);
      case MessageKind.Inventory:
        return this.#inventoryPage(m);
      case MessageKind.Reconciled:
        return this.#reconciled(m);
      case MessageKind.Adopt:
        return this.#adopt(m, body);
      case MessageKind.States:
        return this.#states(m);
      case MessageKind.Rotten:
        return this.#rotten(m);
      default:
        return "a message out of place";
    }
  }

  #promise(m: Message): string | null {
    if (m.sequence !== this.peer || m.epoch === 0) return "a promise for somebody else";
    const { volume, detail: set } = m;
    const answer = answerTo(m);
    // Without a set it is asked as a member, and its promise is no vote.
    const isVote = set > 0 || this.#node.seat === null;
    if (set > 0 && this.#declines(answer, set)) return null;
    this.#node.promise(volume, { epoch: m.epoch, owner: m.sequence }, (promise) => {
      if (set > 0 && this.#declines(answer, set)) return;
      if (promise.kind === "refused") {
        this.#refused(answer, promise.promised);
      } else if (promise.kind === "unknown") {
        this.#reply(answer, Status.Io);
      } else if (promise.accepted === null || !isVote || !this.#node.votesIn(set)) {
        this.#reply(answer, Status.Ok);
      } else {
        const { accepted } = promise;
        answer.epoch = accepted.ballot.epoch;
        answer.generation = accepted.generation;
        this.#reply(answer, Status.Ok, 8 + accepted.bytes.length, (view) => putAccepted(view, 0, accepted));
      }
    });
    return null;
  }

  #accept(m: Message, body: number): string | null {
    if (m.sequence !== this.peer || m.epoch === 0) return "a record of somebody else";
    const answer = answerTo(m);
    const { detail: set } = m;
    if (this.#declines(answer, set)) return null;
    const record = {
      ballot: { epoch: m.epoch, owner: m.sequence },
      generation: m.generation,
      bytes: this.#environment.pool.bytes.slice(body, body + m.bodyBytes),
    };
    this.#node.accept(m.volume, record, (accept) => {
      if (this.#declines(answer, set)) return;
      if (accept.kind === "refused") this.#refused(answer, accept.promised);
      else if (accept.kind === "accepted") this.#reply(answer, Status.Ok);
      else this.#reply(answer, accept.kind === "name-taken" ? Status.Inval : Status.Io);
    });
    return null;
  }

  /** Says that it does not vote in this set of config nodes, and which one it knows; false: it does vote. */
  #declines(answer: Message, set: number): boolean {
    if (this.#node.votesIn(set)) return false;
    const known = this.#node.seat?.set ?? null;
    if (known === null) {
      this.#reply(answer, Status.NotSup);
    } else if (known.version === set) {
      // It has still to copy, or to write down, what makes its vote one.
      this.#reply(answer, Status.Io);
    } else {
      const body = encodeConfigSet(known);
      this.#reply(answer, Status.OtherSet, body.length, (view) => putBytes(view, body));
    }
    return true;
  }

  /** A set that was chosen; it is answered when it has been taken over, not when it is durable. */
  #adopt(m: Message, body: number): string | null {
    const set = decodeConfigSet(this.#environment.pool.bytes.slice(body, body + m.bodyBytes));
    if (set === null) return "a set of config nodes that is none";
    this.#node.seat?.heard(set);
    this.#reply(answerTo(m), this.#node.seat === null ? Status.NotSup : Status.Ok);
    return null;
  }

  #states(m: Message): string | null {
    const answer = answerTo(m);
    const { seat } = this.#node;
    if (!this.#node.mayVote || seat?.tellsStates(m.detail) !== true) {
      const body = seat === null ? new Uint8Array(0) : encodeConfigSet(seat.set);
      this.#reply(answer, Status.OtherSet, body.length, (view) => putBytes(view, body));
      return null;
    }
    const told = this.#node.states(m.volume);
    const { bytes, count } = encodeStates(told, BODY_BYTES_MAX);
    answer.detail = told.length - count;
    this.#reply(answer, Status.Ok, bytes.length, (view) => putBytes(view, bytes));
    return null;
  }

  #refused(answer: Message, promised: { readonly epoch: number; readonly owner: number }): void {
    answer.epoch = promised.epoch;
    this.#reply(answer, Status.Fenced, 8, (view) => putRefusal(view, 0, promised));
  }

  #renew(m: Message, body: number): string | null {
    if (m.bodyBytes % 8 !== 0) return "a renewal of the wrong length";
    const answer = answerTo(m);
    if (this.#declines(answer, m.detail)) return null;
    if (!this.#node.mayVote) {
      this.#reply(answer, Status.NoLease);
      return null;
    }
    const asked = this.#environment.pool.view;
    this.#reply(answer, Status.Ok, m.bodyBytes, (view) => {
      for (let at = 0; at < m.bodyBytes; at += 8)
        putU64(view, at, this.#node.promisedEpoch(getU64(asked, body + at)));
    });
    return null;
  }

  /** The list is taken when its first page is asked for; the owner, who alone creates extents, waits for it. */
  #inventoryPage(m: Message): string | null {
    const answer = answerTo(m);
    if (!this.#node.isOpenFor(m.volume, m.epoch, this.peer)) {
      this.#reply(answer, Status.Fenced);
      return null;
    }
    if (m.detail === 0) this.#inventory = { volume: m.volume, entries: this.#node.inventory(m.volume) };
    if (this.#inventory?.volume !== m.volume) return "a page of no inventory";
    const { entries } = this.#inventory;
    const page = entries.slice(m.detail, m.detail + this.#node.inventoryPage);
    answer.detail = entries.length;
    if (!this.#node.isLossyIn(m.volume)) answer.flags |= INVENTORY_WHOLE;
    if (m.detail + page.length >= entries.length) this.#inventory = null;
    this.#reply(answer, Status.Ok, page.length * INVENTORY_ENTRY_BYTES, (view) => {
      page.forEach((entry, i) => {
        putInventoryEntry(view, i * INVENTORY_ENTRY_BYTES, entry);
      });
    });
    return null;
  }

  #stable(m: Message, body: number): string | null {
    if (m.bodyBytes % 12 !== 0 || m.bodyBytes > 12 * STABLE_MAX) return "a Stable of the wrong length";
    if (!this.#node.isOpenFor(m.volume, m.epoch, this.peer)) return null;
    const { view } = this.#environment.pool;
    for (let at = body; at < body + m.bodyBytes; at += 12) {
      this.#node.declareStable(m.volume, m.epoch, m.layer, view.getUint32(at, true), getU64(view, at + 4));
    }
    return null;
  }

  #reconciled(m: Message): string | null {
    const open = this.#node.isOpenFor(m.volume, m.epoch, this.peer);
    if (open) this.#node.reconciled(m.volume);
    this.#reply(answerTo(m), open ? Status.Ok : Status.Fenced);
    return null;
  }

  #rotten(m: Message): string | null {
    const answer = answerTo(m);
    if (!this.#node.isOpenFor(m.volume, m.epoch, this.peer)) {
      this.#reply(answer, Status.Fenced);
      return null;
    }
    const extents = this.#node.rottenExtents(m.volume, m.layer, m.extent);
    const page = extents.slice(0, ROTTEN_PAGE);
    answer.detail = extents.length - page.length;
    this.#reply(answer, Status.Ok, 4 * page.length, (view) => {
      page.forEach((extent, i) => {
        view.setUint32(4 * i, extent, true);
      });
    });
    return null;
  }

  #reply(
    message: Message,
    status: Status,
    bodyBytes = 0,
    put: (view: DataView) => void = () => undefined,
  ): void {
    if (this.#link === null || this.#link.closing) return;
    const body = new Uint8Array(bodyBytes);
    put(new DataView(body.buffer));
    message.status = status;
    message.bodyBytes = bodyBytes;
    this.#controls.push({ message, body });
    this.#link.wantSend();
  }

  // ---- Answering ---------------------------------------------------------------------------------------

  /** The request is over at the store, or was not let in. */
  answer(request: NodeRequest): void {
    this.#executing--;
    if (this.#gone || this.#link!.closing) {
      this.#release(request);
      this.#endWhenQuiet();
      return;
    }
    this.#done.push(request);
    this.#link!.wantSend();
  }

  fill(): void {
    if (this.#greetingDue !== null) this.#fillGreeting(this.#greetingDue);
    while (this.#controls.length > 0) {
      const { message, body } = this.#controls[0]!;
      const at = this.#link!.reserve(body.length);
      if (at < 0) return;
      this.#controls.shift();
      this.#controlsOpen--;
      this.#environment.pool.bytes.set(body, at + HEADER_BYTES);
      this.#link!.commit(message, 0);
    }
    for (let request = this.#done.first; request !== null; request = this.#done.first) {
      if (!this.#fillAnswer(request)) return;
    }
  }

  #fillAnswer(request: NodeRequest): boolean {
    const { op } = request;
    const isRead = op.kind === ExtentOpKind.Read;
    const tells = op.status === Status.Ok && (isRead || op.kind === ExtentOpKind.Map);
    const words = tells ? (op.blocks + 31) >>> 5 : 0;
    const entries = tells && (isRead || (op.flags & ExtentFlag.Entries) !== 0) ? op.blocks : 0;
    const at = this.#link!.reserve(4 * (words + entries));
    if (at < 0) return false;
    const { view } = this.#environment.pool;
    const body = at + HEADER_BYTES;
    for (let i = 0; i < words; i++) view.setUint32(body + 4 * i, op.present[i]!, true);
    putEntries(view, body + 4 * words, op.entries, entries);
    const m = this.#message.clear();
    m.kind = request.kind | ANSWER;
    m.tag = request.tag;
    m.target = this.#node.target;
    m.status = op.status;
    m.volume = op.volume;
    m.extent = op.extent;
    m.block = op.block;
    m.blocks = op.blocks;
    m.bodyBytes = 4 * (words + entries);
    m.payloadBytes = tells && isRead && op.presentCount > 0 ? op.blocks << BLOCK_SHIFT : 0;
    m.detail = tells ? op.presentCount : op.badBlock + 1;
    if (op.status === Status.Fenced) m.epoch = op.epoch;
    this.#link!.commit(m, request.memory);
    this.#done.shift();
    this.#unanswered--;
    this.#windowUsed -= request.windowBytes;
    request.windowBytes = 0;
    if (m.payloadBytes > 0) this.#inSend.push(request);
    else this.#release(request);
    return true;
  }

  sent(): void {
    for (let request = this.#inSend.shift(); request !== null; request = this.#inSend.shift())
      this.#release(request);
    if (this.#endAfterSend && this.#greetingDue === null) this.close("the session was refused");
    else if (this.#controls.length > 0 || this.#done.first !== null) this.#link!.wantSend();
  }

  #release(request: NodeRequest): void {
    const { memory } = request;
    this.#node.giveRequest(request);
    // Whoever waits for memory may be called from here.
    if (memory >= 0) this.#environment.pool.free(memory);
  }

  // ---- End ---------------------------------------------------------------------------------------------

  lost(): void {
    this.#state = State.Closed;
    this.#gone = true;
    this.#deadline?.cancel();
    if (this.#incoming >= 0) this.#environment.pool.free(this.#incoming);
    this.#incoming = -1;
    for (const list of [this.#inSend, this.#done, this.#wanting]) {
      for (let request = list.shift(); request !== null; request = list.shift()) this.#release(request);
    }
    this.#controls.length = 0;
    this.#inventory = null;
    this.#endWhenQuiet();
  }

  #endWhenQuiet(): void {
    if (this.#gone && this.#executing === 0) this.#node.sessionEnded(this, this.#helloHeard ? this.peer : 0);
  }
}

function bytesOf(m: Message, kind: ExtentOpKind): number {
  return kind === ExtentOpKind.Read || kind === ExtentOpKind.Write ? m.blocks << BLOCK_SHIFT : 0;
}

function putBytes(view: DataView, bytes: Uint8Array): void {
  new Uint8Array(view.buffer, view.byteOffset, bytes.length).set(bytes);
}

/** The answer's header; bodies are bounded by what is asked. */
function answerTo(m: Message): Message {
  const answer = new Message();
  answer.kind = m.kind | ANSWER;
  answer.tag = m.tag;
  answer.target = m.target;
  answer.volume = m.volume;
  return answer;
}
