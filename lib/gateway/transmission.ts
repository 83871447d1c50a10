/**
 * The transmission phase of one connection: requests in, replies out. It joins intake, executor and outlet
 * and decides when they have their turn: once per batch of events.
 */
import { NBD_META_BASE_ALLOCATION, type Negotiated, rulesFor } from "nbd-protocol-ts";
import { assert } from "../core/assert.js";
import type { TickTask } from "../core/clock.js";
import type { ByteStream } from "../core/stream.js";
import type { Volume } from "../volume/api.js";
import type { Piece } from "./command.js";
import { Executor, type ExecutorOwner } from "./executor.js";
import { Intake, type IntakeOwner } from "./intake.js";
import { Outlet, type OutletOwner } from "./outlet.js";
import type { GatewayParts } from "./parts.js";
import { PieceMemory } from "./piece-memory.js";

export interface TransmissionOwner {
  /** Nobody will ask any more, and every reply has been taken by the stream. */
  transmissionOver(): void;
  /** The connection cannot go on: end it now. */
  transmissionBroken(reason: string): void;
  /** After `abandon`: nothing of this connection is in the volume any more. */
  transmissionDrained(): void;
}

export class Transmission implements OutletOwner, IntakeOwner, ExecutorOwner, TickTask {
  heldBytes = 0;
  waitsForMemory = false;
  readonly #parts: GatewayParts;
  readonly #owner: TransmissionOwner;
  readonly #intake: Intake;
  readonly #executor: Executor;
  readonly #outlet: Outlet;
  #tickAsked = false;
  #leaving = false;
  #peerLeft = false;
  #abandoned = false;
  #over = false;

  /** `received`: part of the home's receive page that came with the handshake and is not parsed yet. */
  constructor(
    parts: GatewayParts,
    stream: ByteStream,
    home: number,
    received: { readonly start: number; readonly end: number },
    volume: Volume,
    negotiated: Negotiated,
    owner: TransmissionOwner,
  ) {
    this.#parts = parts;
    this.#owner = owner;
    const { mode, contexts } = negotiated;
    assert(
      contexts.every(({ name }) => name === NBD_META_BASE_ALLOCATION),
      "base:allocation is the only context",
    );
    const ids = contexts.map(({ id }) => id);
    const pieces = new PieceMemory(parts.memory, this, home);
    const { pool, scratch, counters, clock } = parts;
    this.#outlet = new Outlet(stream, pool, home, mode, ids, scratch, counters, clock, this);
    this.#executor = new Executor(parts, volume, mode, ids, pieces, this.#outlet, this);
    const rules = rulesFor(negotiated);
    this.#intake = new Intake(
      stream,
      parts,
      home,
      received,
      volume,
      rules,
      ids,
      this.#executor,
      pieces,
      this,
    );
  }

  /** Commands admitted whose last reply byte has not been taken. */
  get inFlight(): number {
    return this.#intake.inFlight;
  }

  /** A receive is in flight. */
  get receiving(): boolean {
    return this.#intake.receiving;
  }

  get inVolume(): number {
    return this.#executor.inVolume;
  }

  /** The peer will send no more: it said so, or its stream has ended. */
  get peerLeftAlready(): boolean {
    return this.#peerLeft;
  }

  start(): void {
    this.#intake.run();
    this.wake();
  }

  received(result: number): void {
    this.#intake.received(result);
    this.wake();
  }

  sent(result: number): void {
    this.#outlet.sent();
    if (result < 0 && !this.#abandoned) this.#owner.transmissionBroken("the peer does not take its replies");
    else this.wake();
  }

  /** Answers what has arrived and ends. What comes later is left unanswered: the client asks again elsewhere. */
  shutDown(): void {
    this.#intake.shutDown();
    this.#leaving = true;
    this.wake();
  }

  /** The connection is dead: forgets everything that is not in the volume's or the stream's hands. */
  abandon(): void {
    this.#abandoned = true;
    this.#intake.end();
    this.#outlet.abandon();
    this.#executor.abandon();
  }

  /** The stream touches no memory any more. */
  streamClosed(): void {
    this.#outlet.sent();
    this.#intake.close();
  }

  // ---- Told by intake, executor, outlet and memory ----------------------------------------------------------

  wake(): void {
    if (this.#tickAsked || this.#abandoned || this.#over) return;
    this.#tickAsked = true;
    this.#parts.ticker.atTickEnd(this);
  }

  tick(): void {
    this.#tickAsked = false;
    if (this.#abandoned || this.#over) return;
    this.#executor.advance();
    this.#intake.run();
    this.#outlet.flush();
    if (this.#leaving && !this.#abandoned && this.#answered) {
      this.#over = true;
      this.#owner.transmissionOver();
    }
  }

  /** Nothing more is read, in the volume, or unsent. */
  get #answered(): boolean {
    return this.#intake.ended && this.inFlight === 0 && this.inVolume === 0 && this.#outlet.idle;
  }

  memoryHasRoom(): void {
    this.wake();
  }

  pieceSent(piece: Piece): void {
    this.#executor.release(piece);
  }

  commandsSent(count: number): void {
    this.#intake.commandsSent(count);
  }

  replyBroken(): void {
    this.#parts.counters.streamedFailures++;
    this.#owner.transmissionBroken("a read failed after its reply had begun");
  }

  peerLeft(): void {
    this.#leaving = true;
    this.#peerLeft = true;
    this.wake();
  }

  peerVanished(): void {
    this.#owner.transmissionBroken("the connection broke");
  }

  peerBroke(reason: string): void {
    this.#parts.counters.protocolErrors++;
    this.#owner.transmissionBroken(reason);
  }

  executorDrained(): void {
    this.#owner.transmissionDrained();
  }
}
