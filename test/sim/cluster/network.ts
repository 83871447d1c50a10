/**
 * The network of a simulated cluster: connections between processes on hosts.
 *
 * Fault models
 *  - Bytes arrive in order, late, in parts of any size. What is sent is fetched from memory when it is taken, so
 *    memory that is reused too early shows. A reader that does not read fills the path, and the sender waits.
 *  - A blocked path (one direction of a pair of hosts) delivers nothing, then everything: TCP sends it again.
 *  - A connection breaks: both ends hear of it at different times, or an end does only after its path is free;
 *    what was under way arrives or does not.
 *  - A process that dies hangs up; a host that loses power says nothing until it is back.
 *  - A dial that cannot reach its node fails after a while, or at once where nobody listens.
 */

import type { ByteStream, PeerAddress, StreamListener } from "../../../lib/core/stream.js";
import type { Network, NodeId } from "../../../lib/replica/api.js";
import type { SimPool } from "../memory.js";
import type { Prng } from "../prng.js";
import type { EventTarget } from "../queue.js";
import { Violation } from "../violation.js";
import type { SimProcess, SimWorld } from "../world.js";

const ECANCELED = -125;
const ECONNRESET = -104;
/** Bytes that a path holds before its sender must wait. */
const PATH_BYTES = 64 * 1024;
const CONNECT_TIMEOUT_US = 1_000_000;
/** A blocked path is looked at again after this time. */
const BLOCKED_RETRY_US = 20_000;

const EVENT_TAKE = 40;
const EVENT_ARRIVE = 41;
const EVENT_RECEIVE = 42;
const EVENT_CLOSE = 43;
const EVENT_CLOSED = 44;
const EVENT_BREAK = 45;
const EVENT_DIAL = 46;

/** A process on a host, with its memory: what connections end in. */
export interface Station {
  /** Number of the host. */
  readonly host: number;
  readonly process: SimProcess;
  readonly pool: SimPool;
}

/** A node that listens. */
export interface Server extends Station {
  accept(stream: ByteStream): void;
}

export interface NetworkOptions {
  /** Usual time of one way. */
  readonly delayUs: number;
  /** Most bytes that are taken or received at a time. */
  readonly partMax: number;
}

export class SimNetwork {
  readonly world: SimWorld;
  readonly random: Prng;
  readonly options: NetworkOptions;
  readonly #servers = new Map<NodeId, Server>();
  readonly #blocked = new Set<string>();
  readonly #ends = new Set<SimEnd>();

  constructor(world: SimWorld, options: NetworkOptions) {
    this.world = world;
    this.random = world.random.fork("network");
    this.options = options;
  }

  listen(node: NodeId, server: Server): void {
    this.#servers.set(node, server);
  }

  isBlocked(from: number, to: number): boolean {
    return this.#blocked.has(`${from}>${to}`);
  }

  block(from: number, to: number): void {
    this.#blocked.add(`${from}>${to}`);
  }

  healAll(): void {
    this.#blocked.clear();
  }

  get blockedPaths(): number {
    return this.#blocked.size;
  }

  /** Breaks a random connection; false when there is none. */
  breakOne(): boolean {
    const ends = [...this.#ends];
    if (ends.length === 0) return false;
    const end = this.random.pick(ends);
    end.breakSoon();
    end.other.breakSoon();
    return true;
  }

  /** A process has died: `loud`, its kernel hangs up for it. Silent, its peers hear when the host is back. */
  died(process: SimProcess, loud: boolean): void {
    for (const end of [...this.#ends]) {
      if (end.station.process !== process) continue;
      this.#ends.delete(end);
      if (loud) end.other.breakSoon();
      else end.other.orphaned = true;
    }
  }

  /** A host is back: to whoever still sends to what was there before, it answers with a reset. */
  hostIsBack(host: number): void {
    for (const end of this.#ends) if (end.orphaned && end.other.station.host === host) end.breakSoon();
  }

  /** The network as one process sees it. */
  of(station: Station): Network {
    return {
      dial: (node, done) => new Dial(this, station, node, done),
    };
  }

  server(node: NodeId): Server | undefined {
    return this.#servers.get(node);
  }

  connect(from: Station, to: Server): ByteStream {
    const near = new SimEnd(this, from);
    const far = new SimEnd(this, to);
    near.other = far;
    far.other = near;
    this.#ends.add(near);
    this.#ends.add(far);
    to.accept(far);
    return near;
  }

  ended(end: SimEnd): void {
    this.#ends.delete(end);
  }

  /** Time of one way now. */
  delay(): number {
    const { delayUs } = this.options;
    const tail = this.random.chance(0.01) ? 50 : 1;
    return 1 + delayUs / 2 + this.random.below(delayUs * tail);
  }
}

/** One attempt to connect. */
class Dial implements EventTarget {
  readonly #network: SimNetwork;
  readonly #from: Station;
  readonly #node: NodeId;
  readonly #done: (stream: ByteStream | null) => void;
  readonly #until: number;

  constructor(network: SimNetwork, from: Station, node: NodeId, done: (stream: ByteStream | null) => void) {
    this.#network = network;
    this.#from = from;
    this.#node = node;
    this.#done = done;
    this.#until = network.world.nowUs + CONNECT_TIMEOUT_US;
    network.world.at(2 * network.delay(), this, from.process, EVENT_DIAL, 0);
  }

  simEvent(): void {
    const { world } = this.#network;
    const server = this.#network.server(this.#node);
    const there = server?.process.alive ?? false;
    const free =
      server !== undefined &&
      !this.#network.isBlocked(this.#from.host, server.host) &&
      !this.#network.isBlocked(server.host, this.#from.host);
    if (there && free) {
      this.#done(this.#network.connect(this.#from, server!));
    } else if ((free && !there) || world.nowUs >= this.#until) {
      this.#done(null);
    } else {
      world.at(BLOCKED_RETRY_US, this, this.#from.process, EVENT_DIAL, 0);
    }
  }
}

/** One end of a connection. */
class SimEnd implements ByteStream, EventTarget {
  readonly peer: PeerAddress = { family: "tcp", host: "10.0.0.1", port: 1 };
  readonly station: Station;
  other!: SimEnd;
  /** The other host has lost its power. */
  orphaned = false;
  readonly #network: SimNetwork;
  #listener: StreamListener | null = null;
  #reset = false;
  #breaking = false;
  #closing = false;
  #done = false;
  // Arrived, not received yet.
  readonly #inbox: Uint8Array[] = [];
  #inboxBytes = 0;
  /** The other side has ended in order, behind what is in the inbox. */
  #ended = false;
  #receiveAt = 0;
  #receiveBytes = 0;
  #receivePosted = false;
  // On its way from here; arrives in order.
  readonly #path: Uint8Array[] = [];
  #pathBytes = 0;
  #arrivePosted = false;
  #endBehindPath = false;
  #pieces: Uint32Array = new Uint32Array(0);
  #pieceCount = 0;
  #pieceAt = 0;
  #pieceDone = 0;
  #sending = false;
  #takePosted = false;

  constructor(network: SimNetwork, station: Station) {
    this.#network = network;
    this.station = station;
  }

  setListener(listener: StreamListener): void {
    this.#listener = listener;
  }

  receive(offset: number, length: number): void {
    if (this.#receiveBytes > 0 || this.#closing || length <= 0)
      throw new Violation(
        "CONTRACT",
        `a receive of ${length} bytes while another, or none, may be asked for`,
      );
    this.#receiveAt = offset;
    this.#receiveBytes = length;
    this.#tryReceive();
  }

  send(pieces: Uint32Array, count: number): void {
    if (this.#sending || this.#closing || count < 1 || count > 512)
      throw new Violation("CONTRACT", `a send of ${count} pieces while another, or none, may be asked for`);
    this.#pieces = pieces.slice(0, 2 * count);
    this.#pieceCount = count;
    this.#pieceAt = 0;
    this.#pieceDone = 0;
    this.#sending = true;
    this.#tryTake();
  }

  shutdown(): void {}

  close(): void {
    if (this.#closing) throw new Violation("CONTRACT", "a stream was closed twice");
    this.#closing = true;
    this.#own(EVENT_CLOSE, 5);
  }

  /** The connection breaks for this end, some time from now. */
  breakSoon(): void {
    if (this.#breaking) return;
    this.#breaking = true;
    this.#network.world.at(this.#network.delay(), this, this.station.process, EVENT_BREAK, 0);
  }

  simEvent(code: number): void {
    switch (code) {
      case EVENT_TAKE:
        this.#take();
        break;
      case EVENT_ARRIVE:
        this.#arrive();
        break;
      case EVENT_RECEIVE:
        this.#receiveNow();
        break;
      case EVENT_BREAK:
        this.#reset = true;
        this.#tryReceive();
        this.#tryTake();
        break;
      case EVENT_CLOSE:
        this.#closeNow();
        break;
      case EVENT_CLOSED:
        this.#done = true;
        this.#network.ended(this);
        this.#listener!.streamClosed();
        break;
    }
  }

  /** An event of this end's process. */
  #own(code: number, withinUs: number): void {
    this.#network.world.at(1 + this.#network.random.below(withinUs), this, this.station.process, code, 0);
  }

  // ---- Receiving ---------------------------------------------------------------------------------------

  #tryReceive(): void {
    if (this.#receivePosted || this.#receiveBytes === 0) return;
    if (this.#inbox.length === 0 && !this.#reset && !this.#ended) return;
    this.#receivePosted = true;
    this.#own(EVENT_RECEIVE, 5);
  }

  #receiveNow(): void {
    this.#receivePosted = false;
    if (this.#receiveBytes === 0) return;
    const { random } = this.#network;
    // What had arrived before the connection broke may be read, or be lost with it.
    const broken = this.#reset && (this.#inbox.length === 0 || random.chance(0.3));
    const result = broken ? ECONNRESET : this.#moveIn();
    this.#receiveBytes = 0;
    this.#listener!.streamReceived(result);
  }

  #moveIn(): number {
    let room = Math.min(this.#receiveBytes, 1 + this.#network.random.below(this.#network.options.partMax));
    let moved = 0;
    while (room > 0 && this.#inbox.length > 0) {
      const first = this.#inbox[0]!;
      const count = Math.min(room, first.length);
      this.station.pool.bytes.set(first.subarray(0, count), this.#receiveAt + moved);
      moved += count;
      room -= count;
      if (count === first.length) this.#inbox.shift();
      else this.#inbox[0] = first.subarray(count);
    }
    this.#inboxBytes -= moved;
    this.other.#tryTake();
    return moved;
  }

  // ---- Sending -----------------------------------------------------------------------------------------

  #tryTake(): void {
    if (this.#takePosted || !this.#sending || this.#done) return;
    if (this.#pathBytes + this.other.#inboxBytes >= PATH_BYTES && !this.#reset) return;
    this.#takePosted = true;
    this.#own(EVENT_TAKE, 5);
  }

  #take(): void {
    this.#takePosted = false;
    if (!this.#sending) return;
    if (this.#reset) {
      this.#sending = false;
      this.#listener!.streamSent(ECONNRESET);
      return;
    }
    let room = 1 + this.#network.random.below(this.#network.options.partMax);
    while (room > 0 && this.#pieceAt < this.#pieceCount) {
      const offset = this.#pieces[2 * this.#pieceAt]! + this.#pieceDone;
      const left = this.#pieces[2 * this.#pieceAt + 1]! - this.#pieceDone;
      const count = Math.min(room, left);
      this.#path.push(this.station.pool.bytes.slice(offset, offset + count));
      this.#pathBytes += count;
      room -= count;
      this.#pieceDone += count;
      if (count === left) {
        this.#pieceAt++;
        this.#pieceDone = 0;
      }
    }
    this.#postArrival();
    if (this.#pieceAt < this.#pieceCount) {
      this.#tryTake();
      return;
    }
    this.#sending = false;
    this.#listener!.streamSent(0);
  }

  #postArrival(): void {
    if (this.#arrivePosted || (this.#path.length === 0 && !this.#endBehindPath)) return;
    this.#arrivePosted = true;
    // The network's own event: what is on its way survives its sender.
    this.#network.world.at(this.#network.delay(), this, null, EVENT_ARRIVE, 0);
  }

  #arrive(): void {
    this.#arrivePosted = false;
    const { other } = this;
    if (this.#network.isBlocked(this.station.host, other.station.host)) {
      this.#arrivePosted = true;
      this.#network.world.at(BLOCKED_RETRY_US, this, null, EVENT_ARRIVE, 0);
      return;
    }
    // Everything on the path, or a part of it.
    let count = this.#network.random.chance(0.7) ? this.#path.length : Math.min(1, this.#path.length);
    while (count-- > 0) {
      const part = this.#path.shift()!;
      this.#pathBytes -= part.length;
      other.#inbox.push(part);
      other.#inboxBytes += part.length;
    }
    if (this.#path.length === 0 && this.#endBehindPath) {
      this.#endBehindPath = false;
      other.#ended = true;
    }
    if (other.station.process.alive) other.#tryReceive();
    if (this.station.process.alive) this.#tryTake();
    this.#postArrival();
  }

  // ---- End ---------------------------------------------------------------------------------------------

  #closeNow(): void {
    if (this.#receiveBytes > 0) {
      this.#receiveBytes = 0;
      this.#listener!.streamReceived(ECANCELED);
    }
    if (this.#sending) {
      this.#sending = false;
      this.#listener!.streamSent(ECANCELED);
    }
    this.#endBehindPath = true;
    this.#postArrival();
    this.#own(EVENT_CLOSED, 5);
  }
}
