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

import type { ByteStream } from "../../../lib/core/stream.js";
import type { Network, NodeId } from "../../../lib/replica/api.js";
import type { SimPool } from "../memory.js";
import type { Prng } from "../prng.js";
import type { EventTarget } from "../queue.js";
import { StreamEnd, StreamEvent } from "../stream-end.js";
import type { SimProcess, SimWorld } from "../world.js";

/** Bytes that a path holds before its sender must wait. */
const PATH_BYTES = 64 * 1024;
const CONNECT_TIMEOUT_US = 1_000_000;
/** A blocked path is looked at again after this time. */
const BLOCKED_RETRY_US = 20_000;

/** Bytes that are taken or received at a time, at most: usually, and of small parts. */
const PART_BYTES = 100_000;
const SMALL_PART_BYTES = 200;
/** Hosts have lower numbers. */
const HOSTS_MAX = 1024;

const EVENT_ARRIVE = 41;
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
  /** How often only a few bytes are taken or received at a time. */
  readonly smallParts: number;
}

export class SimNetwork {
  readonly world: SimWorld;
  readonly random: Prng;
  readonly options: NetworkOptions;
  readonly #servers = new Map<NodeId, Server>();
  readonly #swapped = new Map<NodeId, NodeId>();
  /** From × HOSTS_MAX + to. */
  readonly #blocked = new Set<number>();
  readonly #ends = new Set<SimEnd>();
  /** Connections that were broken, or more. */
  breaks = 0;

  constructor(world: SimWorld, options: NetworkOptions) {
    this.world = world;
    this.random = world.random.fork("network");
    this.options = options;
  }

  listen(node: NodeId, server: Server): void {
    this.#servers.set(node, server);
  }

  /** Dials of one node reach the other from now on: somebody has mixed up their directories. */
  swapServers(a: NodeId, b: NodeId): void {
    this.#swapped.set(a, b);
    this.#swapped.set(b, a);
  }

  /** Every directory is back where it belongs; whether one was not. */
  swapBack(): boolean {
    const was = this.#swapped.size > 0;
    this.#swapped.clear();
    return was;
  }

  isBlocked(from: number, to: number): boolean {
    return this.#blocked.size > 0 && this.#blocked.has(from * HOSTS_MAX + to);
  }

  block(from: number, to: number): void {
    this.#blocked.add(from * HOSTS_MAX + to);
  }

  unblock(from: number, to: number): void {
    this.#blocked.delete(from * HOSTS_MAX + to);
  }

  healAll(): void {
    this.#blocked.clear();
  }

  get blockedPaths(): number {
    return this.#blocked.size;
  }

  /** Breaks a random connection, of the host if one is given, at once or in halves; false when there is none. */
  breakOne(host?: number, inHalves = this.random.chance(0.5)): boolean {
    const ends = [...this.#ends].filter(({ station }) => host === undefined || station.host === host);
    if (ends.length === 0) return false;
    const end = this.random.pick(ends);
    this.breaks++;
    if (!inHalves) {
      end.breakSoon();
      end.other.breakSoon();
    } else {
      this.#breakInHalves(end);
    }
    return true;
  }

  /** Every connection between the two hosts breaks, whoever has made it. */
  breakBetween(a: number, b: number): void {
    this.breaks++;
    for (const end of [...this.#ends]) {
      if (end.station.host !== a || end.other.station.host !== b) continue;
      end.breakSoon();
      end.other.breakSoon();
    }
  }

  /**
   * What one end sends is held up; that end takes the connection for broken, and opens another one; then what was held
   * up arrives, and only after that the other end hears of the break.
   */
  #breakInHalves(end: SimEnd): void {
    const stallUs = 1000 * this.random.pick([300, 800, 2000]);
    end.stalledUntilUs = this.world.nowUs + stallUs;
    const at = (delayUs: number, act: () => void): void =>
      this.world.at(delayUs, { simEvent: act }, null, 61, 0);
    at(stallUs / 4, () => end.breakSoon());
    at(stallUs + 200_000, () => end.other.breakSoon());
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
    return this.#servers.get(this.#swapped.get(node) ?? node);
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
class SimEnd extends StreamEnd {
  readonly station: Station;
  other!: SimEnd;
  /** The other host has lost its power. */
  orphaned = false;
  /** Virtual time until which what it sends does not arrive. */
  stalledUntilUs = 0;
  readonly #network: SimNetwork;
  #breaking = false;
  #done = false;
  // On its way from here; arrives in order.
  readonly #path: Uint8Array[] = [];
  #pathBytes = 0;
  #arrivePosted = false;
  #endBehindPath = false;
  #sendPosted = false;

  constructor(network: SimNetwork, station: Station) {
    super(station.pool, network.random, PART_BYTES);
    this.#network = network;
    this.station = station;
  }

  /** The connection breaks for this end, some time from now. */
  breakSoon(): void {
    if (this.#breaking) return;
    this.#breaking = true;
    this.#network.world.at(this.#network.delay(), this, this.station.process, EVENT_BREAK, 0);
  }

  override simEvent(code: number): void {
    if (code === EVENT_ARRIVE) {
      this.#arrive();
    } else if (code === EVENT_BREAK) {
      this.reset = true;
      this.tryReceive();
      this.wantSend();
    } else {
      const { random, options } = this.#network;
      this.partMax = random.chance(options.smallParts) ? SMALL_PART_BYTES : PART_BYTES;
      if (code === StreamEvent.Send) this.#sendPosted = false;
      if (code === StreamEvent.Close) this.#endBehindPath = true;
      super.simEvent(code);
      if (code === StreamEvent.Close) this.#postArrival();
    }
  }

  /** An event of this end's process. */
  protected post(code: number): void {
    this.#network.world.at(1 + this.#network.random.below(5), this, this.station.process, code, 0);
  }

  protected wantSend(): void {
    if (this.#sendPosted || !this.outgoing.sending || this.#done) return;
    if (this.#pathBytes + this.other.incoming.bytes >= PATH_BYTES && !this.reset) return;
    this.#sendPosted = true;
    this.post(StreamEvent.Send);
  }

  sendPart(bytes: Uint8Array): void {
    this.#path.push(bytes);
    this.#pathBytes += bytes.length;
    this.#postArrival();
  }

  protected received(): void {
    this.other.wantSend();
  }

  protected closed(): void {
    this.#done = true;
    this.#network.ended(this);
  }

  /** Bytes have come: received in the same moment, or soon after. */
  #arrived(): void {
    const { process } = this.station;
    if (!process.alive) return;
    const isNow = process.pausedUntilUs <= this.#network.world.nowUs && this.#network.random.chance(0.8);
    if (isNow && this.canReceive) this.receiveNow();
    else this.tryReceive();
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
    const isStalled = this.#network.world.nowUs < this.stalledUntilUs;
    if (isStalled || this.#network.isBlocked(this.station.host, other.station.host)) {
      this.#arrivePosted = true;
      this.#network.world.at(BLOCKED_RETRY_US, this, null, EVENT_ARRIVE, 0);
      return;
    }
    // Everything on the path, or a part of it.
    let count = this.#network.random.chance(0.7) ? this.#path.length : Math.min(1, this.#path.length);
    while (count-- > 0) {
      const part = this.#path.shift()!;
      this.#pathBytes -= part.length;
      other.incoming.push(part);
    }
    if (this.#path.length === 0 && this.#endBehindPath) {
      this.#endBehindPath = false;
      other.incoming.ended = true;
    }
    other.#arrived();
    if (this.station.process.alive) this.wantSend();
    this.#postArrival();
  }
}
