/**
 * Clients of NBD connections: the gateway's server, its connection code and both of the package's state machines
 * run on simulated streams. Connections break; what had no answer then is settled when the server lets a new
 * connection of the volume in (invariant 2 of lib/gateway/server.ts).
 */
import {
  ClientHandshake,
  type ClientRequest,
  ClientTransmission,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_STATE_HOLE,
  type ReplyListener,
  ReplyMode,
} from "nbd-protocol-ts";
import { BLOCK_BYTES } from "../../lib/core/limits.js";
import type { Status } from "../../lib/core/status.js";
import { Access, MINIMUM_BLOCK_BYTES } from "../../lib/gateway/exports.js";
import { GatewayServer } from "../../lib/gateway/server.js";
import type { StoreEnvironment } from "../../lib/store/api.js";
import type { DeviceRegistry } from "../../lib/volume/registry.js";
import { OpKind, type SimClient } from "./clients.js";
import type { RunConfig } from "./config.js";
import type { LifeFront } from "./fronts.js";
import type { SimPool } from "./memory.js";
import type { Prng } from "./prng.js";
import { SimStream } from "./stream.js";
import { Violation } from "./violation.js";
import type { SimProcess, SimWorld } from "./world.js";

const REQUESTS_PER_CONNECTION = 64;

export interface NbdHost {
  readonly world: SimWorld;
  readonly process: SimProcess;
  nameOf(volume: number): string;
  /** Opening a volume is a promise of the registry. */
  asyncBegin(): void;
  asyncEnd(): void;
}

export class NbdFront implements LifeFront {
  readonly #config: RunConfig;
  readonly #host: NbdHost;
  readonly #pool: SimPool;
  readonly #random: Prng;
  readonly #server: GatewayServer;
  readonly #links: Link[] = [];
  /** Where each client's operation is. */
  readonly #linkOf: (Link | null)[] = [];
  /** Every client has said goodbye: nobody asks anything any more. */
  #closing = false;

  constructor(config: RunConfig, environment: StoreEnvironment, registry: DeviceRegistry, host: NbdHost) {
    this.#config = config;
    this.#host = host;
    this.#pool = environment.pool as SimPool;
    this.#random = host.world.random.fork("nbd");
    this.#server = new GatewayServer(environment, {
      source: {
        list: () => registry.list(),
        byName: (name) => registry.byName(name),
        open: (name, done) => {
          host.asyncBegin();
          registry.open(name).then(
            (opened) => {
              if (!host.process.alive) return;
              host.asyncEnd();
              done(opened, "");
            },
            (error: unknown) => {
              if (!host.process.alive) return;
              host.asyncEnd();
              done(null, String(error));
            },
          );
        },
      },
      policy: { accessOf: () => Access.ReadWrite },
      tls: null,
    });
    for (let volume = 0; volume < config.volumes; volume++) {
      const links = this.#random.between(1, 3);
      for (let i = 0; i < links; i++) this.#connect(volume, []);
    }
  }

  /** All connections have finished their handshake. */
  get ready(): boolean {
    return this.#links.every((link) => link.ready);
  }

  #connect(volume: number, orphans: SimClient[]): void {
    const { world, process } = this.#host;
    const random = this.#random;
    const options = {
      delayUs: random.pick([5, 50, 500]),
      partMax: random.pick([100, 5000, 100_000, 1 << 20]),
    };
    const stream = new SimStream(world, process, this.#pool, random.fork("stream"), options);
    const link = new Link(
      volume,
      stream,
      this.#pool,
      random,
      this.#host.nameOf(volume),
      this.#config.granuleBytes,
      () => {
        // Whatever older connections had not answered has been done by now, or never will be.
        for (const client of orphans) client.lost();
      },
      () => this.#server.counters.admissionsForced === 0,
    );
    this.#links.push(link);
    this.#server.accept(stream);
  }

  admit(client: SimClient): boolean {
    if (this.#closing) return false;
    const able = this.#links.filter(
      (link) =>
        link.volume === client.volume &&
        link.ready &&
        link.inFlight < REQUESTS_PER_CONNECTION &&
        (client.kind !== OpKind.Map || link.maps),
    );
    if (able.length === 0) return false;
    this.#linkOf[client.number] = this.#random.pick(able);
    return true;
  }

  dismiss(): void {}

  issue(client: SimClient): void {
    const link = this.#linkOf[client.number]!;
    link.ask(client);
  }

  /** A connection breaks, and its client connects again. */
  breakOne(): void {
    if (this.#closing) return;
    const link = this.#random.pick(this.#links);
    if (!link.ready) return;
    this.#host.world.coverage.count("fault:disconnect");
    this.#links.splice(this.#links.indexOf(link), 1);
    const orphans = link.break();
    this.#connect(link.volume, orphans);
  }

  close(done: () => void): void {
    this.#closing = true;
    for (const link of this.#links) link.leave();
    this.#server.close(done);
  }
}

/** One connection, as its client sees it. */
class Link implements ReplyListener {
  readonly volume: number;
  readonly #stream: SimStream;
  readonly #pool: SimPool;
  readonly #handshake: ClientHandshake;
  #transmission: ClientTransmission | null = null;
  readonly #clients = new Map<ClientRequest, SimClient>();
  readonly #onReady: () => void;
  readonly #holesCount: () => boolean;
  readonly #granuleBytes: number;
  #leaving = false;
  #extended = false;
  maps = false;

  constructor(
    volume: number,
    stream: SimStream,
    pool: SimPool,
    random: Prng,
    exportName: string,
    granuleBytes: number,
    onReady: () => void,
    holesCount: () => boolean,
  ) {
    this.volume = volume;
    this.#stream = stream;
    this.#pool = pool;
    this.#onReady = onReady;
    this.#holesCount = holesCount;
    this.#granuleBytes = granuleBytes;
    const mode = random.below(3);
    this.#handshake = new ClientHandshake({
      exportName,
      extendedHeaders: mode === 2,
      structuredReplies: mode > 0,
      // A client that has asked for the block sizes keeps to them; others may use any byte.
      blockSizes: granuleBytes >= MINIMUM_BLOCK_BYTES,
      contexts: mode > 0 ? ["base:allocation"] : [],
    });
    stream.clientListen(
      (bytes) => this.#received(bytes),
      () => this.#ended(),
    );
  }

  get ready(): boolean {
    return this.#transmission !== null;
  }

  get inFlight(): number {
    return this.#clients.size;
  }

  #received(bytes: Uint8Array): void {
    let at = 0;
    if (this.#transmission === null) {
      at = this.#handshake.feed(bytes);
      const output = this.#handshake.takeOutput();
      if (output.length > 0) this.#stream.clientSend(output.slice());
      if (this.#handshake.state === "dead")
        throw new Violation("NBD", `the handshake failed: ${this.#handshake.reason}`);
      if (this.#handshake.state !== "transmission") return;
      const negotiated = this.#handshake.negotiated!;
      this.#extended = negotiated.mode === ReplyMode.Extended;
      this.maps = negotiated.contexts.length > 0;
      this.#transmission = new ClientTransmission(negotiated, this, REQUESTS_PER_CONNECTION);
      this.#onReady();
    }
    this.#transmission.feed(bytes, at);
    if (this.#transmission.dead) throw new Violation("NBD", this.#transmission.reason);
  }

  #ended(): void {
    if (!this.#leaving || this.#clients.size > 0)
      throw new Violation("NBD", "the server closed a connection that was in use");
  }

  ask(client: SimClient): void {
    const machine = this.#transmission!;
    const payload = client.kind === OpKind.Write ? client.length : 0;
    const bytes = new Uint8Array(machine.requestBytes + payload);
    let flags = (client.fua ? NBD_CMD_FLAG_FUA : 0) | (client.noHole ? NBD_CMD_FLAG_NO_HOLE : 0);
    if (payload > 0 && this.#extended) flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
    const flush = client.kind === OpKind.Flush;
    const request = machine.begin(
      new DataView(bytes.buffer),
      0,
      COMMANDS[client.kind],
      flags,
      flush ? 0 : client.offset,
      flush ? 0 : client.length,
    );
    if (request === null) throw new Violation("NBD", "more requests in flight than the client allows itself");
    this.#clients.set(request, client);
    if (payload > 0) {
      const start = client.memory + (client.offset % BLOCK_BYTES);
      bytes.set(this.#pool.bytes.subarray(start, start + payload), machine.requestBytes);
    }
    this.#stream.clientSend(bytes);
  }

  readData(request: ClientRequest, offset: number, bytes: Uint8Array, start: number, end: number): void {
    this.#pool.bytes.set(bytes.subarray(start, end), this.#place(request, offset));
  }

  readHole(request: ClientRequest, offset: number, length: number): void {
    const place = this.#place(request, offset);
    this.#pool.bytes.fill(0, place, place + length);
  }

  #place(request: ClientRequest, offset: number): number {
    const client = this.#clients.get(request)!;
    return client.memory + (client.offset % BLOCK_BYTES) + (offset - request.offset);
  }

  blockStatus(request: ClientRequest, _context: number, runs: Float64Array): void {
    const client = this.#clients.get(request)!;
    client.hole.fill(0, 0, client.granules);
    // A Map takes no lock (invariant 1 of lib/volume/volume.ts): what a dead connection's write, begun and not done, is about
    // to fill may be shown as a hole. So once a connection was let in before such work was done, holes say nothing.
    if (!this.#holesCount()) return;
    let at = 0;
    for (let i = 0; i < runs.length; i += 2) {
      const length = runs[i]!;
      if ((runs[i + 1]! & NBD_STATE_HOLE) !== 0) {
        const from = Math.ceil(at / this.#granuleBytes);
        const to = Math.min(client.granules, Math.floor((at + length) / this.#granuleBytes));
        client.hole.fill(1, from, to);
      }
      at += length;
    }
  }

  requestDone(request: ClientRequest): void {
    const client = this.#clients.get(request)!;
    this.#clients.delete(request);
    client.completed(request.errno as Status);
  }

  /** The connection breaks; returns the clients that will never be answered. */
  break(): SimClient[] {
    this.#stream.clientReset();
    return [...this.#clients.values()];
  }

  leave(): void {
    this.#leaving = true;
    const machine = this.#transmission;
    if (machine === null) return;
    const bytes = new Uint8Array(machine.requestBytes);
    machine.disconnect(new DataView(bytes.buffer), 0);
    this.#stream.clientSend(bytes);
    this.#stream.clientEnd();
  }
}

const COMMANDS: Record<OpKind, number> = {
  [OpKind.Read]: NBD_CMD_READ,
  [OpKind.Write]: NBD_CMD_WRITE,
  [OpKind.Zero]: NBD_CMD_WRITE_ZEROES,
  [OpKind.Free]: NBD_CMD_TRIM,
  [OpKind.Trim]: NBD_CMD_TRIM,
  [OpKind.Map]: NBD_CMD_BLOCK_STATUS,
  [OpKind.Flush]: NBD_CMD_FLUSH,
};
